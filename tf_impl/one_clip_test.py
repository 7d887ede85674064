"""Videos and arrays are explained in TensorFlow as the contract of both builds says."""

from common.command_line.video_contract_for_tests import VideoContract
from tf_impl import explanation, one_clip

# isort: split
import tensorflow as tf


def _brightness(clips):
    level = tf.reduce_mean(clips, (1, 2, 3, 4)) / 255
    return tf.stack([level, 1 - level], axis=1)


class TestOneClip(VideoContract):
    framework = "tf"
    one_clip = one_clip
    explanation = explanation
    brightness = staticmethod(_brightness)
