"""Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928): which tokens reach the answer of a transformer.

A layer passes on half of what comes in (its residual connection) and half of what it attends to; the product of all
layers says how much of each input token a token of the last layer holds. Unlike Grad-CAM it knows no class: it is the
same map whatever is explained, and what the layers make of the tokens it does not see.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from common import errors
from common.explaining import layer_axes


def rollout(attentions: Float[np.ndarray, "layers N heads L L"]) -> Float[np.ndarray, "N L L"]:
    """Returns how much of each input token (last axis) each token of the last layer holds; rows have the sum 1.

    Args:
      attentions: of each layer, first to last, and head; row i is what token i attends to, 0…1, its sum 1.

    Raises:
      UserError: for what is no attention.
    """
    array = np.asarray(attentions)
    square = array.ndim == 5 and array.shape[3] == array.shape[4] and array.size
    if not square or not array.min() >= 0 or not np.abs(array.sum(axis=4, dtype=np.float64) - 1).max() < 1e-2:
        raise errors.UserError(
            "Attentions must be [layers, N, heads, L, L], each row 0…1 with the sum 1. "
            f"Received: {array.shape}{', other numbers' if square else ''}"
        )
    held = identity = np.eye(array.shape[3])
    for layer in array.mean(axis=2, dtype=np.float64):  # [N, L, L]
        mixed = (layer + identity) / 2
        held = mixed / mixed.sum(axis=2, keepdims=True) @ held
    return held.astype(array.dtype if array.dtype == np.float64 else np.float32)


def rollout_maps(
    attentions: Float[np.ndarray, "layers N heads L L"],
    grid: tuple[int, int, int],
    axes: str = "N(THW)C",
    class_tokens: int | None = None,
) -> Float[np.ndarray, "clips t h w"]:
    """Returns coarse maps, at least 0: what the class token holds of each token of the grid.

    Without a class token it is the mean over all tokens, as a head that averages them sees them.

    Args:
      attentions: see `rollout`; of divided attention, N and L are those of one kind: with "(NT)(HW)C" maps say where in
        each frame, and nothing of time.
      grid: T', H', W'.
      axes: of the tokens, see `layer_axes`.
      class_tokens: see `layer_axes.LayerAxes`; of several, the first is the class token.
    """
    held = rollout(attentions)
    fold = layer_axes.LayerAxes(axes, grid, class_tokens).fold((*held.shape[:2], 1), grid, ())
    values = held[:, 0] if fold.skipped else held.mean(axis=1)
    return values[:, fold.skipped :].reshape(fold.shape or ()).transpose(fold.order)[..., 0]


def stack(attentions: Sequence[np.ndarray]) -> Float[np.ndarray, "layers N heads L L"]:
    """Returns the attentions of layers, each [N, heads, L, L], or [N, L, L] where heads were averaged, as one array."""
    layers = [array[:, None] if array.ndim == 3 else array for array in attentions]
    if len({array.shape for array in layers}) != 1:
        raise errors.UserError(
            "Attentions must be of at least one layer, and have one shape. "
            f"Received: {', '.join(str(array.shape) for array in layers) or 'none'}"
        )
    return np.stack(layers)
