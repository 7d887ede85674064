"""Decodes the frames that are asked for from a video file; from pictures by way of `images`.

Which frames are wanted depends on how many there are, and what a file declares about that is often wrong. So the
packets are counted first, without decoding them; the frames wanted under that count are kept while the file is decoded
once, from end to end; and only where the number of frames that really decoded calls for others is it decoded again. Of
a long video no more than the wanted frames stays in memory. A frame counts when it decodes: packets that fail are left
out, and noted.

Decoders conceal damage: a packet that is half destroyed still gives a frame, and so do all that build on it. What they
report meanwhile (FFmpeg's log, marks on packets and frames) becomes a note, too. Damage that leaves a valid stream goes
unnoticed; with arithmetic coding (VP8, VP9, HEVC, most H.264) that is common.

Colours: the matrix and range that the file declares (BT.601 where it declares none, as FFmpeg does); alpha is dropped;
more than 8 bits are rounded to 8. Rotation and mirroring in the file's metadata are applied. Pixels that are not square
are taken as they are stored. One thread decodes: run several processes instead.

FFmpeg is given the bytes of one local file and opens nothing else, whatever a file (a playlist, say) names.
"""

import contextlib
import dataclasses
import errno
import math
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from data_prep import images, local_files
from data_prep.decoded import (
    MAX_PIXELS,
    Choose,
    Decoded,
    ReadingStoppedError,
    Transform,
    UnreadableVideoError,
    check_pixels,
)

# FFmpeg's fast conversion cuts off fractions: colours are 0…3 levels of 255 too dark, 1.2 on average. Full chroma
# interpolation with accurate rounding is unbiased and nine times slower, a sixth of the time of a short clip.
_CONVERSION = 2 | 0x80000  # SWS_BILINEAR | SWS_BITEXACT; PyAV 17, the last for Python 3.10, has no name for it.
_MAX_HELD = 16 << 20  # bytes of a video that may stay in memory while its packets are counted

_NO_PROTOCOL = {"protocol_whitelist": "none"}  # No name that a file holds (HLS, concat) is opened.
_LIMIT = {"max_pixels": str(MAX_PIXELS)}
_STRICT = {**_LIMIT, "err_detect": "crccheck+bitstream+buffer"}  # Cheap checks that conceal less.
_SHOWN = 100  # letters of a message of FFmpeg's in a note

# What libraries raise for files that they do not expect.
_SURPRISES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

# How files of the usual containers and raw streams begin. Photos in MP4's container (HEIC, AVIF, CR3) do not count.
_BEGINNINGS = re.compile(
    rb"\0...(?:ftyp(?!hei|hev[cx]|mif1|msf1|avi|crx)|moov|wide|free|skip|pnot)|....mdat"  # MP4, QuickTime
    rb"|\x1aE\xdf\xa3|RIFF....AVI |OggS\0|FLV\x01|0&\xb2u\x8ef\xcf\x11|\.RMF\0|DKIF\0|YUV4MPEG2 |[FCZ]WS[\3-\x1f]"
    rb"|\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02|nut/multimedia container\0|\xb7\xd8\x00\x20"  # MXF, NUT, WTV
    rb"|\0\0\x01[\xba\xb3]|\0?\0\0\x01[\x09\x27\x40\x42\x46\x67]|\x1f\x07\0"  # MPEG, H.264, H.265, DV
    rb"|G.{187}G.{187}G|.{4}G.{191}G.{191}G",  # Transport streams, without and with time codes
    re.DOTALL,
)

_Message = tuple[int, str, str]  # Of FFmpeg's log: level, who says it, what.


class _Read(NamedTuple):
    """What one step of reading a file gave: a packet, or the error that ends it, and what FFmpeg said meanwhile."""

    packet: Any
    error: av.error.FFmpegError | None
    said: str


