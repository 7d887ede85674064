"""Text for people: what commands print, and what messages say."""

import functools

from absl import logging


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun that takes an s in the plural: 1 clip, 2 clips."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Returns text that fits on one line of any terminal: control characters and the like become escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


@functools.cache
def tell_once(message: str) -> None:
    """Logs a message, once in a process."""
    logging.info("%s", message)
