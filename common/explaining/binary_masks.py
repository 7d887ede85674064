"""Masks of 0 and 1: the best single interval (the oracle), in full or from coarse to fine, and single flips from there.

A soft mask may cheat. Frames at 0.4 cost 0.4 in Eq. 1 and leave a ghost of what they show, which can be all that the
model needs; read at 0.5, such a mask answers nothing. These searches try masks of 0 and 1 alone: Eq. 1 means what it
meant, and a mask's loss is the one of the frames that it names.
"""

import dataclasses
import math
from collections.abc import Generator, Iterable

import numpy as np

from common import errors
from common.explaining import scorer as scoring
from common.explaining.masks import (
    MaskConfig,
    interval_mask,
    interval_masks,
    intervals,
    mask_cost,
    mask_loss,
    perturbed_part,
)
from common.explaining.scorer import Scorer, Search

Place = tuple[int, int]  # An interval: its first frame, and the one after its last.

_GRID_STEPS = 4  # The coarse oracle first tries starts and stops at least this many to a clip.
_NEAR = 2  # Intervals whose ends lie this many frames apart, in sum, are near each other.
_REFINED = 3  # Around how many of the best intervals it halves the grid.
_SHORT = 3  # Intervals of at most so many frames are tried at the end of the best one.


@dataclasses.dataclass(frozen=True)
class BestIntervals:
    """The best of the masks that are one interval of ones (the oracle), for N clips.

    Attributes:
      intervals: int64 [N, 2], first frame and the one after the last.
      losses: float64 [N], Eq. 1 of the best interval.
      scores: float64 [N, T (T + 1) / 2], F_c under every interval in the order of `intervals(T)`, NaN where it was not
        tried; in the game "preserve" the search over sub-sequences of Satkin & Hebert (2010), with a perturbation in
        place of cropping.
    """

    intervals: np.ndarray
    losses: np.ndarray
    scores: np.ndarray

    def masks(self, time: int) -> np.ndarray:
        """Returns the best intervals as masks, float64 [N, T]."""
        return interval_masks(self.intervals, time)


