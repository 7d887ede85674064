"""Random changes to the clips of a training: crop, mirror image, jitter in time. The paper has none, nor the default.

What happens to a clip is a function of the seed, the epoch and the clip's place in its store. It depends neither on the
batch nor on the thread or process that reads the clip, so both frameworks see the same, and so does a resumed run.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

from common import errors
from common.clips import classes

# Set apart from the streams of random numbers that (seed, epoch) and (seed, step) begin.
_STREAM = 0x61756720


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may be done to a clip; the default is nothing.

    Attributes:
      crop: least side of the window that is cut out, as a part of the frame's, in (0, 1]. The part is drawn evenly
        between it and 1, the window's place evenly; all frames have the same window, which is enlarged to the size of
        the frame (OpenCV `INTER_LINEAR`).
      mirror: for each class the class of its mirror image (see `mirrored_classes`), or empty: half of the clips become
        their mirror image, left for right, and their labels that of `mirror`.
      time_jitter: frames, at least 0, by which each frame's time may be off, drawn evenly. The times stay in order and
        in the clip, so frames are repeated and left out. Between the frames of the store there are none to take.
    """

    crop: float = 1.0
    mirror: tuple[int, ...] = ()
    time_jitter: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1 or self.time_jitter < 0:
            raise errors.UserError(
                "crop must be in (0, 1] and time_jitter not negative. "
                f"Received: crop={self.crop}, time_jitter={self.time_jitter}"
            )
        known = range(len(self.mirror))
        if any(there not in known or self.mirror[there] != here for here, there in enumerate(self.mirror)):
            raise errors.UserError(
                "mirror must name, for each class, the class whose mirror image it is, and that one this. "
                f"Received: {self.mirror}"
            )


def augmenter(augmentation: Augmentation, seed: int, epoch: int) -> Callable[[int, np.ndarray, int], int] | None:
    """Returns a function that changes a clip in place, or None where nothing is to be done.

    Args:
      augmentation: what may be done.
      seed: of the training.
      epoch: from 0.

    Returns:
      (place of the clip in its store, frames uint8 [T, H, W, 3], label) -> label. Safe in several threads at once.
    """
    if augmentation == Augmentation():
        return None

    def change(index: int, frames: np.ndarray, label: int) -> int:
        stream = np.random.default_rng((_STREAM, seed, epoch, index))
        # Everything is drawn in every case, so that one kind of change does not alter what another one does; jitter
        # last, for how many numbers that takes depends on its size.
        part, top, left = stream.uniform(augmentation.crop, 1), stream.random(), stream.random()
        mirrored = stream.random() < 0.5
        jitter = stream.integers(-augmentation.time_jitter, augmentation.time_jitter, len(frames), endpoint=True)
        if augmentation.time_jitter:
            frames[:] = frames[_jittered(jitter)]
        if augmentation.crop < 1:
            _crop(frames, part, top, left)
        if augmentation.mirror and mirrored:
            frames[:] = frames[:, :, ::-1].copy()
            return augmentation.mirror[label]
        return label

    return change


def _jittered(jitter: np.ndarray) -> np.ndarray:
    """Returns the times of the frames to take, in order, of times that are off by `jitter` frames."""
    return np.sort(np.clip(np.arange(len(jitter)) + jitter, 0, len(jitter) - 1))


def _crop(frames: np.ndarray, part: float, top: float, left: float) -> None:
    """Enlarges a window of all frames in place.

    Args:
      frames: uint8 [T, H, W, 3].
      part: of the window's sides in the frame's.
      top: of the room above and below the window, the part above it, in [0, 1).
      left: as `top`.
    """
    _, height, width, _ = frames.shape
    rows, columns = (max(1, round(part * size)) for size in (height, width))
    first_row, first_column = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    windows = frames[:, first_row : first_row + rows, first_column : first_column + columns].copy()
    for window, frame in zip(windows, frames, strict=True):
        frame[:] = cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)


def mirrored_classes(class_names: tuple[str, ...], table: str) -> tuple[int, ...]:
    """Returns for each class the class of its mirror image.

    Args:
      class_names: in label order.
      table: "none" (each class is its own mirror image), "something_something_v2" (the table that comes with the
        project; of some of its classes, the pairs that are among them), or a text file with the names of two classes
        that swap on each line, separated by a tab.

    Raises:
      errors.UserError: for a table that cannot be read, a name that is no class, and a class that stands twice.
    """
    mirror = list(range(len(class_names)))
    if table == "none":
        return tuple(mirror)
    path = pathlib.Path(table)
    if table == "something_something_v2":
        path = classes.SOMETHING_SOMETHING_V2_MIRRORED
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise errors.UserError(
            "--flip must be none, something_something_v2, or a text file of pairs of classes. "
            f"Received: {table}: {error}"
        ) from None
    place = {name: number for number, name in enumerate(class_names)}
    if table == "something_something_v2":
        among = [line for line in lines if any(name in place for name in line.split("\t"))]
        lines = among or lines  # Of a data set without any of them, no table is the right one.
    for line in lines:
        pair = line.split("\t")
        if len(pair) != 2 or not all(name in place for name in pair):
            raise errors.UserError(
                "A line of the table of --flip must be the names of two classes of the clips, with a tab between. "
                f"Received: {line!r} in {path}"
            )
        first, second = (place[name] for name in pair)
        if first == second or (mirror[first], mirror[second]) != (first, second):
            raise errors.UserError(f"A class must swap with one other class. Received: {line!r} in {path}")
        mirror[first], mirror[second] = second, first
    return tuple(mirror)
