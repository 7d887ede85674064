"""Logits of a whole split, whatever the framework."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from common import progress as progress_bar
from common.clips import batches
from common.clips.clip_store import ClipStore
from common.runs.processes import ALONE, Processes, gather


def predict(
    predict_batch: Callable[[np.ndarray], ArrayLike],
    store: ClipStore,
    *,
    batch_size: int,
    num_threads: int = 2,
    orders: np.ndarray | None = None,
    progress: str = "",
    processes: Processes = ALONE,
) -> np.ndarray:
    """Returns logits, float64 [N, K], of all clips of a split (D10) in the store's order, in every process.

    Args:
      predict_batch: uint8 [n, T, H, W, 3] -> logits [n, K], which may still be in the making until `np.asarray`.
      store: the split, with at least one clip.
      batch_size: clips at a time.
      num_threads: threads that read.
      orders: int [N, T], which of its frames a clip shows in each place; None for each in its own.
      progress: name of a progress bar, or "" for none.
      processes: that share the batches: process r of k takes those at the places r, r + k, r + 2 k … Each batch is
        what it would be in one process, and so are its logits.
    """
    rank, count = processes.rank, processes.count
    order = batches.batch_indices(len(store), batch_size)[rank::count]
    total = sum(map(len, order))
    parts: list[np.ndarray] = []
    making: ArrayLike | None = None
    with progress_bar.bar(total=total, unit="clip", desc=progress, disable=not progress or rank > 0) as bar:
        for batch in batches.batches(store, order, num_threads=num_threads):
            frames = batch.frames
            if orders is not None:
                frames = np.take_along_axis(frames, orders[batch.indices][:, :, None, None, None], axis=1)
            # The device gets its next batch before its last result is waited for.
            last, making = making, predict_batch(frames)
            if last is not None:
                parts.append(np.asarray(last, np.float64))
            bar.update(len(frames))
    if making is not None:
        parts.append(np.asarray(making, np.float64))
    if count == 1:
        return np.concatenate(parts)
    # A process that has no clip does not know K.
    classes = processes.stack(np.array(parts[0].shape[1] if parts else 0)).max()
    whole = np.empty((len(store), classes))
    places = gather(processes, np.concatenate([*order, np.zeros(0, np.int64)]))
    whole[places] = gather(processes, np.concatenate([*parts, np.zeros((0, classes))]))
    return whole
