"""Deletion and insertion over frames (Petsiuk et al. 2018, arXiv:1806.07421, there over pixels).

Frames are perturbed in the order of an answer, the most important first, and the target's score should fall early; or
all are, and they are restored in the same order, and it should rise early. The area under a curve is its mean.
"""

import numpy as np
from jaxtyping import Float, Float64, Int

from common.explaining.scorer import Scorer


def order(values: Float[np.ndarray, "*N T"]) -> Int[np.ndarray, "*N T"]:
    """Returns the frames from the most important on; equals stay in the order of time."""
    return np.argsort(-values, axis=-1, kind="stable")


def curves(scorer: Scorer, orders: Int[np.ndarray, "N O T"], kind: str) -> Float64[np.ndarray, "N O 2 T+1"]:
    """Returns the curves of deletion and insertion (in this order) of N clips.

    Args:
      scorer: the clips.
      orders: O orders of each clip's frames.
      kind: perturbation, one of `perturbations.KINDS`.

    Returns:
      Scores after 0…T frames were perturbed, and after 0…T were restored.
    """
    num_clips, _, time = orders.shape
    # Step k of deletion, k = 0…T, perturbs the frames of rank 0…k - 1; insertion begins with all frames perturbed and
    # restores them in this order, so its masks are the complements.
    ranks = np.argsort(orders, axis=2)
    deletion = ranks[:, :, None, :] < np.arange(time + 1)[:, None]  # [N, O, T + 1, T]
    tried = np.stack([deletion, ~deletion], axis=2).astype(np.float64)  # [N, O, 2, T + 1, T]
    clip_indices = np.repeat(np.arange(num_clips), tried[0].size // time)
    return scorer.scores(clip_indices, tried.reshape(-1, time), kind).reshape(tried.shape[:-1])
