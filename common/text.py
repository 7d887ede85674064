"""Text that commands print."""

import functools

from absl import logging


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun that takes an s in the plural: 1 clip, 2 clips."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@functools.cache
def tell_once(message: str) -> None:
    """Logs a message, once in a process."""
    logging.info("%s", message)
