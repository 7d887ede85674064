"""How well an answer to "which frames?" finds the event of a clip, whatever gave the answer.

An answer is a number a frame; larger means more important. Frames that it selects are those above the middle between
its smallest and largest number, unless it says itself which they are. The truth of a clip is its event's frames, and
sets of frames that suffice by themselves: one set in most clips, the event; where the event comes twice and either
alone suffices, each of the two.

Each metric stands beside what chance would reach on that clip, exactly:

- `pointing`: does the highest frame lie in the event? Of equal ones, the share that does. Chance: the event's share of
  the clip.
- `precision`: of the k highest frames, the share in the event, where k is the length of the shortest set that suffices.
  Equals at the border count by their share. Chance: as of pointing.
- `auprc`: average precision of the frames ranked, the mean over all orders of equals (scikit-learn has them share one
  threshold, which puts an answer that says nothing below chance). All of the event's frames count, so an answer that
  names one of two occurrences does not reach 1. Chance: that of a random order.
- `temporal_iou`: of the selected frames and the event, or the set that suffices, whichever is larger. Chance: one
  interval as long as the selection, at a random place.

Corrected for chance, a value x becomes (x - random) / (1 - random): 1 is perfect, 0 is chance.

What an answer selects is also measured as it is: `selected`, the number of frames; `inside`, the share of them in the
event; `exact`, whether they are just the event or a set that suffices.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64

from common import errors
from common.clips.clip_store import ClipStore

METRICS = ("pointing", "precision", "auprc", "temporal_iou")
OF_SELECTION = ("selected", "inside", "exact")


@dataclasses.dataclass(frozen=True)
class Truth:
    """When something happens in N clips.

    Attributes:
      event: bool [N, T], the event's frames; False everywhere in a clip where nothing happens.
      sufficient: bool [N, S, T], sets of frames of which each suffices; a set that is False everywhere is none.
    """

    event: np.ndarray
    sufficient: np.ndarray


def truth_of(store: ClipStore, video_ids: Sequence[str]) -> Truth:
    """Returns the truth of clips of a store.

    Args:
      store: with ground truth.
      video_ids: of the clips.

    Raises:
      errors.UserError: for an id that the store lacks, and a store without ground truth.
    """
    if store.info.layout.object_mask_shape is None:
        raise errors.UserError(f"--suite must be a clip store with ground truth. Received: {store.directory} without")
    places = store.places(video_ids)
    event = store.column("salient")[places] != 0
    if not store.info.layout.sufficient_sets:  # The store does not say; the event does suffice.
        return Truth(event, event[:, None])
    return Truth(event, store.column("sufficient")[places] != 0)


def selection(values: Float[np.ndarray, "N T"]) -> Bool[np.ndarray, "N T"]:
    """Returns the frames above the middle between the smallest and the largest value of a clip; of equals, none."""
    lowest, highest = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    return values > lowest / 2 + highest / 2  # Their sum may be beyond what a number holds.


def measure(
    values: Float[np.ndarray, "N T"], selected: Bool[np.ndarray, "N T"], truth: Truth
) -> dict[str, Float64[np.ndarray, " N"]]:
    """Returns every metric of each clip, beside it, as "…_random", that of chance, and what is selected.

    Args:
      values: the answer, finite.
      selected: the frames that it selects.
      truth: of the same clips.

    Returns:
      Name of `METRICS`, with and without "_random", and of `OF_SELECTION` -> [N]. Where nothing happens all but
      `selected` are NaN, and where nothing is selected `inside` is.
    """
    found = [_measure_clip(*clip) for clip in zip(values, selected, truth.event, truth.sufficient, strict=True)]
    names = [*(f"{name}{suffix}" for name in METRICS for suffix in ("", "_random")), *OF_SELECTION]
    return {name: np.array([clip.get(name, np.nan) for clip in found], np.float64) for name in names}


def _measure_clip(
    values: np.ndarray, selected: np.ndarray, event: np.ndarray, sufficient: np.ndarray
) -> dict[str, float]:
    length = int(selected.sum())
    if not event.any():
        return {"selected": length}
    sets = [event, *(one for one in sufficient if one.any())]
    shortest = min(int(one.sum()) for one in sets)
    return {
        "selected": length,
        "inside": float(event[selected].mean()) if length else float("nan"),
        "exact": float(any((selected == one).all() for one in sets)),
        "pointing": float(event[values == values.max()].mean()),
        "pointing_random": float(event.mean()),
        "precision": precision_at(values, event, shortest),
        "precision_random": float(event.mean()),
        "auprc": average_precision(event, values),
        "auprc_random": random_average_precision(int(event.sum()), len(event)),
        "temporal_iou": max(float((selected & one).sum() / (selected | one).sum()) for one in sets),
        "temporal_iou_random": float(np.max([interval_ious(one, length) for one in sets], axis=0).mean()),
    }


def precision_at(values: Float[np.ndarray, " T"], event: Bool[np.ndarray, " T"], count: int) -> float:
    """Returns the share of the `count` highest frames that lie in the event; equals are drawn at random."""
    border = np.sort(values)[-count]
    above, equal = values > border, values == border
    return float((event[above].sum() + (count - above.sum()) * event[equal].mean()) / count)


def average_precision(event: Bool[np.ndarray, " T"], values: Float[np.ndarray, " T"]) -> float:
    """Returns the average precision of frames ranked by their values, on average over all orders of equals.

    That is the mean, over the event's frames, of the share of the event among the frames down to theirs.
    """
    total, ranked, found = 0.0, 0, 0  # Frames, and frames of the event, that rank higher than a group of equals.
    for value in np.unique(values)[::-1]:
        equals = event[values == value]
        size, positives = len(equals), int(equals.sum())
        # Where one of the event's frames is the k-th of its equals, each of the k - 1 before it is one by chance.
        before = np.arange(size)
        expected = found + 1 + before * (positives - 1) / max(size - 1, 1)
        total += positives / size * float((expected / (ranked + 1 + before)).sum())
        ranked, found = ranked + size, found + positives
    return total / found


def random_average_precision(positives: int, time: int) -> float:
    """Returns the average precision that a random order of T frames, of which some are positive, has on average."""
    return average_precision(np.arange(time) < positives, np.zeros(time))


def interval_ious(event: Bool[np.ndarray, " T"], length: int) -> Float64[np.ndarray, " places"]:
    """Returns the IoU with the event of one interval of a length at each of its T - length + 1 places."""
    before = np.concatenate([[0], np.cumsum(event)])
    shared = before[length:] - before[: len(before) - length]
    return shared / (length + before[-1] - shared)
