"""Decodes the frames that are asked for from a video file; from pictures by way of `images`.

Which frames are wanted depends on how many there are, and what a file declares about that is often wrong. So the
packets are counted first, without decoding them; the frames wanted under that count are kept while the file is decoded
once, from end to end; and only where the number of frames that really decoded calls for others is it decoded again. Of
a long video no more than the wanted frames stays in memory. A frame counts when it decodes: packets that fail are left
out and told in a note.

Colours: the matrix and range that the file declares (BT.601 where it declares none, as FFmpeg does); alpha is dropped;
more than 8 bits are rounded to 8. Rotation and mirroring in the file's metadata are applied. Pixels that are not square
are taken as they are stored. One thread decodes: run several processes instead.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from data_prep import images
from data_prep.decoded import Choose, Decoded, Transform, UnreadableVideoError

# FFmpeg's fast conversion cuts off fractions: colours are 0…3 levels of 255 too dark, 1.2 on average. Full chroma
# interpolation with accurate rounding is unbiased and nine times slower, a sixth of the time of a short clip.
_CONVERSION = Interpolation.BILINEAR | Interpolation.BITEXACT
_MAX_HELD = 16 << 20  # bytes of a video that may stay in memory while its packets are counted


def read_frames(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    """Reads the chosen frames of a video file, an animated image, a TIFF file of several pages or a folder of frames.

    Args:
      path: of the file or folder.
      choose: takes the number of frames, at least 1, and returns the wanted indices, each in [0, number).
      transform: takes a chosen frame, uint8 [h, w, 3], RGB, upright; what it returns is kept (resize here, so that no
        more than the clip stays in memory, however long the video).

    Raises:
      UnreadableVideoError: where no frame decodes.
    """
    try:
        read = images.reader(path) or _read_video
        return read(path, choose, transform)
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideoError(error.strerror or error) from None
    except (MemoryError, cv2.error) as error:
        raise UnreadableVideoError(f"too large a frame: {error}") from None


def decoder_versions() -> dict[str, str]:
    """Returns the names and versions of what turns files into pixels."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"name": "PyAV", "version": av.__version__, "libavcodec": codec, **images.decoder_versions()}


def _read_video(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    with _open(path) as (container, stream):
        expected, held = _count(_packets(container, stream))
        wanted = set(choose(expected)) if expected else set()
        decoded = None
        if held:
            decoded = _decode(container, stream, held, wanted, transform)
    if decoded is None:
        decoded = _decode_anew(path, wanted, transform)
    rightly_wanted = set(choose(decoded.num_frames))
    return decoded if rightly_wanted <= wanted else _decode_anew(path, rightly_wanted, transform)


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[tuple[Any, Any]]:
    container: Any
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if stream is None:
            raise UnreadableVideoError("no video stream")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yields packets up to the end (an empty one flushes), or up to the error that ends a damaged file, and that."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            yield error
            return
        yield packet


def _count(packets: Iterable[Any]) -> tuple[int, list[Any]]:
    """Returns how many packets should give a frame, and all packets, or none where they are too large to hold."""
    held: list[Any] = []
    count = size = 0
    for packet in packets:
        if not isinstance(packet, av.error.FFmpegError):
            count += bool(packet.size and not packet.is_discard)
            size += packet.size
        if size <= _MAX_HELD:
            held.append(packet)
        else:
            held.clear()
    return count, held


def _decode_anew(path: pathlib.Path, wanted: set[int], transform: Transform) -> Decoded:
    with _open(path) as (container, stream):
        return _decode(container, stream, _packets(container, stream), wanted, transform)


def _decode(container: Any, stream: Any, packets: Iterable[Any], wanted: set[int], transform: Transform) -> Decoded:
    """Decodes packets from first to last and keeps the wanted frames."""
    decoded = Decoded()
    problems: list[str] = []
    failures: list[str] = []
    first_time = last_time = math.nan
    # One for all frames: PyAV would set up a new one, for more than a small frame's conversion takes, with each frame.
    reformatter = VideoReformatter()
    for packet in packets:
        ended = isinstance(packet, av.error.FFmpegError)
        if ended:
            problems.append(f"reading stops early: {packet.strerror}")
        try:
            frames = stream.codec_context.decode(None) if ended else packet.decode()
        except av.error.FFmpegError as error:
            failures.append(str(error.strerror))
            continue
        for frame in frames:
            index, decoded.num_frames = decoded.num_frames, decoded.num_frames + 1
            last_time = math.nan if frame.time is None else frame.time
            first_time = last_time if index == 0 else first_time
            if index in wanted:
                decoded.frames[index] = transform(_upright_rgb(frame, reformatter))
                decoded.times[index] = last_time
    if failures:
        problems.append(f"{len(failures)} packets do not decode (the first: {failures[0]})")
    if not decoded.num_frames:
        raise UnreadableVideoError("; ".join(["no frame decodes", *problems]))
    declared, span = _declared(container, stream), last_time - first_time
    decoded.fps = declared.fps
    if math.isnan(decoded.fps) and decoded.num_frames > 1 and span > 0:
        decoded.fps = (decoded.num_frames - 1) / span
    for index, time in decoded.times.items():
        if math.isnan(time):  # AVI and raw streams may give no time stamps; a rate they give says the same.
            decoded.times[index] = index / decoded.fps
    decoded.note = "; ".join(problems + _shortfall(decoded, declared, span))
    return decoded


@dataclasses.dataclass(frozen=True)
class _Declared:
    """What a file says of itself: frames (0: nothing), frames per second and seconds (NaN: nothing)."""

    frames: int
    fps: float
    duration: float


def _declared(container: Any, stream: Any) -> _Declared:
    duration = math.nan
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:  # Otherwise it may be the length of the sound.
        duration = container.duration / av.time_base
    return _Declared(stream.frames, float(stream.average_rate or math.nan), duration)


def _shortfall(decoded: Decoded, declared: _Declared, span: float) -> list[str]:
    """Returns what is missing of what a file declares; `span` is the time from first to last frame, s (or NaN)."""
    if decoded.num_frames < declared.frames:
        return [f"declares {declared.frames} frames, {decoded.num_frames} decode"]
    if span + 2 / decoded.fps < 0.9 * declared.duration:
        return [f"declares {declared.duration:.2f} s, frames end after {span + 1 / decoded.fps:.2f} s"]
    return []


def _upright_rgb(frame: Any, reformatter: VideoReformatter) -> np.ndarray:
    rgb = reformatter.reformat(frame, format="rgb24", interpolation=_CONVERSION, threads=1).to_ndarray()
    data = frame.side_data.get("DISPLAYMATRIX")
    return rgb if data is None else _oriented(rgb, np.frombuffer(bytes(data), np.int32))


def _oriented(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies a display matrix of quarter turns and mirrors.

    Args:
      image: [h, w, 3].
      matrix: int32 [9], rows (a, b, u), (c, d, v), (x, y, z): column p and row q go to column a p + c q + x and row
        b p + d q + y. Other angles than quarter turns leave the frame as it is.
    """
    a, b, c, d = matrix[[0, 1, 3, 4]]
    if b == c == 0:
        column_sign, row_sign = a, d
    elif a == d == 0:
        image = image.transpose(1, 0, 2)
        column_sign, row_sign = c, b
    else:
        return image
    return np.ascontiguousarray(image[:: -1 if row_sign < 0 else 1, :: -1 if column_sign < 0 else 1])
