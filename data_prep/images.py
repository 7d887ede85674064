"""Reads clips from pictures: animated GIF and WebP, TIFF files of several pages, folders of frames.

Animations are read by imageio's Pillow plugin, one frame at a time from first to last, since each is drawn upon the one
before. Frames come as a viewer shows them. Alpha is dropped; GIF, which has no colour under what is transparent, is
white there. A frame without a delay (0) is shown for 100 ms, as in browsers. Pages and folders have no times; of them
the chosen pictures alone are read, by OpenCV, and 16 bits are rounded to 8: the full scale, 65535, becomes 255.

What a file is, its first bytes say, not its name. Animated PNG is FFmpeg's, in `videos`: Pillow cuts its 16 bits, and
leaves traces of frames that are to be undone. A picture's size is looked at before it is decoded.
"""

import contextlib
import functools
import io
import math
import os
import pathlib
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import cv2
import imageio
import imageio.v3 as iio
import numpy as np
import PIL
from PIL import Image

from data_prep import local_files
from data_prep.decoded import MAX_PIXELS, Choose, Decoded, Transform, UnreadableVideoError

Read = Callable[[pathlib.Path, Choose, Transform], Decoded]

# Besides GIF, which is always taken for an animation: files of these names may hold one picture or many.
SUFFIXES = frozenset(".apng .png .tif .tiff .webp".split())

_FRAME_NAME = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)\.(?:jpe?g|png|tiff?|webp)", re.IGNORECASE | re.DOTALL)
_ANIMATION = re.compile(rb"GIF8[79]a|RIFF....WEBP", re.DOTALL)
_TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
_DAMAGE = (  # What Pillow raises for files that are damaged, or of monstrous size.
    *(OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, struct.error),
    Image.DecompressionBombError,
)
_UNTIMED = 100  # milliseconds that a frame with a delay of 0 is shown
_LISTED = 5  # Problems of a folder that a note lists one by one.
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # Three channels, and the bits that there are: 16 are not cut.


def reader(path: pathlib.Path) -> Read | None:
    """Returns what reads a file or folder; None where it is not for this module."""
    if path.is_dir():
        return read_folder
    with path.open("rb") as file:
        start = file.read(12)
    if _ANIMATION.match(start):
        return read_animation
    return read_pages if _TIFF.match(start) else None


def holds_frames(folder: pathlib.Path) -> bool:
    """Returns whether a folder holds a frame image, by its name, such as 0001.jpg or img_00001.png."""
    with os.scandir(folder) as entries:
        return any(not entry.name.startswith(".") and _FRAME_NAME.fullmatch(entry.name) for entry in entries)


def has_several(path: pathlib.Path) -> bool:
    """Returns whether an image file holds more than one picture; False for what is no image."""
    try:
        return _count(path) > 1
    except UnreadableVideoError:
        return False


def decoder_versions() -> dict[str, str]:
    """Returns the names and versions of what turns image files into pixels."""
    return {"imageio": imageio.__version__, "pillow": PIL.__version__, "opencv": cv2.__version__}


