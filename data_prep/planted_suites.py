"""The suites of planted events: what happens in a clip of each class, and which frames are then the evidence.

    rare        one event, anywhere; or nothing
    edges       one event, at the very beginning or the very end
    pair        two events of the ground, one of them sideways; the class is both directions and which came first
    redundant   the same event twice: either alone suffices
    distractor  one event, and the light that goes up or down and back at another time, which says nothing
    null        nothing

All but `pair` have the classes of `rare`, so a model of `rare` can be asked about them. Freezing exactly the salient
frames gives a still clip (of `distractor`: one in which only the light changes).
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from common import errors
from common.clips import suites
from data_prep import planted_scenes
from data_prep.planted_scenes import FRAMES, Event

_LENGTHS = suites.LENGTHS
_PAIR_LENGTHS = suites.LENGTHS[:2]  # Of each of two events: together at most a third of the clip.
_REST = 2  # Fewest frames of rest between two things that happen, after the frame in which the first has undone itself.
_SIGNS = (1, -1)
_Events = tuple[suites.WaveEvent, ...]
_LIGHT = 15  # The most that the light changes, of 255: no pixel becomes black or white.


@dataclasses.dataclass(frozen=True, eq=False)
class Happening:
    """What happens in a clip.

    Attributes:
      events: in the order of time.
      light: int [FRAMES], see `planted_scenes.Scene`.
      sufficient: uint8 [2, FRAMES], each row a set of frames that suffices for the class, or zeros.
    """

    events: tuple[Event, ...]
    light: np.ndarray
    sufficient: np.ndarray

    @property
    def salient(self) -> np.ndarray:
        """The frames of all events, uint8 [FRAMES]."""
        return _frames(*self.events)


@dataclasses.dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
      labels: of the classes that its clips are of.
      clips_per_class: split -> videos of each of these classes, by default.
      happen: draws when the events of a class happen in a clip, and what else.
    """

    labels: tuple[int, ...]
    clips_per_class: dict[str, int]
    happen: Callable[[_Events, np.random.Generator], Happening]


def draw(suite: str, label: int, rng: np.random.Generator) -> tuple[planted_scenes.Scene, Happening]:
    """Draws a clip of a class.

    Args:
      suite: one of `suites.SUITES`.
      label: one of the suite's.
      rng: where all randomness comes from.
    """
    happening = find(suite).happen(suites.classes(suite)[label], rng)
    return planted_scenes.draw_scene(happening.events, happening.light, rng), happening


def generator(suite: str, split: str, seed: int, number: int) -> np.random.Generator:
    """Returns the generator of one clip. The test split is frozen: its clips do not depend on the seed."""
    return np.random.default_rng((0 if split == "test" else seed, zlib.crc32(f"{suite} {split}".encode()), number))


def _one_event(events: _Events, rng: np.random.Generator, at_edge: bool = False) -> Happening:
    if not events:
        return _happening(())
    length = int(rng.choice(_LENGTHS))
    last = FRAMES - 1 - length  # The last frame of all shows the still picture again.
    first = int(rng.choice((1, last)) if at_edge else rng.integers(1, last + 1))
    event = Event(*events[0], first, length)
    return _happening((event,), _frames(event))


def _two_events(events: _Events, rng: np.random.Generator) -> Happening:
    if not events:
        return _happening(())
    lengths = tuple(int(length) for length in rng.choice(_PAIR_LENGTHS, 2))
    both = tuple(
        Event(*event, first, length)
        for event, first, length in zip(events, _places(lengths, rng), lengths, strict=True)
    )
    return _happening(both, _frames(*both))


def _event_twice(events: _Events, rng: np.random.Generator) -> Happening:
    length = int(rng.choice(_PAIR_LENGTHS))
    both = tuple(Event(*events[0], first, length) for first in _places((length, length), rng))
    return _happening(both, *(_frames(event) for event in both))


def _event_and_light(events: _Events, rng: np.random.Generator) -> Happening:
    lengths = tuple(int(length) for length in rng.choice(_LENGTHS, 2))
    which = int(rng.integers(2))
    places = _places(lengths, rng)
    event = Event(*events[0], places[which], lengths[which])
    steps = np.arange(1, lengths[1 - which] + 1)
    rise = np.minimum(steps, steps[::-1])  # 1 2 3 2 1
    light = np.zeros(FRAMES, np.int64)
    light[places[1 - which] + steps - 1] = int(rng.choice(_SIGNS)) * _LIGHT * rise // rise.max()
    return dataclasses.replace(_happening((event,), _frames(event)), light=light)


def _places(lengths: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
    """Draws the first frames of two things of these lengths, in the order of time, with `_REST` frames between them."""
    spare = FRAMES - 2 - sum(lengths) - _REST - 1
    before, within = sorted(int(place) for place in rng.integers(0, spare + 1, 2))
    return 1 + before, 1 + within + lengths[0] + _REST + 1


def _frames(*events: Event) -> np.ndarray:
    """Returns the frames of events, uint8 [FRAMES]."""
    frames = np.zeros(FRAMES, np.uint8)
    for event in events:
        frames[event.first : event.stop] = 1
    return frames


def _happening(events: tuple[Event, ...], *sufficient: np.ndarray) -> Happening:
    sets = np.zeros((2, FRAMES), np.uint8)
    for row, frames in zip(sets, sufficient, strict=False):
        row[:] = frames
    return Happening(events, np.zeros(FRAMES, np.int64), sets)


_ALL, _SIGNED, _NOTHING = tuple(range(9)), tuple(range(8)), (8,)
_TRAINABLE = {"train": 300, "validation": 20, "test": 20}  # Enough for the presets of planted events to learn.
_TEST_ONLY = {"test": 20}

_TABLE = {
    "rare": Suite(_ALL, _TRAINABLE, _one_event),
    "edges": Suite(_SIGNED, _TEST_ONLY, functools.partial(_one_event, at_edge=True)),
    "pair": Suite(_ALL, _TRAINABLE, _two_events),
    "redundant": Suite(_SIGNED, _TEST_ONLY, _event_twice),
    "distractor": Suite(_SIGNED, _TEST_ONLY, _event_and_light),
    "null": Suite(_NOTHING, _TEST_ONLY, _one_event),
}


def find(suite: str) -> Suite:
    """Returns a suite; refuses an unknown name."""
    errors.check_choice("suite", suite, suites.SUITES)
    return _TABLE[suite]
