"""A font for a text of the figures: Pillow's own, or one of the system's that has its letters.

Pillow comes with one Latin font. Names of classes, files and people are written in any script, and a font draws an
empty box where it lacks a letter. Where no font on the system has them all, letters are replaced by the closest
Latin ones, with one warning.
"""

import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterator
from typing import Any

import anyascii
from absl import logging
from PIL import ImageFont

_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
_ENDINGS = (".ttf", ".otf", ".ttc")
# Of two fonts that have the letters, the upright one of usual weight and width is taken.
_UNUSUAL = ("math", "bold", "italic", "oblique", "mono", "serif", "condensed", "light", "black", "thin", "medium")
_TEST_SIZE = 16  # px, where it is tested which letters a font has.
_NO_LETTER = "\U0010ffff"  # No font has it, so it shows what a font draws for what it lacks.


def fitting(text: str) -> tuple[str, pathlib.Path | None]:
    """Returns the text as it can be drawn, and the file of the font that draws it; None: Pillow's own.

    A letter that no font has is replaced by the closest Latin ones; one that is not to be seen, such as a newline,
    by a blank.
    """
    composed = unicodedata.normalize("NFC", text)
    text = "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in composed)
    return (text, None) if text.isascii() else _fitting(text)


def load(path: pathlib.Path | None, size: float) -> Any:
    """Returns a font in letters of `size` px; None: the font that comes with Pillow."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@functools.lru_cache
def _fitting(text: str) -> tuple[str, pathlib.Path | None]:
    letters = {letter for letter in text if not letter.isspace()}
    # Lazily: the system's fonts are not looked for where Pillow's own will do.
    best: tuple[set[str], pathlib.Path | None] = (letters, None)
    for path in _fonts():
        lacking = {letter for letter in letters if not _has(path, letter)}
        if len(lacking) < len(best[0]) or path is None:
            best = (lacking, path)
        if not lacking:
            break
    lacking, path = best
    if lacking:
        _warn()
        logging.debug("No font has the letters %s.", sorted(lacking))
    return "".join(_closest(letter) if letter in lacking else letter for letter in text), path


def _closest(letter: str) -> str:
    return anyascii.anyascii(letter) or "?"


@functools.lru_cache
def _warn() -> None:
    logging.warning(
        "Figures: no font on this system has all the letters of some names; they are drawn with the closest Latin "
        "letters. A font that has them (such as Noto Sans), once installed, is found and used."
    )


def _fonts() -> Iterator[pathlib.Path | None]:
    yield None
    yield from _system_fonts()


@functools.lru_cache
def _system_fonts() -> tuple[pathlib.Path, ...]:
    """Returns the font files of the system, the plainest first."""
    found = [
        pathlib.Path(folder, name)
        for start in _FOLDERS
        for folder, _, names in os.walk(os.path.expanduser(start))
        for name in names
        if name.lower().endswith(_ENDINGS)
    ]
    return tuple(sorted(found, key=lambda path: (sum(word in path.name.lower() for word in _UNUSUAL), path.name)))


@functools.lru_cache(maxsize=10_000)
def _has(path: pathlib.Path | None, letter: str) -> bool:
    """Returns whether a font draws a letter otherwise than one that it lacks."""
    try:
        font = _test_font(path)
        return _drawn(font, letter) != _drawn(font, _NO_LETTER)
    except OSError:  # A font of fixed sizes, or a damaged file.
        return False


@functools.lru_cache
def _test_font(path: pathlib.Path | None) -> Any:
    return load(path, _TEST_SIZE)


def _drawn(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
