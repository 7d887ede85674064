"""Batches of clips in an order that a seed decides, read ahead by threads: the same arrays for both frameworks.

The order is a value (`batch_indices`), apart from the reading (`batches`), so training can go on in the middle of an
epoch and several processes can share one.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from common import errors
from common.clips.clip_store import ClipStore


@dataclasses.dataclass(frozen=True)
class Batch:
    """N clips.

    Attributes:
      frames: uint8 [N, T, H, W, 3], RGB.
      labels: int64 [N], class indices (-1: unknown).
      indices: int64 [N], places of the clips in their `ClipStore`.
    """

    frames: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def batch_indices(
    num_clips: int,
    batch_size: int,
    *,
    shuffle_seed: tuple[int, int] | None = None,
) -> list[np.ndarray]:
    """Returns which clips make up each batch of one epoch: every clip once, the last batch perhaps smaller.

    Args:
      num_clips: number of clips to go through.
      batch_size: clips a batch.
      shuffle_seed: (seed, epoch) of a shuffled order, or None for the order of the store.
    """
    if batch_size < 1:
        raise errors.UserError(f"batch_size must be at least 1. Received: {batch_size}")
    order = np.arange(num_clips)
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(num_clips)
    return [order[start : start + batch_size] for start in range(0, num_clips, batch_size)]


def batches(
    store: ClipStore,
    order: Sequence[np.ndarray],
    *,
    num_threads: int = 2,
    read_ahead: int = 3,
    change: Callable[[int, np.ndarray, int], int] | None = None,
) -> Iterator[Batch]:
    """Yields the batches of `order`, reading the next ones meanwhile.

    Args:
      store: where the clips are.
      order: indices of each batch, as `batch_indices` returns them.
      num_threads: threads that read and decode.
      read_ahead: batches that are being read or wait to be taken; memory is bounded by `read_ahead + 1` batches.
      change: what the threads do to each clip (see `augmentation.augmenter`); None: nothing.
    """
    if num_threads < 1 or read_ahead < 1:
        raise errors.UserError(
            f"num_threads and read_ahead must be at least 1. Received: {num_threads} and {read_ahead}"
        )
    pool = concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix="clips")
    waiting: collections.deque[tuple[Batch, list[concurrent.futures.Future[None]]]] = collections.deque()
    upcoming = iter(order)

    def read(batch: Batch, place: int) -> None:
        index, clip = int(batch.indices[place]), batch.frames[place]
        store.read_into(index, clip)
        if change:
            batch.labels[place] = change(index, clip, int(batch.labels[place]))

    def start_next() -> None:
        indices = next(upcoming, None)
        if indices is not None:
            frames = np.empty((len(indices), *store.info.layout.clip_shape), np.uint8)
            batch = Batch(frames, store.labels[indices].astype(np.int64), np.asarray(indices, np.int64))
            # One task a clip: the threads share the work of a batch evenly, however few batches there are.
            tasks = [pool.submit(read, batch, place) for place in range(len(indices))]
            waiting.append((batch, tasks))

    try:
        for _ in range(read_ahead):
            start_next()
        while waiting:
            batch, tasks = waiting.popleft()
            for task in tasks:
                task.result()
            start_next()
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
