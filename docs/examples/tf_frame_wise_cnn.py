"""Explain a 2-D CNN that sees single frames, in TensorFlow: it needs some frames, and cannot know their order."""

import pathlib
import sys
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import tf_impl  # noqa: F401  (first: it chooses Keras' backend, and holds back TensorFlow's start-up lines)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from common.explaining import gradcam_maps, masks, perturbations
from tf_impl import gradcam, temporal_mask

CLASSES = ("red", "green", "none")


@perturbations.register
def dim(mask: Any, ops: perturbations.Ops) -> Any:
    """Darkens a frame to a tenth of its brightness: p_t = (1 - 0.9 m_t) x_t."""
    return (1 - 0.9 * mask)[:, :, None] * ops.constant(np.eye(mask.shape[1]), mask)


def make_clips(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns clips uint8 [N, 16, 8, 16, 3], classes [N], and the event, bool [N, 16]: where a square is lit."""
    stream = np.random.default_rng(seed)
    clips = stream.integers(0, 60, (number, 16, 8, 16, 3), dtype=np.uint8)
    labels, events = np.arange(number) % 3, np.zeros((number, 16), bool)
    for clip, label, event in zip(clips, labels, events, strict=True):
        start, length, top, left = stream.integers((2, 4, 0, 0), (8, 8, 5, 13))
        event[start : start + length] = True
        if label < 2:
            clip[event, top : top + 4, left : left + 4, label] = 255
    return clips, labels, events


def endpoint_fn(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Clips [N, T, H, W, C], 0…255 -> logits [N, K], the mean over time, and activations [N, T, H', W', C']."""
    frames = tf.cast(tf.reshape(clips, (-1, *clips.shape[2:])), tf.float32) / 255
    activations = tf.reshape(features(frames), (-1, clips.shape[1], *features.output_shape[1:]))
    return tf.reduce_mean(classify(tf.reduce_mean(activations, axis=(2, 3))), axis=1), activations


def score_fn(clips: tf.Tensor) -> tf.Tensor:
    """Float clips [N, T, H, W, C], 0…255 as they were given -> probabilities [N, K]."""
    return tf.nn.softmax(endpoint_fn(clips)[0])


keras.utils.set_random_seed(0)
features = keras.Sequential(
    [
        keras.Input((8, 16, 3)),
        keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
        keras.layers.MaxPool2D(2),
        keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
    ]
)
classify = keras.Sequential([keras.Input((16, 16)), keras.layers.Dense(3)])
clips, labels, _ = make_clips(240, seed=0)
weights, optimizer = [*features.trainable_variables, *classify.trainable_variables], keras.optimizers.Adam(1e-2)
for step in range(60):
    batch = slice(step % 10 * 24, (step % 10 + 1) * 24)
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[batch], endpoint_fn(clips[batch])[0])
        loss = tf.reduce_mean(losses)
    optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

clips, labels, events = (array[np.arange(9) % 3 < 2] for array in make_clips(9, seed=1))  # "none" has no event.
learnt = temporal_mask.learn_masks(score_fn, clips, labels, masks.MaskConfig(kind="freeze"))
maps = gradcam.gradcam(endpoint_fn, clips, labels, gradcam_maps.GradCamConfig())
maps = gradcam_maps.upsample(maps, clips.shape[1:4])

sys.stdout.write("class  event             mask              OS          FS_snapped  RS_snapped  Grad-CAM's peak\n")
for i, label in enumerate(labels):
    frames = "  ".join("".join(map(str, row.astype(int))) for row in (events[i], masks.snap(learnt.masks[i])))
    scores = "  ".join(f"{learnt.scores[name][i]:<10.3f}" for name in ("OS", "FS_snapped", "RS_snapped"))
    time, row, column = np.unravel_index(maps[i].argmax(), maps[i].shape)
    sys.stdout.write(f"{CLASSES[label]:5}  {frames}  {scores}  frame {time}, row {row}, column {column}\n")
sys.stdout.write("\nHow much perturbing the event changes the logit of the class, least and most:\n")
for kind in ("freeze", "reverse", "blank", "dim"):
    perturbed = temporal_mask.perturb(clips, events.astype(np.float32), kind)
    change = np.abs(endpoint_fn(perturbed)[0] - endpoint_fn(clips)[0])[range(len(clips)), labels]
    sys.stdout.write(f"{kind:7}  {change.min():.6f}  {change.max():.6f}\n")
