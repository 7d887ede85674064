"""The figures of the paper (Figures 2 and 3): original, Grad-CAM and perturbed frames of a clip above its mask.

Two things differ from the paper's figures, so that they read without colour vision and in grey: cells of the mask bar
that are on are dark and carry a white dot, cells that are off are light; and heat has a colour map of steadily rising
lightness in place of a rainbow. The bar is as wide as all three panels. Frames are numbered from 0, as in the
explanations file.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from common import errors
from common.reporting import drawing, sheet
from common.reporting.names import FRAMEWORK_NAMES, MODEL_NAMES
from common.reporting.sheet import Box, Disc, Picture, Sheet, Text

_PANEL_WIDTH = 160  # px, at least
_GAP = 6  # px between the panels of a triptych, and around them
_MIN_CELL = 4  # px of a frame in the bar
_PAGE_INCHES = 7  # which a still fills on paper
_TEXT_INCHES = 8 / 72  # Letters of 8 points.


@dataclasses.dataclass(frozen=True)
class ClipFigure:
    """What is drawn of one clip and one model.

    Attributes:
      frames: uint8 [T, H, W, 3], RGB, the original.
      heat: float [T, H, W] in 0…1, Grad-CAM at the size of the frames.
      perturbed: uint8 [T, H, W, 3], the frames under the mask, soft or snapped.
      mask: uint8 [T] of 0 and 1, the snapped mask, 1 means perturbed.
      title: first lines, e.g. what `title` returns; a line break starts a new line.
      caption: scores, e.g. what `caption` returns.
      kind: the perturbation's name, for the third panel's label.
      marks: name and cells, uint8 [T] of 0 and 1, of rows that a still has under the mask, and first the mask's own
        name; empty where the mask stands alone.
      has_map: whether there is a Grad-CAM map; without, its panel is left out.
    """

    frames: np.ndarray
    heat: np.ndarray
    perturbed: np.ndarray
    mask: np.ndarray
    title: str
    caption: str
    kind: str = "freeze"
    marks: tuple[tuple[str, np.ndarray], ...] = ()
    has_map: bool = True

    def __post_init__(self) -> None:
        drawing.check_heat(self.frames, self.heat)
        if self.perturbed.shape != self.frames.shape or self.perturbed.dtype != np.uint8:
            raise errors.UserError(
                f"perturbed must be uint8 {list(self.frames.shape)} as the frames are. "
                f"Received: {self.perturbed.dtype} {list(self.perturbed.shape)}"
            )
        for mask in (self.mask, *(cells for _, cells in self.marks)):
            _check_mask(mask)
            if len(mask) != len(self.frames):
                raise errors.UserError(
                    f"mask must have {len(self.frames)} values, one per frame. Received: {len(mask)}"
                )


def title(class_name: str, model: str, framework: str) -> str:
    """Returns a figure's title: the class, and under it the model and framework in words.

    Args:
      class_name: of the clip's true class.
      model: "i3d" or "conv_lstm"; any other name is printed as it is.
      framework: "torch" or "tf"; any other name is printed as it is.
    """
    return f"{class_name}\n{MODEL_NAMES.get(model, model)} ({FRAMEWORK_NAMES.get(framework, framework)})"


def caption(row: Mapping[str, Any]) -> str:
    """Returns the scores as the paper prints them: "OS: 0.994 FS: 0.083 RS: 0.856".

    Args:
      row: a clip's "OS", "FS" and "RS"; where its guess is wrong also "CS", the true class's score, and "prediction",
        the guessed class's name, printed where the paper has P and its number. A missing "CS" and NaN mean that the
        guess is not known to be wrong.
    """
    text = " ".join(f"{name}: {row[name]:.3f}" for name in ("OS", "FS", "RS"))
    if math.isnan(row.get("CS", math.nan)):
        return text
    return f"{text} CS: {row['CS']:.3f}, guess: {row['prediction']}"


def mask_bar(mask: np.ndarray, current: int | None, width: int, height: int) -> np.ndarray:
    """Returns a mask as a row of cells, uint8 [height, width, 3]: red with a white dot is on, plain green is off.

    Args:
      mask: uint8 [T] of 0 and 1.
      current: frame whose cell is highlighted: framed in black and higher than the others. None highlights none.
      width: px, at least 4 a frame.
      height: px, at least 8.
    """
    return _bar(mask, () if current is None else (current,), width, height)


def triptych(clip: ClipFigure) -> np.ndarray:
    """Returns Figure 2's frames for one model, uint8 [T, h, w, 3]: original, Grad-CAM, perturbed, and the mask below.

    Clips narrower than 160 px are enlarged by a whole number, pixel by pixel. Above the panels stand title and scores.

    Args:
      clip: what is drawn.
    """
    return drawing.with_margin(drawing.join(_header_and_body(clip), drawing.DOWN, _GAP), _GAP)


def pair(left: ClipFigure, right: ClipFigure) -> np.ndarray:
    """Returns two models' triptychs side by side, uint8 [T, h, w, 3], as in Figure 2 (I3D left, C-LSTM right).

    Args:
      left: what one model did to a clip.
      right: what the other did to the same clip.

    Raises:
      errors.UserError: where one has more frames than the other.
    """
    if len(left.frames) != len(right.frames):
        raise errors.UserError(
            f"Both clips of a pair must have the same number of frames. "
            f"Received: {len(left.frames)} and {len(right.frames)}"
        )
    # Headers first and bodies under them, so that the panels of both stand in one line.
    sides = [_header_and_body(clip) for clip in (left, right)]
    rows = [drawing.join(row, drawing.ACROSS, 4 * _GAP) for row in zip(*sides, strict=True)]
    return drawing.with_margin(drawing.join(rows, drawing.DOWN, _GAP), _GAP)


def still_strip(clip: ClipFigure, frames_shown: int = 8, dpi: int = 300) -> np.ndarray:
    """Returns `still_sheet` as pixels, uint8 [h, w, 3]."""
    return sheet.paint(still_sheet(clip, frames_shown, dpi))


def still_sheet(clip: ClipFigure, frames_shown: int = 8, dpi: int = 300) -> Sheet:
    """Returns a clip as one figure for print: rows original, Grad-CAM, perturbed; the mask below.

    Args:
      clip: what is drawn.
      frames_shown: columns, at least 2: frames spread evenly over the clip, first and last included; all frames where
        there are fewer. The mask has a cell for each frame of the clip; those of the frames shown are highlighted and
        numbered.
      dpi: pixels per inch, at least, on a page of 7 inches, where text is 8 points high. Frames are enlarged by a whole
        number, pixel by pixel.
    """
    if frames_shown < 2 or dpi < 50:
        raise errors.UserError(f"frames_shown must be at least 2, dpi at least 50. Received: {frames_shown}, {dpi}")
    time, height, frame_width = clip.frames.shape[:3]
    chosen = np.unique(np.rint(np.linspace(0, time - 1, min(frames_shown, time))).astype(int))
    least_width = max(dpi * _PAGE_INCHES, _MIN_CELL * time)
    factor = math.ceil(least_width / (len(chosen) * frame_width))
    gap = max(2, factor * frame_width // 50)
    width = len(chosen) * (factor * frame_width + gap) - gap
    size = round(width * _TEXT_INCHES / _PAGE_INCHES)
    line = drawing.line_height(size)
    left, y = 2 * gap + line + gap, 2 * gap  # Left of the rows stand their names.
    items: list[sheet.Item] = []
    for text, color in _header_lines(clip, line + gap + width, size):
        items.append(Text(2 * gap, y, line + gap + width, size, text, color))
        y += line
    for name, frames in zip(_labels(clip), _panels(clip), strict=True):
        y += gap
        items.append(Text(2 * gap, y, factor * height, size, name, drawing.INK, "middle", upright=True))
        for column, frame in enumerate(frames[chosen]):
            items.append(Picture(left + column * (factor * frame_width + gap), y, frame, factor))
        y += factor * height
    y += gap
    for name, cells in clip.marks or (("", clip.mask),):
        if name:
            items.append(Text(left, y, width, size, name, drawing.GRAY))
            y += line
        items += bar_items(cells, chosen, left, y, width, 2 * size)
        y += 2 * size
    items += _number_items(chosen, time, left, y, width, size)
    y += line
    items += _legend_items(left, y, size)
    return Sheet(left + width + 2 * gap, y + line + 1 + 2 * gap, _PAGE_INCHES, items)


def _header_and_body(clip: ClipFigure) -> tuple[np.ndarray, np.ndarray]:
    """Returns a triptych's text, uint8 [h, w, 3], and what is below it, uint8 [T, h, w, 3]."""
    factor = math.ceil(max(_PANEL_WIDTH, _MIN_CELL * len(clip.mask) / 3) / clip.frames.shape[2])
    panels = [drawing.enlarge(frames, factor) for frames in _panels(clip)]
    row = drawing.join(panels, drawing.ACROSS, _GAP)
    width = row.shape[2]
    size = max(13, width // 42)
    labels = drawing.join(
        [drawing.text(text, panels[0].shape[2], size, drawing.GRAY) for text in _labels(clip)], drawing.ACROSS, _GAP
    )
    bars = np.stack([mask_bar(clip.mask, t, width, round(1.5 * size)) for t in range(len(row))])
    body = drawing.join([drawing.join([labels, row], drawing.DOWN), bars, _legend(width, size)], drawing.DOWN, _GAP)
    return _header(clip, width, size), body


def _panels(clip: ClipFigure) -> list[np.ndarray]:
    return [clip.frames, *([drawing.overlay(clip.frames, clip.heat)] if clip.has_map else []), clip.perturbed]


def _labels(clip: ClipFigure) -> list[str]:
    return ["Original", *(["Grad-CAM"] if clip.has_map else []), f"{clip.kind.capitalize()} mask"]


def _bar(mask: np.ndarray, highlighted: Collection[int] | np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns `mask_bar` with any number of cells highlighted."""
    return sheet.paint(Sheet(width, height, 0, bar_items(mask, highlighted, 0, 0, width, height)))


def bar_items(
    mask: np.ndarray, highlighted: Collection[int] | np.ndarray, x: int, y: int, width: int, height: int
) -> list[sheet.Item]:
    """Returns the cells of `mask_bar`, any number of them highlighted, with the bar's corner at x, y.

    Args:
      mask: uint8 [T] of 0 and 1.
      highlighted: frames whose cells are framed in black and higher than the others.
      x: px.
      y: px.
      width: px, at least 4 a frame.
      height: px, at least 8.
    """
    _check_mask(mask)
    time = len(mask)
    if width < _MIN_CELL * time or height < 8:
        raise errors.UserError(
            f"A bar of {time} frames is at least {_MIN_CELL * time} x 8 px. Received: {width} x {height}"
        )
    if not all(0 <= t < time for t in highlighted):
        raise errors.UserError(f"Highlighted frames must be in 0…{time - 1}. Received: {list(highlighted)}")
    edges = np.rint(np.linspace(0, width, time + 1)).astype(int).tolist()
    inset = height // 5
    shorter = min(width // time, height - 2 * inset)
    border = max(1, shorter // 6)
    gap = max(1, border // 4)
    items: list[sheet.Item] = []
    for t, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        color = drawing.ON_COLOR if mask[t] else drawing.OFF_COLOR
        aside, above = gap, inset
        if t in highlighted:
            items.append(Box(x + left, y, right - left, height, drawing.INK))
            aside, above = border, border
        items.append(Box(x + left + aside, y + above, right - left - 2 * aside, height - 2 * above, color))
        if mask[t]:
            center = (x + (left + right - 1) / 2, y + (height - 1) / 2)
            items.append(Disc(*center, shorter / 4, drawing.PAPER))
    return items


def _header(clip: ClipFigure, width: int, size: int) -> np.ndarray:
    """Returns title and scores, uint8 [h, width, 3]."""
    return drawing.join(
        [drawing.text(text, width, size, color) for text, color in _header_lines(clip, width, size)], drawing.DOWN
    )


def _header_lines(clip: ClipFigure, width: int, size: int) -> list[tuple[str, sheet.Color]]:
    """Returns the lines of title and scores, and their colours."""
    lines = [(line, drawing.INK) for line in clip.title.splitlines()] + [(clip.caption, drawing.GRAY)]
    return [(part, color) for line, color in lines for part in drawing.wrap(line, width, size)]


def _legend(width: int, size: int) -> np.ndarray:
    """Returns one line that explains the bar, uint8 [h, width, 3]."""
    return sheet.paint(Sheet(width, drawing.line_height(size) + 1, 0, _legend_items(0, 0, size)))


def _legend_items(x: int, y: int, size: int) -> list[sheet.Item]:
    items: list[sheet.Item] = []
    for value, text in ((1, "mask on"), (0, "mask off")):
        items += bar_items(np.array([value], np.uint8), (), x, y, size, drawing.line_height(size))
        x += size + size // 3
        length = math.ceil(drawing.font(size).getlength(text)) + size
        items.append(Text(x, y, length, size, text, drawing.GRAY))
        x += length + size // 3
    return items


def _number_items(chosen: np.ndarray, time: int, x: int, y: int, width: int, size: int) -> list[sheet.Item]:
    """Returns the numbers of frames under their cells; as few as it takes not to touch."""
    font = drawing.font(size)
    step = math.ceil(font.getlength(f"{time}  ") * len(chosen) / width)
    items: list[sheet.Item] = []
    for t in chosen[::step].tolist():
        length = math.ceil(font.getlength(str(t)))
        place = round((t + 0.5) * width / time - length / 2)
        items.append(Text(x + min(max(0, place), width - length), y, length, size, str(t), drawing.INK, "middle"))
    return items


def _check_mask(mask: np.ndarray) -> None:
    if mask.ndim != 1 or not mask.size or not np.isin(mask, (0, 1)).all():
        raise errors.UserError(f"mask must be [T] of 0 and 1. Received: {np.asarray(mask).tolist()}")
