"""The suites of planted events: their classes, and digests that tell whether two clip stores hold the same test.

A clip is a still picture of four waves, two of the ground and two of a disc on it, and an event is a run of one wave
through a whole period (`data_prep.planted_scenes` draws it). A class is the events that happen, in the order of time.

A suite's test split is frozen: the same clips whatever the seed of the training clips, made by
`data_prep/prepare.py --dataset=planted --suite=NAME`. Its digest is of pixels and truths before any encoding, and part
of the name of the data set (in `dataset.json`) and of the folder in which it is made by default.
"""

import itertools
import pathlib

from common import errors

# Suite -> the first 8 hex digits of the SHA-256 of its test split (`data_prep.planted.digest`).
DIGESTS = {
    "rare": "70bb63d4",
    "edges": "17abf09c",
    "pair": "9207c4e5",
    "redundant": "2c29bf36",
    "distractor": "92f80fd4",
    "null": "9f5224a6",
}
SUITES = tuple(DIGESTS)

# Wave numbers (along x to the right, along y downwards), whole periods in a frame's side; the first two waves are the
# ground's, the others the disc's. A wave whose phase grows runs in the direction of its wave numbers.
WAVES = ((6, 0), (0, 6), (4, 4), (4, -4))
NUM_GROUND_WAVES = 2
AMPLITUDE = 44.0  # Of each wave, mean over the colours; of 255.
DISC_RADIUS = 20 / 64  # Of a frame's side.
LENGTHS = (3, 4, 5)  # Frames of an event.

WaveEvent = tuple[int, int]  # Which wave runs, an index into `WAVES`, and 1 (its direction) or -1 (against it).

_SIGNS = (1, -1)
_NOTHING = "Nothing moves"
_DIRECTIONS = (("right", "left"), ("down", "up"), ("down and right", "up and left"), ("up and right", "down and left"))

# In label order. A class and its reversal stand next to each other; the last class is nothing, its own reversal.
_ONE_EVENT: tuple[tuple[WaveEvent, ...], ...] = (
    *(((wave, sign),) for wave in range(len(WAVES)) for sign in _SIGNS),
    (),
)
_TWO_EVENTS: tuple[tuple[WaveEvent, ...], ...] = (
    *(
        events
        for sideways, downwards in itertools.product(_SIGNS, repeat=2)
        for events in (((0, sideways), (1, downwards)), ((1, -downwards), (0, -sideways)))
    ),
    (),
)


def classes(suite: str) -> tuple[tuple[WaveEvent, ...], ...]:
    """Returns what happens in each class of a suite, in label order; in the last class, nothing."""
    errors.check_choice("suite", suite, SUITES)
    return _TWO_EVENTS if suite == "pair" else _ONE_EVENT


def class_names(suite: str) -> tuple[str, ...]:
    """Returns the names of a suite's classes, in label order."""
    return tuple(_class_name(events) for events in classes(suite))


def reverse_pairs(suite: str) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of classes that are each other played backwards."""
    signed = class_names(suite)[:-1]
    return tuple(zip(signed[::2], signed[1::2], strict=True))


def _class_name(events: tuple[WaveEvent, ...]) -> str:
    if not events:
        return _NOTHING
    what = "Ground" if events[0][0] < NUM_GROUND_WAVES else "Disc pattern"
    return f"{what} moves {', then '.join(_DIRECTIONS[wave][sign < 0] for wave, sign in events)}"


def data_set(suite: str) -> str:
    """Returns the name of the data set that holds a suite's frozen test split: planted-SUITE-DIGEST."""
    errors.check_choice("suite", suite, SUITES)
    return f"planted-{suite}-{DIGESTS[suite]}"


def folder(suite: str) -> pathlib.Path:
    """Returns where commands look for a suite's clip store, and make it, if none is named."""
    return pathlib.Path("data") / data_set(suite)
