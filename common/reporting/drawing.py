"""Pieces that figures are made of: heat over frames, lines of text, pictures joined on white.

Pictures are uint8 [..., h, w, 3], RGB; those with leading axes are films.
"""

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from common import errors
from common.reporting import fonts

ON_COLOR = (178, 24, 43)  # Dark red: mask on, the frame is perturbed.
OFF_COLOR = (166, 219, 160)  # Light green.
INK, GRAY, PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
DOWN, ACROSS = -3, -2  # Axes of pictures [..., h, w, 3].

_COLORMAP = cv2.COLORMAP_VIRIDIS  # Of the perceptually ordered ones that which differs most from skin.
_MAX_WEIGHT = 0.7  # Of the colour where it is hot, so that the object shows through.
_WEIGHT_SLOPE = 1.5  # The weight reaches its maximum at a heat of 2 / 3.


def text(text: str, width: int, size: int, color: tuple[int, int, int], centered: bool = False) -> np.ndarray:
    """Returns a line of text, uint8 [h, width, 3], in smaller letters where it would be cut."""
    text, file = fonts.fitting(text)
    image = Image.new("RGB", (width, line_height(size)), PAPER)
    length = font(size, file).getlength(text)
    fitting = font(max(1, size * min(1, width / max(1, length))), file)
    x, anchor = (width / 2, "ma") if centered else (0, "la")
    ImageDraw.Draw(image).text((x, 0), text, color, fitting, anchor=anchor)
    return np.asarray(image)


def wrap(text: str, width: int, size: int) -> list[str]:
    """Returns text as lines no wider than `width` px; a single word may be wider."""
    lines: list[str] = []
    text, file = fonts.fitting(text)
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size, file).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


@functools.lru_cache
def font(size: float, file: pathlib.Path | None = None) -> Any:
    """Returns the font of a file, by default that which comes with Pillow, in letters of `size` px."""
    return fonts.load(file, size)


def line_height(size: int) -> int:
    """Returns the px from line to line of text in letters of `size` px."""
    return math.ceil(1.4 * size)


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """Returns each pixel of frames [T, H, W, 3] `factor` times along height and width."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def join(parts: Sequence[np.ndarray], axis: int, gap: int = 0) -> np.ndarray:
    """Joins pictures or films, uint8 [..., h, w, 3], on white, smaller ones at the top left of their place.

    Args:
      parts: a picture among films stands still.
      axis: `DOWN` or `ACROSS`.
      gap: px between parts.
    """
    other = ACROSS if axis == DOWN else DOWN
    extent = max(part.shape[other] for part in parts)
    leading = np.broadcast_shapes(*(part.shape[:-3] for part in parts))
    placed = []
    for index, part in enumerate(parts):
        padding = [(0, 0)] * part.ndim
        padding[other] = (0, extent - part.shape[other])
        padding[axis] = (gap if index else 0, 0)
        part = np.pad(part, padding, constant_values=255)
        placed.append(np.broadcast_to(part, (*leading, *part.shape[-3:])))
    return np.concatenate(placed, axis=axis)


def with_margin(picture: np.ndarray, margin: int) -> np.ndarray:
    """Returns a picture or film, uint8 [..., h, w, 3], with a white margin."""
    padding = [(0, 0)] * (picture.ndim - 3) + [(margin, margin), (margin, margin), (0, 0)]
    return np.pad(picture, padding, constant_values=255)


def heat_color(levels: np.ndarray) -> np.ndarray:
    """Returns the colours of heat, uint8 [h, w, 3], at levels uint8 [h, w], 0 none to 255 most."""
    return cv2.applyColorMap(levels, _COLORMAP)[..., ::-1]


def heat_weight(heat: np.ndarray) -> np.ndarray:
    """Returns how much of a pixel is the colour of its heat, 0…0.7; heat is float, 0…1."""
    return _MAX_WEIGHT * np.minimum(1, _WEIGHT_SLOPE * heat)


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns frames with heat drawn over them, uint8 [T, H, W, 3]; the hotter, the less of the frame is seen.

    The colour's weight is 0.7 · min(1, 1.5 · heat): where heat is 0 a pixel is the original's, exactly.

    Args:
      frames: uint8 [T, H, W, 3], RGB.
      heat: float [T, H, W] in 0…1.

    Raises:
      errors.UserError: for other shapes or values, NaN too.
    """
    check_heat(frames, heat)
    levels = np.rint(heat * 255).astype(np.uint8).reshape(len(heat), -1)
    colors = heat_color(levels).reshape(frames.shape)
    weights = heat_weight(heat)[..., None]
    return np.rint(frames + weights * (colors - frames.astype(np.float32))).astype(np.uint8)


def check_frames(frames: np.ndarray) -> None:
    """Refuses what is not a film, uint8 [T, H, W, 3]."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise errors.UserError(f"Frames must be uint8 [T, H, W, 3]. Received: {frames.dtype} {list(frames.shape)}")


def check_heat(frames: np.ndarray, heat: np.ndarray) -> None:
    """Refuses heat that is not float [T, H, W] in 0…1 for frames [T, H, W, 3]."""
    check_frames(frames)
    if heat.shape != frames.shape[:3] or heat.dtype.kind != "f":
        raise errors.UserError(
            f"heat must be float {list(frames.shape[:3])}. Received: {heat.dtype} {list(heat.shape)}"
        )
    if not np.all((heat >= 0) & (heat <= 1)):  # Not so for NaN either.
        raise errors.UserError(f"heat must be in 0…1. Received: {heat.min()}…{heat.max()}")