def read_frames(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    """Reads the chosen frames of a video file, an animated image, a TIFF file of several pages or a folder of frames.

    Only one thread of a process may call it at a time: notes come from FFmpeg's log, of which a process has one.

    Args:
      path: of the file or folder.
      choose: takes the number of frames, at least 1, and returns the wanted indices, each in [0, number).
      transform: takes a chosen frame, uint8 [h, w, 3], RGB, upright; what it returns is kept (resize here, so that no
        more than the clip stays in memory, however long the video).

    Raises:
      UnreadableVideoError: where no frame decodes.
      ReadingStoppedError: where reading failed for a reason other than the file's content: it is gone, the disk or the
        network fails, or the process has too little memory or too many open files.
    """
    try:
        read = images.reader(path) or _read_video
        return read(path, choose, transform)
    except OSError as error:
        if local_files.is_of_the_file(error):
            raise UnreadableVideoError(error.strerror or error) from None
        raise ReadingStoppedError(f"{path}: {error.strerror}") from None
    except MemoryError:
        raise ReadingStoppedError(f"{path}: memory is short") from None
    except _SURPRISES as error:  # One bad file must not end the work on all others.
        raise UnreadableVideoError(f"{type(error).__name__}: {error}") from None
    except cv2.error as error:
        raise UnreadableVideoError(f"OpenCV: {error}") from None


def holds_video(path: pathlib.Path) -> bool:
    """Returns whether the content of a file is that of a video, whatever its name.

    The first bytes must be those of a container or stream that is known. A damaged file of this kind counts; one
    without a moving picture (sound, sound with a cover) does not.
    """
    with path.open("rb") as file:
        start = file.read(600)
    if not _BEGINNINGS.match(start):
        return False
    try:
        with local_files.opened(path) as source, _container(source) as container:
            stream = container.streams.best("video")
            return stream is not None and not stream.disposition & av.stream.Disposition.attached_pic
    except (av.error.FFmpegError, *_SURPRISES):
        return True


def decoder_versions() -> dict[str, str]:
    """Returns the names and versions of what turns files into pixels."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {"name": "PyAV", "version": av.__version__, "libavcodec": codec, **images.decoder_versions()}


def _memory_is_short() -> bool:
    """Returns whether not even the largest frame would fit; otherwise it was the file that asked for too much."""
    try:
        bytearray(4 * MAX_PIXELS)
    except MemoryError:
        return True
    return False


def _read_video(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    with _heard() as said:
        try:
            return _decode_as_wanted(path, choose, transform, said)
        except av.error.FFmpegError as error:
            if error.errno == errno.ENOMEM and _memory_is_short():
                raise ReadingStoppedError(f"{path}: memory is short") from None
            raise UnreadableVideoError(_reason(error, said)) from None


def _decode_as_wanted(path: pathlib.Path, choose: Choose, transform: Transform, said: list[_Message]) -> Decoded:
    """Decodes a video once, or twice where the number of frames is not the expected one."""
    with _open(path) as (container, stream):
        expected, held = _count(_packets(container, stream, said))
        wanted = set(choose(expected)) if expected else set()
        decoded = None
        if held:
            decoded = _decode(container, stream, held, wanted, transform, said)
    if decoded is None:
        decoded = _decode_anew(path, wanted, transform, said)
    rightly_wanted = set(choose(decoded.num_frames))
    return decoded if rightly_wanted <= wanted else _decode_anew(path, rightly_wanted, transform, said)


@contextlib.contextmanager
def _heard() -> Iterator[list[_Message]]:
    """Collects what FFmpeg logs as an error in this thread, which does all the decoding: the same on every run."""
    level, skipping = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # Otherwise what was said of the last video is not said of this one.
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skipping)


def _reason(error: av.error.FFmpegError, said: list[_Message]) -> str:
    """Returns why FFmpeg failed: its error, and what it said first."""
    return ": ".join(filter(None, (error.strerror, _first(said))))


def _first(said: list[_Message]) -> str:
    """Returns the first message, on one line, and forgets all."""
    messages = [" ".join(message.split()) for _, _, message in said]
    said.clear()
    return next((message[:_SHOWN] for message in messages if message), "")


def _container(source: local_files.LocalFile) -> Any:
    return av.open(source, "r", metadata_errors="replace", options=_LIMIT, container_options=_NO_PROTOCOL)


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[tuple[Any, Any]]:
    with local_files.opened(path) as source, _container(source) as container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise UnreadableVideoError("no video stream")
        if stream.codec_context is None:
            raise UnreadableVideoError("no decoder knows the codec of the video stream")
        check_pixels(stream.codec_context.height, stream.codec_context.width)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = _STRICT
        yield container, stream


def _packets(container: Any, stream: Any, said: list[_Message]) -> Iterator[_Read]:
    """Yields packets up to the end (an empty one flushes), or up to the error that ends a damaged file, and that."""
    said.clear()  # What is said while a file is opened may be about any of its streams.
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            yield _Read(None, error, _first(said))
            return
        yield _Read(packet, None, _first(said) or "marked as damaged" * packet.is_corrupt)


def _count(reads: Iterable[_Read]) -> tuple[int, list[_Read]]:
    """Returns how many packets should give a frame, and all packets, or none where they are too large to hold."""
    held: list[_Read] = []
    count = size = 0
    for read in reads:
        if read.packet is not None:
            count += bool(read.packet.size and not read.packet.is_discard)
            size += read.packet.size
        if size <= _MAX_HELD:
            held.append(read)
        else:
            held.clear()
    return count, held


def _decode_anew(path: pathlib.Path, wanted: set[int], transform: Transform, said: list[_Message]) -> Decoded:
    with _open(path) as (container, stream):
        return _decode(container, stream, _packets(container, stream, said), wanted, transform, said)


def _decode(
    container: Any,
    stream: Any,
    reads: Iterable[_Read],
    wanted: set[int],
    transform: Transform,
    said: list[_Message],
) -> Decoded:
    """Decodes packets from first to last and keeps the wanted frames."""
    decoded = Decoded()
    problems: list[str] = []
    failures: list[str] = []
    damages: list[str] = []
    num_marked = 0
    first_time = last_time = math.nan
    # One for all frames: PyAV would set up a new one, for more than a small frame's conversion takes, with each frame.
    reformatter = VideoReformatter()
    for packet, ended, damage in reads:
        if ended:
            problems.append(f"reading stops early: {ended.strerror}")
        said.clear()
        try:
            frames = stream.codec_context.decode(None) if ended else packet.decode()
        except av.error.FFmpegError as error:
            failures.append(_reason(error, said))
            continue
        damage = _first(said) or damage
        if damage:
            damages.append(damage)
        for frame in frames:
            index, decoded.num_frames = decoded.num_frames, decoded.num_frames + 1
            last_time = math.nan if frame.time is None else frame.time
            first_time = last_time if index == 0 else first_time
            num_marked += frame.is_corrupt
            if index in wanted:
                decoded.frames[index] = transform(_upright_rgb(frame, reformatter))
                decoded.times[index] = last_time
    if failures:
        problems.append(f"{len(failures)} packets do not decode (the first: {failures[0]})")
    if damages:
        problems.append(f"{len(damages)} packets are damaged (the first: {damages[0]})")
    elif num_marked:
        problems.append(f"{num_marked} frames are damaged")
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
    """What a file says of itself: frames to be shown (0: nothing), frames per second and seconds (NaN: nothing)."""

    frames: int
    fps: float
    duration: float


def _declared(container: Any, stream: Any) -> _Declared:
    duration = math.nan
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:  # Otherwise it may be the length of the sound.
        duration = container.duration / av.time_base
    frames = stream.frames
    if container.format.name.startswith("mov"):  # Its index has what an edit list leaves of the frames stored.
        shown = sum(not entry.is_discard for entry in stream.index_entries)
        frames = min(frames, shown or frames)
    return _Declared(frames, float(stream.average_rate or math.nan), duration)


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
