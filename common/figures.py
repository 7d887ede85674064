"""The figures of the paper (Figures 2 and 3): original, Grad-CAM and perturbed frames of a clip above its mask.

Arrays in, arrays out; only the three writers touch the disk. Two things differ from the paper's figures, so that they
read without colour vision and in grey: cells of the mask bar that are on are dark and carry a white dot, cells that are
off are light; and heat has a colour map of steadily rising lightness in place of a rainbow. The bar is as wide as all
three panels. Frames are numbered from 0, as in the explanations file.
"""

import contextlib
import dataclasses
import functools
import io
import math
import os
import pathlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common import errors
from common.names import FRAMEWORK_NAMES, MODEL_NAMES

ON_COLOR = (178, 24, 43)  # Dark red: mask on, the frame is perturbed.
OFF_COLOR = (166, 219, 160)  # Light green.
GIF_BYTES = 2_500_000

_INK, _GRAY, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
COLORMAP = cv2.COLORMAP_VIRIDIS  # Of the perceptually ordered ones that which differs most from skin.
_MAX_WEIGHT = 0.7  # Of the colour where it is hot, so that the object shows through.
_WEIGHT_SLOPE = 1.5  # The weight reaches its maximum at a heat of 2 / 3.
_DOWN, _ACROSS = -3, -2  # Axes of pictures [..., h, w, 3].
_PANEL_WIDTH = 160  # px, at least
_GAP = 6  # px between the panels of a triptych, and around them
_MIN_CELL = 4  # px of a frame in the bar
_PAGE_INCHES = 7  # which a still fills on paper
_TEXT_INCHES = 8 / 72  # Letters of 8 points.
# One less than a power of two: the last place is for transparent, which stands for what did not change.
_GIF_COLORS = (255, 127)
_BT709, _NARROW_RANGE = 1, 1  # FFmpeg's numbers. Declared, because players guess where a file does not say.


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
    """

    frames: np.ndarray
    heat: np.ndarray
    perturbed: np.ndarray
    mask: np.ndarray
    title: str
    caption: str
    kind: str = "freeze"

    def __post_init__(self) -> None:
        _check_heat(self.frames, self.heat)
        if self.perturbed.shape != self.frames.shape or self.perturbed.dtype != np.uint8:
            raise errors.UserError(
                f"perturbed must be uint8 {list(self.frames.shape)} as the frames are. "
                f"Received: {self.perturbed.dtype} {list(self.perturbed.shape)}"
            )
        _check_mask(self.mask)
        if len(self.mask) != len(self.frames):
            raise errors.UserError(f"mask must have {len(self.frames)} values, one a frame. Received: {len(self.mask)}")


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
        the guessed class's number, printed as P. A missing "CS" and NaN mean that the guess is not known to be wrong.
    """
    text = " ".join(f"{name}: {row[name]:.3f}" for name in ("OS", "FS", "RS"))
    if math.isnan(row.get("CS", math.nan)):
        return text
    return f"{text} CS: {row['CS']:.3f} P: {int(row['prediction'])}"


