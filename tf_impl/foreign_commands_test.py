"""A user's own model in TensorFlow keeps the contract of both builds."""

from common.command_line.foreign_contract_for_tests import ForeignContract
from tf_impl import evaluation, explanation, foreign


class TestForeign(ForeignContract):
    evaluation = evaluation
    explanation = explanation
    foreign = foreign
    framework = "tf"
    source = """
import tensorflow as tf

from common.models.foreign import ForeignModel


def make():
    known = {"versions": {"own": "1.0"}, "licence": "CC0", "source": "made for a test"}
    return ForeignModel("own", "mine", score_fn, frames_per_step=2, **known)


def wrong():
    return logits


def unsteady():
    return lambda clips: tf.nn.softmax(score_fn(clips) + tf.random.uniform((tf.shape(clips)[0], 3)))


def several():
    return lambda clips: (score_fn(clips), clips)


def score_fn(clips):
    return tf.nn.softmax(logits(clips))


def logits(clips):
    change = tf.reduce_mean(tf.abs(clips[:, 1:] - clips[:, :-1]), axis=(1, 2, 3, 4)) / 16
    level = tf.reduce_sum(tf.reduce_mean(clips, axis=(2, 3, 4)) * tf.range(8.0), axis=1) / 28 / 255
    return 4 * tf.stack([change, level, 1 - level], axis=1)
"""
