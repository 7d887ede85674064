"""Several processes that train, or evaluate, as one.

In training each goes through the same loop on its share of every batch: of a batch's clips, process r of k takes those
at the places r, r + k, r + 2 k … In validation and evaluation it takes the batches at these places, whole, so that a
clip's logits are those of one process to the bit. What depends on all of them (sums over a batch, a signal that one has
got) they tell each other; one, the first, writes.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from common import errors

_PATIENCE = "PROCESSES_PATIENCE_SECONDS"


class Processes(Protocol):
    """The processes of a training or an evaluation, seen from one of them; implemented by each build.

    Attributes:
      rank: number of this process, from 0.
      count: number of processes.
    """

    rank: int
    count: int

    def stack(self, array: np.ndarray) -> np.ndarray:
        """Returns the arrays of all processes, of one shape and of a dtype of numbers, `[count, …]`, in each of them.

        So it returns when all processes are here.
        """


class _Alone:
    rank, count = 0, 1

    def stack(self, array: np.ndarray) -> np.ndarray:
        """Returns the one array, `[1, …]`."""
        return array[None]


ALONE: Processes = _Alone()  # One process.


def gather(processes: Processes, array: np.ndarray) -> np.ndarray:
    """Returns the arrays of all processes, one after the other; they may differ in their first axis."""
    sizes = processes.stack(np.array(len(array)))
    padded = np.zeros((sizes.max(), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return np.concatenate([part[:size] for part, size in zip(processes.stack(padded), sizes, strict=True)])


def any_of(processes: Processes, *flags: bool) -> list[bool]:
    """Returns for each flag whether it is set in one of the processes."""
    return np.any(processes.stack(np.array(flags, np.int64)), axis=0).tolist()


def wait(processes: Processes) -> None:
    """Returns when all processes are here."""
    any_of(processes, True)


def check_same(processes: Processes, values: Mapping[str, Any]) -> None:
    """Refuses processes that differ in something, in each of them, with the names of what differs.

    Args:
      processes: that are to do one thing together.
      values: name -> anything that has a text; the texts are compared by 48 bits of their SHA-256.
    """
    # As float64, which one of the builds sends, holds them.
    digests = [int(hashlib.sha256(str(value).encode()).hexdigest()[:12], 16) for value in values.values()]
    found = processes.stack(np.array(digests, np.int64))
    different = (found != found[0]).any(axis=0)
    if different.any():
        names = ", ".join(name for name, differs in zip(values, different, strict=True) if differs)
        others = np.flatnonzero((found != found[0]).any(axis=1))
        raise errors.UserError(
            f"All processes must have the same {names}. Received: another in process {others[0]} than in process 0"
        )


def patience() -> int:
    """Returns how many seconds one process waits for another: the reading of a slow disk takes its time."""
    value = os.environ.get(_PATIENCE, "600")
    if not value.isdecimal() or not int(value):
        raise errors.UserError(f"{_PATIENCE} must be a whole number of seconds, at least 1. Received: {value!r}")
    return int(value)