def overlay(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns frames with heat drawn over them, uint8 [T, H, W, 3]; the hotter, the less of the frame is seen.

    The colour's weight is 0.7 · min(1, 1.5 · heat): where heat is 0 a pixel is the original's, exactly.

    Args:
      frames: uint8 [T, H, W, 3], RGB.
      heat: float [T, H, W] in 0…1.

    Raises:
      errors.UserError: for other shapes or values, NaN too.
    """
    _check_heat(frames, heat)
    levels = np.rint(heat * 255).astype(np.uint8).reshape(len(heat), -1)
    colors = cv2.applyColorMap(levels, COLORMAP)[..., ::-1].reshape(frames.shape)
    weights = (_MAX_WEIGHT * np.minimum(1, _WEIGHT_SLOPE * heat))[..., None]
    return np.rint(frames + weights * (colors - frames.astype(np.float32))).astype(np.uint8)


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
    return _with_margin(_join(_header_and_body(clip), _DOWN, _GAP), _GAP)


def pair(left: ClipFigure, right: ClipFigure) -> np.ndarray:
    """Returns two models' triptychs side by side, uint8 [T, h, w, 3], as in Figure 2 (I3D left, C-LSTM right).

    Args:
      left: what one model did to a clip.
      right: what the other did to the same clip.

    Raises:
      errors.UserError: where one has more frames than the other.
    """
    if len(left.frames) != len(right.frames):
        raise errors.UserError(f"A pair has one number of frames. Received: {len(left.frames)} and {len(right.frames)}")
    # Headers first and bodies under them, so that the panels of both stand in one line.
    sides = [_header_and_body(clip) for clip in (left, right)]
    rows = [_join(row, _ACROSS, 4 * _GAP) for row in zip(*sides, strict=True)]
    return _with_margin(_join(rows, _DOWN, _GAP), _GAP)


def still_strip(clip: ClipFigure, frames_shown: int = 8, dpi: int = 300) -> np.ndarray:
    """Returns a clip as one picture for print, uint8 [h, w, 3]: rows original, Grad-CAM, perturbed; the mask below.

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
    time = len(clip.frames)
    chosen = np.unique(np.rint(np.linspace(0, time - 1, min(frames_shown, time))).astype(int))
    least_width = max(dpi * _PAGE_INCHES, _MIN_CELL * time)
    factor = math.ceil(least_width / (len(chosen) * clip.frames.shape[2]))
    gap = max(2, factor * clip.frames.shape[2] // 50)
    rows = [_join(list(_enlarge(frames[chosen], factor)), _ACROSS, gap) for frames in _panels(clip)]
    width = rows[0].shape[1]
    size = round(width * _TEXT_INCHES / _PAGE_INCHES)
    labels = [np.rot90(_text(text, len(rows[0]), size, _INK, centered=True)) for text in _labels(clip)]
    bar = _bar(clip.mask, chosen, width, 2 * size)
    foot = _join([bar, _numbers(chosen, time, width, size), _legend(width, size)], _DOWN)
    blank = np.full((len(foot), labels[0].shape[1], 3), 255, np.uint8)
    grid = [_join(row, _ACROSS, gap) for row in zip([*labels, blank], [*rows, foot], strict=True)]
    return _with_margin(_join([_header(clip, grid[0].shape[1], size), *grid], _DOWN, gap), 2 * gap)


def write_gif(path: pathlib.Path, frames: np.ndarray, frames_per_second: float, max_bytes: int = GIF_BYTES) -> None:
    """Writes a GIF that loops for ever, whole or not at all.

    All frames share one palette without dithering, so that nothing flickers. It has 255 colours; where the file would
    be larger than `max_bytes`, 127; where that is still too large, the frames are made smaller, too. GIF counts time
    in 1/100 s. A frame that equals the one before is stored as a longer showing of that one.

    Args:
      path: of the file; replaced if it exists.
      frames: uint8 [T, h, w, 3].
      frames_per_second: 0.1…50, where browsers stop following.
      max_bytes: size of the file, at most.

    Raises:
      errors.UserError: for other frames or rates, and where a GIF 64 px wide would still be too large.
    """
    _check_film(frames, frames_per_second)
    milliseconds = round(100 / frames_per_second) * 10
    for colors in _GIF_COLORS:
        data = _gif(frames, milliseconds, colors)
        if len(data) <= max_bytes:
            break
    width = frames.shape[2]
    while len(data) > max_bytes:
        # Bytes grow with the area, and a little more is taken off because smaller pictures have less that repeats.
        width = int(width * 0.95 * math.sqrt(max_bytes / len(data)))
        if width < 64:
            raise errors.UserError(f"A GIF of {len(frames)} frames needs more than {max_bytes} bytes at 64 px width")
        size = (width, max(1, round(frames.shape[1] * width / frames.shape[2])))
        smaller = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        data = _gif(smaller, milliseconds, _GIF_COLORS[-1])
    with _written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_mp4(path: pathlib.Path, frames: np.ndarray, frames_per_second: float) -> None:
    """Writes an MP4 that browsers play (H.264, yuv420p, index first), whole or not at all.

    An odd height or width gets one white row or column more, because H.264 halves the resolution of colour.

    Args:
      path: of the file; replaced if it exists.
      frames: uint8 [T, h, w, 3].
      frames_per_second: 0.1…50.
    """
    _check_film(frames, frames_per_second)
    even = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, even, constant_values=255)
    rate = Fraction(frames_per_second).limit_denominator(1000)
    container: Any
    with (
        _written_whole(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1  # With more, the bytes would depend on the machine.
        context.time_base = 1 / rate
        context.colorspace, context.color_range = _BT709, _NARROW_RANGE
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_NARROW_RANGE)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_png(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes an image, uint8 [h, w, 3], as PNG, whole or not at all."""
    _check_frames(image[None])
    with _written_whole(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG")


def _header_and_body(clip: ClipFigure) -> tuple[np.ndarray, np.ndarray]:
    """Returns a triptych's text, uint8 [h, w, 3], and what is below it, uint8 [T, h, w, 3]."""
    factor = math.ceil(max(_PANEL_WIDTH, _MIN_CELL * len(clip.mask) / 3) / clip.frames.shape[2])
    panels = [_enlarge(frames, factor) for frames in _panels(clip)]
    row = _join(panels, _ACROSS, _GAP)
    width = row.shape[2]
    size = max(13, width // 42)
    labels = _join([_text(text, panels[0].shape[2], size, _GRAY) for text in _labels(clip)], _ACROSS, _GAP)
    bars = np.stack([mask_bar(clip.mask, t, width, round(1.5 * size)) for t in range(len(row))])
    body = _join([_join([labels, row], _DOWN), bars, _legend(width, size)], _DOWN, _GAP)
    return _header(clip, width, size), body


def _panels(clip: ClipFigure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return clip.frames, overlay(clip.frames, clip.heat), clip.perturbed


def _labels(clip: ClipFigure) -> tuple[str, str, str]:
    return "Original", "Grad-CAM", f"{clip.kind.capitalize()} mask"


def _bar(mask: np.ndarray, highlighted: Collection[int] | np.ndarray, width: int, height: int) -> np.ndarray:
    """Returns `mask_bar` with any number of cells highlighted."""
    _check_mask(mask)
    time = len(mask)
    if width < _MIN_CELL * time or height < 8:
        raise errors.UserError(
            f"A bar of {time} frames is at least {_MIN_CELL * time} x 8 px. Received: {width} x {height}"
        )
    if not all(0 <= t < time for t in highlighted):
        raise errors.UserError(f"Highlighted frames must be in 0…{time - 1}. Received: {list(highlighted)}")
    image = np.full((height, width, 3), 255, np.uint8)
    edges = np.rint(np.linspace(0, width, time + 1)).astype(int)
    inset = height // 5
    shorter = min(width // time, height - 2 * inset)
    border = max(1, shorter // 6)
    gap = max(1, border // 4)
    for t, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        color = ON_COLOR if mask[t] else OFF_COLOR
        if t in highlighted:
            image[:, left:right] = _INK
            image[border:-border, left + border : right - border] = color
        else:
            image[inset:-inset, left + gap : right - gap] = color
        if mask[t]:
            _dot(image, (left + right - 1) / 2, (height - 1) / 2, shorter / 4)
    return image


def _dot(image: np.ndarray, x: float, y: float, radius: float) -> None:
    """Draws a white disc into an image; centre and radius in px."""
    bits = 4  # OpenCV takes parts of a px as integers with this many bits after the point.
    center = (round(x * 2**bits), round(y * 2**bits))
    cv2.circle(image, center, round(max(0.5, radius) * 2**bits), _PAPER, cv2.FILLED, cv2.LINE_AA, bits)


def _header(clip: ClipFigure, width: int, size: int) -> np.ndarray:
    """Returns title and scores, uint8 [h, width, 3]."""
    lines = [(line, _INK) for line in clip.title.splitlines()] + [(clip.caption, _GRAY)]
    return _join([_text(part, width, size, color) for line, color in lines for part in _wrap(line, width, size)], _DOWN)


def _legend(width: int, size: int) -> np.ndarray:
    """Returns one line that explains the bar, uint8 [h, width, 3]."""
    parts = []
    for value, text in ((1, "mask on"), (0, "mask off")):
        cell = mask_bar(np.array([value], np.uint8), None, size, _line_height(size))
        parts += [cell, _text(text, math.ceil(_font(size).getlength(text)) + size, size, _GRAY)]
    return _join([_join(parts, _ACROSS, size // 3), np.full((1, width, 3), 255, np.uint8)], _DOWN)


def _numbers(chosen: np.ndarray, time: int, width: int, size: int) -> np.ndarray:
    """Returns the numbers of frames under their cells, uint8 [h, width, 3]; as few as it takes not to touch."""
    font = _font(size)
    step = math.ceil(font.getlength(f"{time}  ") * len(chosen) / width)
    image = Image.new("RGB", (width, _line_height(size)), _PAPER)
    for t in chosen[::step]:
        half = font.getlength(str(t)) / 2
        x = min(max(half, (t + 0.5) * width / time), width - half)
        ImageDraw.Draw(image).text((x, 0), str(t), _INK, font, anchor="ma")
    return np.asarray(image)


def _text(text: str, width: int, size: int, color: tuple[int, int, int], centered: bool = False) -> np.ndarray:
    """Returns a line of text, uint8 [h, width, 3], in smaller letters where it would be cut."""
    text = _drawable(text)
    image = Image.new("RGB", (width, _line_height(size)), _PAPER)
    length = _font(size).getlength(text)
    font = _font(max(1, size * min(1, width / max(1, length))))
    x, anchor = (width / 2, "ma") if centered else (0, "la")
    ImageDraw.Draw(image).text((x, 0), text, color, font, anchor=anchor)
    return np.asarray(image)


def _wrap(text: str, width: int, size: int) -> list[str]:
    """Returns text as lines no wider than `width` px; a single word may be wider."""
    lines: list[str] = []
    for word in _drawable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _drawable(text: str) -> str:
    """Returns text without the accents, which the font that comes with Pillow does not have."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


@functools.lru_cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size)


def _line_height(size: int) -> int:
    return math.ceil(1.4 * size)


def _enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """Returns each pixel of frames [T, H, W, 3] `factor` times along height and width."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _join(parts: Sequence[np.ndarray], axis: int, gap: int = 0) -> np.ndarray:
    """Joins pictures or films, uint8 [..., h, w, 3], on white, smaller ones at the top left of their place.

    Args:
      parts: a picture among films stands still.
      axis: `_DOWN` or `_ACROSS`.
      gap: px between parts.
    """
    other = _ACROSS if axis == _DOWN else _DOWN
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


def _with_margin(picture: np.ndarray, margin: int) -> np.ndarray:
    """Returns a picture or film, uint8 [..., h, w, 3], with a white margin."""
    padding = [(0, 0)] * (picture.ndim - 3) + [(margin, margin), (margin, margin), (0, 0)]
    return np.pad(picture, padding, constant_values=255)


def _gif(frames: np.ndarray, milliseconds: int, colors: int) -> bytes:
    """Returns a GIF of frames [T, h, w, 3] in `colors` colours, those of the bar and text among them."""
    fixed = (*ON_COLOR, *OFF_COLOR, *_INK, *_PAPER)
    sample = frames[:, ::2, ::2].reshape(-1, 3) & 0xFC  # 6 bits a channel are enough to choose by.
    found, counts = np.unique(sample.astype(np.int32) @ (1 << 16, 1 << 8, 1), return_counts=True)
    # Chosen by plain counts, a small hot spot would take the colours of what is large.
    found = np.repeat(found, np.ceil(counts**0.25).astype(int))
    sample = np.stack([found >> 16, found >> 8 & 0xFF, found & 0xFF], axis=-1)[None].astype(np.uint8)
    chosen = Image.fromarray(sample).quantize(colors - len(fixed) // 3, Image.Quantize.MEDIANCUT)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*fixed, *(chosen.getpalette() or [])])
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True)
    return file.getvalue()


@contextlib.contextmanager
def _written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary name beside `path`; the file there takes its place when all went well."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_frames(frames: np.ndarray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise errors.UserError(f"Frames are uint8 [T, H, W, 3]. Received: {frames.dtype} {list(frames.shape)}")


def _check_film(frames: np.ndarray, frames_per_second: float) -> None:
    _check_frames(frames)
    if not 0.1 <= frames_per_second <= 50:
        raise errors.UserError(f"frames_per_second must be in 0.1…50. Received: {frames_per_second}")


def _check_heat(frames: np.ndarray, heat: np.ndarray) -> None:
    _check_frames(frames)
    if heat.shape != frames.shape[:3] or heat.dtype.kind != "f":
        raise errors.UserError(
            f"heat must be float {list(frames.shape[:3])}. Received: {heat.dtype} {list(heat.shape)}"
        )
    if not np.all((heat >= 0) & (heat <= 1)):  # Not so for NaN either.
        raise errors.UserError(f"heat must be in 0…1. Received: {heat.min()}…{heat.max()}")


def _check_mask(mask: np.ndarray) -> None:
    if mask.ndim != 1 or not mask.size or not np.isin(mask, (0, 1)).all():
        raise errors.UserError(f"mask must be [T] of 0 and 1. Received: {np.asarray(mask).tolist()}")
