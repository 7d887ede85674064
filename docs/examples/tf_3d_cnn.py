"""Explain a 3-D CNN of your own in TensorFlow: which frames tell it whether a square goes left or right?"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import tf_impl  # noqa: F401  (first: it chooses Keras' backend, and holds back TensorFlow's start-up lines)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from common.explaining import gradcam_maps, masks
from tf_impl import gradcam, temporal_mask

CLASSES = ("left", "right", "still")


def make_clips(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns clips uint8 [N, 16, 8, 16, 3], classes [N], and the event, bool [N, 16]: where the square moves."""
    stream = np.random.default_rng(seed)
    clips = stream.integers(0, 60, (number, 16, 8, 16, 3), dtype=np.uint8)
    labels, events = np.arange(number) % 3, np.zeros((number, 16), bool)
    for clip, label, event in zip(clips, labels, events, strict=True):
        start, length, top, left = stream.integers((2, 4, 0, 0), (8, 8, 5, 16))
        event[start : start + length] = True
        steps = (-2, 2, 0)[label] * event
        for frame, place in zip(clip, left + np.cumsum(steps), strict=True):
            frame[top : top + 4, (place + np.arange(4)) % 16] = 255  # Out on one side is in on the other.
    return clips, labels, events


def score_fn(clips: tf.Tensor) -> tf.Tensor:
    """Float clips [N, T, H, W, C], 0…255 as they were given -> probabilities [N, K]."""
    return tf.nn.softmax(model(clips))


keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((16, 8, 16, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv3D(8, 3, padding="same", activation="relu"),
        keras.layers.MaxPool3D((1, 2, 2)),
        keras.layers.Conv3D(16, 3, padding="same", activation="relu", name="second"),
        keras.layers.GlobalAveragePooling3D(),
        keras.layers.Dense(3),
    ]
)
clips, labels, _ = make_clips(480, seed=0)
model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(clips, labels, batch_size=24, epochs=10, verbose=0)

clips, labels, events = (array[np.arange(9) % 3 < 2] for array in make_clips(9, seed=1))  # "still" has no event.
config = masks.MaskConfig(kind="freeze")
learnt = temporal_mask.learn_masks(score_fn, clips, labels, config)
best = temporal_mask.best_interval(score_fn, clips, labels, config)
activations_of = gradcam.endpoint_fn(model, "second")
maps = gradcam.gradcam(activations_of, clips, labels, gradcam_maps.GradCamConfig())
maps = gradcam_maps.upsample(maps, clips.shape[1:4])

sys.stdout.write("class  event             mask              best interval     OS     FS     RS     Grad-CAM's peak\n")
for i, label in enumerate(labels):
    rows = (events[i], masks.snap(learnt.masks[i]), best.masks(16)[i])
    frames = "  ".join("".join(map(str, row.astype(int))) for row in rows)
    scores = "  ".join(f"{learnt.scores[name][i]:.3f}" for name in ("OS", "FS", "RS"))
    time, row, column = np.unravel_index(maps[i].argmax(), maps[i].shape)
    sys.stdout.write(f"{CLASSES[label]:5}  {frames}  {scores}  frame {time}, row {row}, column {column}\n")
