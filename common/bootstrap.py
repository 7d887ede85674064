"""Means over clips with 95 % intervals: percentiles of the bootstrap over clips (Efron & Tibshirani 1993)."""

from collections.abc import Callable

import numpy as np

from common.tables import Estimate

RESAMPLES = 2000
_CHUNK = 1 << 22  # Resampled clips held at a time.


def estimate(
    values: np.ndarray,
    of_means: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    resamples: int = RESAMPLES,
    middle: Callable[..., np.ndarray] = np.mean,
) -> Estimate | None:
    """Returns a function of means over clips, with its bootstrap interval; None where it is defined for no clip.

    Args:
      values: float64 [n, k], k numbers of each clip; clips with a NaN are left out.
      of_means: means [..., k] -> [...].
      seed: of the resampling.
      resamples: number of bootstrap samples.
      middle: what stands for clips, `np.mean` or `np.median`; "means" are then medians.
    """
    values = values[np.isfinite(values).all(axis=1)]
    clips = len(values)
    if not clips:
        return None
    value = float(of_means(middle(values, axis=0)))
    if clips == 1 or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan, clips)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // clips)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    found = np.concatenate(
        [of_means(middle(values[rng.integers(clips, size=(size, clips))], axis=1)) for size in sizes]
    )
    found = found[np.isfinite(found)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(value, float(low), float(high), clips)


def mean(values: np.ndarray) -> Estimate | None:
    """Returns the mean over clips of one number each, float64 [n], NaN where it is not defined."""
    return estimate(values[:, None], first)


def first(means: np.ndarray) -> np.ndarray:
    """Returns the first of k means, [..., k] -> [...]: the function for an estimate that is a mean itself."""
    return means[..., 0]
