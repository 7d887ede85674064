"""What comes of reading a source of clips, whoever reads it (`videos`, `images`)."""

import dataclasses
import math
from collections.abc import Callable, Collection

import numpy as np

Choose = Callable[[int], Collection[int]]
Transform = Callable[[np.ndarray], np.ndarray]

# More than a frame of 8K video has (33 million). A PNG of 18 kB can declare 12000x12000 px: half a gigabyte.
MAX_PIXELS = 8192 * 8192


class UnreadableVideoError(Exception):
    """No frame can be read from a file or folder, because of its content; the message is the reason, on one line."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()))


class ReadingStoppedError(Exception):
    """Reading failed for a reason other than the file's content, so that it should be tried again later."""


def check_pixels(height: int, width: int) -> None:
    """Refuses a frame of more than `MAX_PIXELS` before it is decoded.

    Raises:
      UnreadableVideoError: for such a frame.
    """
    if height * width > MAX_PIXELS:
        raise UnreadableVideoError(
            f"too large a frame: it must have at most {MAX_PIXELS} px. Received: {width}x{height} px"
        )


@dataclasses.dataclass
class Decoded:
    """What was read from one source.

    Attributes:
      num_frames: frames that decode.
      fps: declared average rate, frames per second; measured from the time stamps where none is declared; NaN where
        there are no time stamps either, as in a folder of frames.
      frames: index -> what `transform` made of that frame; holds at least the chosen ones.
      times: index -> presentation time in seconds; NaN where the source has no time stamps.
      note: what a user should know about this source, or "".
    """

    num_frames: int = 0
    fps: float = math.nan
    frames: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    times: dict[int, float] = dataclasses.field(default_factory=dict)
    note: str = ""
