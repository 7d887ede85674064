"""Writes video files, for tests and benchmarks."""

import pathlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np


def write_video(
    path: pathlib.Path,
    frames: Iterable[np.ndarray],
    codec: str,
    pixel_format: str = "yuv420p",
    *,
    rate: int = 10,
    times: Sequence[int] | None = None,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
) -> None:
    """Writes a video file; the container follows from the path's suffix.

    Args:
      path: of the file.
      frames: uint8 [h, w, 3], RGB, or [h, w, 4], RGBA, all of one size.
      codec: FFmpeg's name of the encoder.
      pixel_format: FFmpeg's name of the format that is coded.
      rate: frames per second.
      times: presentation time of each frame in units of 1 / rate; None counts 0, 1, 2, …
      bit_rate: bits per second; None leaves it to the encoder.
      options: of the encoder.
      container_options: of the muxer.
      tags: `colorspace` and `color_range` in FFmpeg's numbers, both applied to the pixels and declared.
    """
    stream: Any = None
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        for index, pixels in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = pixel_format
                stream.codec_context.thread_count = 1
                stream.codec_context.time_base = Fraction(1, rate)
                if bit_rate:
                    stream.bit_rate = bit_rate
                for name, value in (tags or {}).items():
                    setattr(stream.codec_context, name, value)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24" if pixels.shape[2] == 3 else "rgba")
            frame = frame.reformat(
                format=pixel_format, **{f"dst_{name}": value for name, value in (tags or {}).items()}
            )
            frame.pts, frame.time_base = times[index] if times else index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
