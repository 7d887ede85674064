"""Logits of a whole split, whatever the framework."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from common import progress as progress_bar
from common.clips import batches
from common.clips.clip_store import ClipStore


def predict(
    predict_batch: Callable[[np.ndarray], ArrayLike],
    store: ClipStore,
    *,
    batch_size: int,
    num_threads: int = 2,
    reverse: bool = False,
    progress: str = "",
) -> np.ndarray:
    """Returns logits, float64 [N, K], of all clips of a split (D10) in the store's order.

    Args:
      predict_batch: uint8 [n, T, H, W, 3] -> logits [n, K], which may still be in the making until `np.asarray`.
      store: the split, with at least one clip.
      batch_size: clips at a time.
      num_threads: threads that read.
      reverse: show the clips from last frame to first (Table 1, "reversed").
      progress: name of a progress bar, or "" for none.
    """
    parts: list[np.ndarray] = []
    making: ArrayLike | None = None
    with progress_bar.bar(total=len(store), unit="clip", desc=progress, disable=not progress) as bar:
        for batch in batches.batches(store, batches.batch_indices(len(store), batch_size), num_threads=num_threads):
            # A copy, not `ascontiguousarray`, which keeps the negative stride of a single frame.
            frames = batch.frames[:, ::-1].copy() if reverse else batch.frames
            # The device gets its next batch before its last result is waited for.
            last, making = making, predict_batch(frames)
            if last is not None:
                parts.append(np.asarray(last, np.float64))
            bar.update(len(frames))
    assert making is not None
    parts.append(np.asarray(making, np.float64))
    return np.concatenate(parts)
