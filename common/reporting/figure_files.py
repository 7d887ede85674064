"""Films and pictures as files: GIF, MP4, PNG, each written whole or not at all."""

import io
import math
import pathlib
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
from imageio.plugins.pyav import PyAVPlugin
from PIL import Image

from common import errors, files
from common.reporting import drawing

GIF_BYTES = 2_500_000

# One less than a power of two: the last place is for transparent, which stands for what did not change.
_GIF_COLORS = (255, 127)
_INDEX_BYTES, _INDEX_BYTES_PER_FRAME = 2048, 32  # More than the index of an MP4 of one stream takes.
_BT709, _NARROW_RANGE = 1, 1  # FFmpeg's numbers. Declared, because players guess where a file does not say.


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
    files.write_bytes(path, data)


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
    # In memory, because PyAV and imageio answer a full disk with tracebacks. To put the index first, FFmpeg would read
    # the file again; there it cannot, and leaves room for the index instead.
    options = {"moov_size": str(_INDEX_BYTES + _INDEX_BYTES_PER_FRAME * len(frames))}
    film = io.BytesIO()
    writer: Any
    with iio.imopen(film, "w", plugin=_H264, container="mp4", extension=".mp4", options=options) as writer:
        writer.start(frames.shape[1:3], frames_per_second)
        colors = "out_color_matrix=bt709:out_range=limited:flags=bilinear"
        writer.write(frames, filter_sequence=[("scale", colors), ("format", "yuv420p")])
    files.write_bytes(path, film.getbuffer())


def write_png(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes an image, uint8 [h, w, 3], as PNG, whole or not at all."""
    drawing.check_frames(image[None])
    files.write_bytes(path, png(image))


def png(image: np.ndarray) -> bytes:
    """Returns an image, uint8 [h, w, 3], as PNG."""
    return iio.imwrite("<bytes>", image, plugin="pillow", extension=".png", optimize=True)


class _H264(PyAVPlugin):
    """PyAV's plugin with what it leaves to FFmpeg's defaults: size, quality, threads, declared colours."""

    def start(self, size: tuple[int, int], frames_per_second: float) -> None:
        self.init_video_stream("libx264", fps=frames_per_second, pixel_format="yuv420p")
        stream: Any = self._video_stream
        stream.options = {"crf": "18"}
        stream.height, stream.width = size  # Before the first filter, which takes its size from the stream.
        context = stream.codec_context
        context.thread_count = 1  # With more, the bytes would depend on the machine.
        context.colorspace, context.color_range = _BT709, _NARROW_RANGE


def _gif(frames: np.ndarray, milliseconds: int, colors: int) -> bytes:
    """Returns a GIF of frames [T, h, w, 3] in `colors` colours, those of the bar and text among them."""
    fixed = (*drawing.ON_COLOR, *drawing.OFF_COLOR, *drawing.INK, *drawing.PAPER)
    sample = frames[:, ::2, ::2].reshape(-1, 3) & 0xFC  # 6 bits a channel are enough to choose by.
    found, counts = np.unique(sample.astype(np.int32) @ (1 << 16, 1 << 8, 1), return_counts=True)
    # Chosen by plain counts, a small hot spot would take the colours of what is large.
    found = np.repeat(found, np.ceil(counts**0.25).astype(int))
    sample = np.stack([found >> 16, found >> 8 & 0xFF, found & 0xFF], axis=-1)[None].astype(np.uint8)
    chosen = Image.fromarray(sample).quantize(colors - len(fixed) // 3, Image.Quantize.MEDIANCUT)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*fixed, *(chosen.getpalette() or [])])
    # The plugin takes pixels, not indices: it finds the colours again that each frame is rounded to here.
    rounded = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in rounded])
    options: dict[str, Any] = {"palette": bytes(palette.getpalette() or []), "loop": 0, "optimize": True}
    return iio.imwrite("<bytes>", pixels, plugin="pillow", extension=".gif", duration=milliseconds, **options)


def _check_film(frames: np.ndarray, frames_per_second: float) -> None:
    drawing.check_frames(frames)
    if not 0.1 <= frames_per_second <= 50:
        raise errors.UserError(f"frames_per_second must be in 0.1…50. Received: {frames_per_second}")
