"""What comes of reading a source of clips, whoever reads it (`videos`, `images`)."""

import dataclasses
import math
from collections.abc import Callable, Collection

import numpy as np

Choose = Callable[[int], Collection[int]]
Transform = Callable[[np.ndarray], np.ndarray]


class UnreadableVideoError(Exception):
    """Not one frame can be had from a file or folder; the message is the reason, on one line."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()))


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
