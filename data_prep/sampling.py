"""Which frames of a video make a clip, and how a frame gets its size.

Subsampling covers the whole sequence (section 4.1: "sub-sampled to cover the entire sequence"). The paper gives no
formula; `linspace` is the plain reading of it, `released` is what the released KTH code does.
"""

from typing import Literal, get_args

import cv2
import numpy as np

from common import errors

Subsampling = Literal["linspace", "released"]
Resize = Literal["stretch", "center_crop"]
SUBSAMPLINGS: tuple[str, ...] = get_args(Subsampling)
RESIZES: tuple[str, ...] = get_args(Resize)


def subsample(num_source: int, num_frames: int, rule: str = "linspace") -> np.ndarray:
    """Returns which source frames make a clip (D1).

    `linspace`: round_half_up(i (n - 1) / (T - 1)), so the first and the last frame are in (T = 1 takes the first).
    `released`: min(ceil(i n / T), n - 1), so the last frame is in only where the source is short.
    Both repeat frames where n < T.

    Args:
      num_source: n, frames that the source has, at least 1.
      num_frames: T, frames of the clip, at least 1.
      rule: "linspace" or "released".

    Returns:
      int32 [T], rising, in [0, n).
    """
    if num_source < 1 or num_frames < 1:
        raise ValueError(f"n and T must be at least 1. Received: n={num_source}, T={num_frames}")
    errors.check_choice("subsampling", rule, SUBSAMPLINGS)
    i = np.arange(num_frames, dtype=np.int64)
    if rule == "linspace":
        steps = max(num_frames - 1, 1)
        # Whole numbers throughout: floor(x + 1/2) with x = i (n - 1) / steps.
        indices = (2 * i * (num_source - 1) + steps) // (2 * steps)
    else:
        indices = np.minimum(-(-i * num_source // num_frames), num_source - 1)
    return indices.astype(np.int32)


def resize(frame: np.ndarray, height: int, width: int, rule: str = "stretch") -> np.ndarray:
    """Returns a frame in another size.

    Each axis is averaged over areas where it shrinks and interpolated linearly where it grows (OpenCV INTER_AREA and
    INTER_LINEAR); where one shrinks and the other grows, the shrinking one goes first.

    Args:
      frame: uint8 [h, w, 3].
      height: H of the result, px.
      width: W of the result, px.
      rule: "stretch" gives up the aspect ratio; "center_crop" scales both axes alike until the frame just covers
        HxW, then cuts the middle out (with a square result: the shorter side first).

    Returns:
      uint8 [H, W, 3].
    """
    errors.check_choice("resize", rule, RESIZES)
    if rule == "stretch":
        return _scale(frame, height, width)
    scale = max(height / frame.shape[0], width / frame.shape[1])
    covering = _scale(frame, *(max(n, round(m * scale)) for n, m in zip((height, width), frame.shape, strict=False)))
    top, left = (covering.shape[0] - height) // 2, (covering.shape[1] - width) // 2
    return np.ascontiguousarray(covering[top : top + height, left : left + width])


def _scale(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    shrunk = min(height, frame.shape[0]), min(width, frame.shape[1])
    if shrunk != frame.shape[:2]:
        # The same means as of uint8 (but for ties in rounding), in five sixths of the time.
        means = cv2.resize(frame.astype(np.float32), shrunk[::-1], interpolation=cv2.INTER_AREA)
        frame = cv2.convertScaleAbs(means)
    if (height, width) != shrunk:
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return frame
