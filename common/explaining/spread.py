"""Which clips to take of many: spread over a split, or over its classes."""

import collections

import numpy as np


def evenly(total: int, limit: int) -> np.ndarray:
    """Returns `limit` places evenly over 0…total - 1, or all."""
    return np.arange(total) if not limit or limit >= total else np.arange(limit) * total // limit


def over_classes(labels: np.ndarray, limit: int) -> np.ndarray:
    """Returns the places of `limit` clips, ascending, or of all: each class has its n-th before one has its (n + 1)-th.

    Of the classes that have one more than others, where the limit ends in the middle of a turn, those are chosen that
    are spread evenly.

    Args:
      labels: int [N], classes of the clips.
      limit: number of clips; 0 for all.
    """
    if not limit or limit >= len(labels):
        return np.arange(len(labels))
    seen: collections.Counter[int] = collections.Counter()
    turns = np.empty(len(labels), int)
    for place, label in enumerate(labels.tolist()):
        turns[place] = seen[label]
        seen[label] += 1
    last = int(np.sort(turns)[limit - 1])
    taken, partly = np.flatnonzero(turns < last), np.flatnonzero(turns == last)
    return np.sort(np.concatenate([taken, partly[evenly(len(partly), limit - len(taken))]]))