def best_intervals(scorer: Scorer, config: MaskConfig) -> BestIntervals:
    """Finds the best interval of each clip.

    Args:
      scorer: the clips.
      config: kind, weights, compat, ends and game count. The oracle "full" tries every interval, or with an area every
        one of so many frames; "coarse" (see `coarse_to_fine`) about a third of them, and may miss the best.

    Raises:
      errors.UserError: for an area of more frames than clips have.
    """
    scorer, time = scoring.remembering(scorer), scorer.time
    if config.area > time:
        raise errors.UserError(f"area must be at most the {time} frames of a clip. Received: {config.area}")
    every = intervals(time)
    column = {place: number for number, place in enumerate(every)}
    scores = np.full((scorer.num_clips, len(every)), np.nan)

    def score(clip_indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        masks = interval_masks(places, time)
        found = scorer.scores(clip_indices, perturbed_part(masks, config.game), config.kind)
        scores[clip_indices, [column[tuple(place)] for place in places.tolist()]] = found
        return mask_loss(found, masks, config)

    def search() -> Search[tuple[Place, float]]:
        if config.oracle == "coarse" and not config.area:
            return coarse_to_fine(time, config)
        return _among([place for place in every if config.area in (0, place[1] - place[0])])

    best = scoring.in_step([search() for _ in range(scorer.num_clips)], score)
    return BestIntervals(np.array([place for place, _ in best]), np.array([loss for _, loss in best]), scores)


def next_best(found: BestIntervals, time: int, config: MaskConfig) -> np.ndarray:
    """Returns masks of the best intervals that are not near the best one, float64 [N, T], without scoring anything.

    Args:
      found: what `best_intervals` found; what it did not try does not count.
      time: frames of the clips.
      config: the settings.
    """
    every = intervals(time)
    masks = interval_masks(every, time)
    chosen = []
    for scores, best in zip(found.scores, found.intervals, strict=True):
        losses = mask_loss(scores, masks, config)
        far = np.abs(np.array(every) - best).sum(axis=1) > _NEAR
        chosen.append(masks[np.where(far & np.isfinite(losses), losses, np.inf).argmin()])
    return np.stack(chosen)


def coarse_share(full: BestIntervals, time: int, config: MaskConfig) -> tuple[np.ndarray, np.ndarray]:
    """Says how good `coarse_to_fine` is where the full oracle is known, without scoring anything.

    Args:
      full: what `best_intervals` found with the oracle "full".
      time: frames of the clips.
      config: the settings.

    Returns:
      Whether it finds an interval as good as the best, bool [N], and how many it tries, int [N].
    """
    every = intervals(time)
    column = {place: number for number, place in enumerate(every)}
    masks = interval_masks(every, time)
    losses = np.stack([mask_loss(scores, masks, config) for scores in full.scores])
    tried = np.zeros(len(losses), int)

    def look_up(clip_indices: np.ndarray, places: np.ndarray) -> np.ndarray:
        np.add.at(tried, clip_indices, 1)
        return losses[clip_indices, [column[tuple(place)] for place in places.tolist()]]

    found = scoring.in_step([coarse_to_fine(time, config) for _ in losses], look_up)
    return np.array([loss for _, loss in found]) <= full.losses, tried


def _among(places: list[Place]) -> Search[tuple[Place, float]]:
    losses = yield np.array(places)
    best = losses.argmin()  # Of equals the first: the shortest, then the earliest.
    return places[best], losses[best]


def coarse_to_fine(time: int, config: MaskConfig) -> Search[tuple[Place, float]]:
    """Searches one clip's best interval from a grid of starts and stops, refined around the best of what was tried.

    The last frame shown stays on the screen while what follows is frozen, so a score may leap from one stop to the next
    where it hardly moves with the start: each time the grid is halved, all stops are tried where the best interval
    begins. At the end it goes to a better interval as long as there is one whose ends are at most two frames away, one
    that begins where the best does, or a short one that begins in its last frames, which may do all that it does. Where
    the ends of a clip are free, intervals that reach one cost less than their neighbours: so the first and the last
    frame alone are tried beside the grid, and the best interval lengthened to either end, its other end a frame earlier
    or later. An interval that costs more than the best loss so far cannot be better, whatever its score, and is not
    tried.

    Args:
      time: frames of the clip.
      config: weights, compat and ends count.

    Yields:
      Intervals [k, 2]; their Eq. 1 [k] must be sent.

    Returns:
      The best interval and its loss.
    """
    losses: dict[Place, float] = {}
    costs = {place: float(mask_cost(interval_mask(*place, time)[None], config)[0]) for place in intervals(time)}

    def best(count: int) -> list[Place]:  # As in the full search, of equals the shortest, then the earliest.
        return sorted(losses, key=lambda place: (losses[place], place[1] - place[0], place))[:count]

    def all_stops(place: Place) -> list[Place]:
        return [(place[0], stop) for stop in range(place[0] + 1, time + 1)]

    def ask(places: Iterable[Place]) -> Generator[np.ndarray, np.ndarray, None]:
        lowest = min(losses.values(), default=math.inf)
        new = [place for place in dict.fromkeys(places) if costs.get(place, math.inf) < lowest and place not in losses]
        if new:
            losses.update(zip(new, (yield np.array(new)).tolist(), strict=True))

    step = 2 ** max(int(math.log2(time / _GRID_STEPS)), 0) if time >= _GRID_STEPS else 1
    ends = [*range(0, time, step), time]
    at_an_end = [(0, 1), (time - 1, time)] if config.ends == "free" else []
    yield from ask([*((start, stop) for start in ends for stop in ends if start < stop), *at_an_end])
    while step > 1:
        step //= 2
        for centre in best(_REFINED):  # One after the other: what the first finds may rule out some of the next.
            yield from ask(_around(centre, (-step, 0, step)))
        yield from ask(all_stops(best(1)[0]))
    while True:
        (centre,) = best(1)
        start, stop = centre
        yield from ask(_around(centre, (-1, 0, 1)))
        yield from ask(_around(centre, (-2, -1, 0, 1, 2)))
        yield from ask(all_stops(centre))
        yield from ask((late, late + length) for late in range(stop - _SHORT, stop) for length in range(1, _SHORT + 1))
        if config.ends == "free":
            yield from ask([(start + move, time) for move in (-1, 0, 1)] + [(0, stop + move) for move in (-1, 0, 1)])
        if best(1) == [centre]:
            return centre, losses[centre]


def _around(place: Place, moves: tuple[int, ...]) -> list[Place]:
    return [(place[0] + first, place[1] + second) for first in moves for second in moves]


def flip_frames(start: np.ndarray, config: MaskConfig) -> Search[tuple[np.ndarray, np.ndarray]]:
    """Flips the frame that lowers Eq. 1 most, from a mask of 0 and 1 on, until no flip lowers it.

    With an area, one frame is switched on and another off at a time.

    Args:
      start: mask [T].
      config: weights, compat, ends and area count.

    Yields:
      Masks [k, T]; their Eq. 1 [k] must be sent.

    Returns:
      The mask [T], and Eq. 1 before each flip and at the end [flips + 1].
    """
    mask, (loss,) = start, (yield start[None])
    trace = [loss]
    while True:
        tried = _flipped(mask, paired=bool(config.area))
        tried = tried[mask_cost(tried, config) < loss]  # No score makes up for a mask that costs more.
        losses = (yield tried) if len(tried) else np.array([math.inf])
        best = losses.argmin()
        if losses[best] >= loss:
            return mask, np.array(trace)
        mask, loss = tried[best], losses[best]
        trace.append(loss)


def _flipped(mask: np.ndarray, paired: bool) -> np.ndarray:
    """Returns all masks [k, T] in which one frame differs, or one that is on and one that is off."""
    single = np.eye(len(mask))
    if not paired:
        return np.abs(mask - single)
    on, off = single[mask == 1], single[mask == 0]
    return (mask - on[:, None] + off).reshape(-1, len(mask))
