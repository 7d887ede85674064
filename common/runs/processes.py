"""Several processes that train, or evaluate, as one.

Each goes through the same loop on its share of every batch: of a batch's clips, process r of k takes those at the
places r, r + k, r + 2 k … (`batches.batch_indices`). What depends on all of them (sums over a batch, a signal that one
has got) they tell each other; one, the first, writes.
"""

from typing import Protocol

import numpy as np


class Processes(Protocol):
    """The processes of a training or an evaluation, seen from one of them.

    Attributes:
      rank: number of this process, from 0.
      count: number of processes.
    """

    rank: int
    count: int

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns the arrays of all processes, in their order, in each of them; they may differ in their first axis."""

    def wait(self) -> None:
        """Returns when all processes are here."""


class _Alone:
    rank, count = 0, 1

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns the array."""
        return [array]

    def wait(self) -> None:
        """Returns."""


ALONE: Processes = _Alone()  # One process.


def any_of(processes: Processes, *flags: bool) -> list[bool]:
    """Returns for each flag whether it is set in one of the processes."""
    return [bool(flag) for flag in np.any(processes.gather(np.array([flags], bool)), axis=(0, 1))]
