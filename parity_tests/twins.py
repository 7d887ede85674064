"""What a model of either framework computes, as arrays, and the weights and clips that both are given."""

import dataclasses

import numpy as np

from common.models import configs, initial_weights

PRECISIONS = ("float64", "float32")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a model computes from a batch.

    Attributes:
      endpoints: name -> array, first to last.
      loss: mean cross entropy.
      gradients: canonical name -> gradient of the loss.
      weights: canonical name -> array afterwards (training mode changes running statistics).
    """

    endpoints: dict[str, np.ndarray]
    loss: np.ndarray
    gradients: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def trained_weights(config: configs.ModelConfig, seed: int = 1) -> dict[str, np.ndarray]:
    """Returns weights in which every array matters, as after training: none is all zeros or ones."""
    stream = np.random.default_rng(seed)
    arrays = initial_weights.initial_weights(config, seed)
    for name, array in arrays.items():
        if array.ndim == 1:
            shift = stream.uniform(-0.3, 0.3, array.shape)
            arrays[name] = (array + shift).astype(np.float32)
    return arrays


def random_batch(config: configs.ModelConfig, clips: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames, uint8 [N, T, H, W, 3], and labels, int64 [N].

    Frames are patches of 3 frames x 13 x 11 px with noise upon them. White noise alone would average out as receptive
    fields grow, and batch norm would then blow up rounding as no clip of anything does.
    """
    stream = np.random.default_rng(seed)
    shape = (clips, *config.input_shape, 3)
    patches = stream.uniform(0, 215, (clips, *(-(-n // m) for n, m in zip(shape[1:4], (3, 13, 11), strict=True)), 3))
    smooth = patches.repeat(3, axis=1).repeat(13, axis=2).repeat(11, axis=3)[:, : shape[1], : shape[2], : shape[3]]
    frames = (smooth + stream.uniform(0, 40, shape)).astype(np.uint8)
    return frames, stream.integers(0, config.num_classes, clips)