def read_animation(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    """Reads the chosen frames of an animated GIF or WebP; arguments and errors as of `videos.read_frames`."""
    wanted = set(choose(_count(path)))
    decoded = _play(path, wanted, transform)
    if not decoded.num_frames:
        raise UnreadableVideoError(f"no frame decodes; {decoded.note}")
    rightly_wanted = set(choose(decoded.num_frames))
    return decoded if rightly_wanted <= wanted else _play(path, rightly_wanted, transform)


def read_pages(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    """Reads the chosen pages of a TIFF file; arguments and errors as of `videos.read_frames`."""
    pages = range(_count(path))
    pictures = [(f"page {page + 1}", functools.partial(_load_page, path, page)) for page in pages]
    return _read_pictures(pictures, [], choose, transform)


def read_folder(path: pathlib.Path, choose: Choose, transform: Transform) -> Decoded:
    """Reads the chosen frames of a folder of frames; arguments and errors as of `videos.read_frames`."""
    files, oddities = _frame_files(path)
    if not files:
        raise UnreadableVideoError("; ".join(["no frame images (0001.jpg, img_00001.jpg, …)", *oddities]))
    pictures = [(file.name, functools.partial(_load_file, file)) for file in files]
    return _read_pictures(pictures, oddities, choose, transform)


def _count(path: pathlib.Path) -> int:
    """Returns how many pictures a file says it holds, without decoding them.

    Raises:
      UnreadableVideoError: where it is no image.
    """
    with _opened(path) as file:
        try:
            return file().properties(index=...).n_images
        except _DAMAGE as error:
            cause = error.__cause__ or error  # Imageio hides what Pillow says.
            if isinstance(cause, Image.DecompressionBombError):
                raise _too_large(cause) from None
            raise UnreadableVideoError("not a readable image file") from None


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Callable[[], Any]]:
    """Yields what opens an animation or a TIFF file with imageio, for the block."""
    with local_files.opened(path) as source, _limited(), contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(iio.imopen(cast(BinaryIO, source), "r", plugin="pillow"))


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Makes Pillow refuse pictures of more than `MAX_PIXELS`, which is twice the limit that it only warns at."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _is_small_enough(source: Any, page: int = 0) -> bool:
    """Returns whether a file is a picture that is small enough to be decoded; False for what is not a picture.

    Raises:
      UnreadableVideoError: where it is too large.
    """
    try:
        with _limited(), Image.open(source) as image:
            image.seek(page)
            return True
    except Image.DecompressionBombError as error:
        raise _too_large(error) from None
    except _DAMAGE:
        return False


def _too_large(error: BaseException) -> UnreadableVideoError:
    """Returns the error for a picture that Pillow refuses: its pixels and the limit, without Pillow's guess at why."""
    return UnreadableVideoError(f"too large a frame: {str(error).partition(', could')[0]}")


def _play(path: pathlib.Path, wanted: set[int], transform: Transform) -> Decoded:
    """Decodes an animation from first to last frame, or up to one that is damaged, and keeps the wanted frames."""
    decoded = Decoded()
    ends = [0.0]  # milliseconds after the start: of nothing, of the first frame, …
    with _opened(path) as opened:
        file = opened()
        num_frames = file.properties(index=...).n_images
        for index in range(num_frames):
            try:
                pixels, facts = file.read(index=index, mode="RGBA"), file.metadata(index=index)
            except _DAMAGE as error:
                decoded.note = f"reading stops early: {error}; declares {num_frames} frames, {index} decode"
                break
            if index in wanted:
                if "version" in facts:  # Of GIF alone.
                    pixels[pixels[..., 3] == 0] = 255
                decoded.frames[index] = transform(np.ascontiguousarray(pixels[..., :3]))
            ends.append(ends[-1] + (facts.get("duration", math.nan) or _UNTIMED))
    decoded.num_frames = len(ends) - 1
    decoded.fps = 1000 * decoded.num_frames / ends[-1] if decoded.num_frames else math.nan
    # A file that gives one frame no delay does not say when those after it come.
    decoded.times = {index: ends[index] / 1000 if math.isfinite(ends[-1]) else math.nan for index in decoded.frames}
    return decoded


def _read_pictures(
    pictures: Sequence[tuple[str, Callable[[], np.ndarray | None]]],
    oddities: Sequence[str],
    choose: Choose,
    transform: Transform,
) -> Decoded:
    """Reads the chosen pictures alone, so n counts what there is; a broken one is left out, and noted.

    Args:
      pictures: name of each, and what loads it: uint8 [h, w, 3], RGB, or None where it is broken.
      oddities: what else is to be noted.
      choose: as of `videos.read_frames`.
      transform: as of `videos.read_frames`.
    """
    left, problems = list(range(len(pictures))), list(oddities)
    made: dict[int, np.ndarray] = {}
    while left:
        wanted = sorted(set(choose(len(left))))
        broken = []
        for picture in (left[index] for index in wanted if left[index] not in made):
            name, load = pictures[picture]
            try:
                pixels, problem = load(), f"{name} is not a readable image"
            except UnreadableVideoError as error:
                pixels, problem = None, f"{name}: {error}"
            if pixels is None:
                broken.append(picture)
                problems.append(problem)
            else:
                made[picture] = transform(pixels)
        if not broken:
            frames = {index: made[left[index]] for index in wanted}
            return Decoded(len(left), math.nan, frames, dict.fromkeys(wanted, math.nan), _listed(problems))
        left = [picture for picture in left if picture not in broken]
    raise UnreadableVideoError(_listed(problems))


def _listed(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    return "; ".join([*problems[:_LISTED], *more])


def _frame_files(path: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the frame images of a folder in the order of their numbers, and what is odd about them."""
    matches = [
        (_FRAME_NAME.fullmatch(entry.name), entry)
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
        if not entry.name.startswith(".")  # ._00001.jpg, which some file systems put beside 00001.jpg.
    ]
    oddities = [f"{entry.name} is not a file" for match, entry in matches if match and not entry.is_file()]
    named = [
        (int(match["number"]), match["prefix"], path / entry.name)
        for match, entry in matches
        if match and entry.is_file()
    ]
    if len({prefix for _, prefix, _ in named}) > 1:
        raise UnreadableVideoError(f"frames of several kinds: {', '.join(sorted({repr(p) for _, p, _ in named}))}")
    numbers = [number for number, _, _ in sorted(named)]
    if len(set(numbers)) < len(numbers):
        raise UnreadableVideoError("two frames with the same number")
    gaps = numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0
    return [entry for _, _, entry in sorted(named)], oddities + [f"{gaps} frame numbers are missing"] * bool(gaps)


def _load_file(path: pathlib.Path) -> np.ndarray | None:
    data = path.read_bytes()  # OpenCV itself would not open all names.
    if not _is_small_enough(io.BytesIO(data)):
        return None
    return _eight_bits(cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED))


def _load_page(path: pathlib.Path, page: int) -> np.ndarray | None:
    with local_files.opened(path) as source:
        if not _is_small_enough(source, page):
            return None
    try:
        name = os.fsencode(path.absolute()).decode()
    except UnicodeDecodeError:  # OpenCV takes a name as text.
        data = np.frombuffer(path.read_bytes(), np.uint8)
        _, pages = cv2.imdecodemulti(data, _AS_STORED, range=(page, page + 1))
    else:
        _, pages = cv2.imreadmulti(name, page, 1, flags=_AS_STORED)
    if not pages:
        local_files.check_readable(path)
    return _eight_bits(pages[0]) if pages else None


def _eight_bits(image: np.ndarray | None) -> np.ndarray | None:
    """Returns RGB, uint8 [h, w, 3], of BGR with 8 or 16 bits; None of what has other pixels."""
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
