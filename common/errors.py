"""Errors in what a user gave, reported on one line."""

import re
from collections.abc import Iterable

from common.text import printable

_BEGINNING, _END = 1000, 400  # Characters that are kept of a longer message, whose middle came from a file.
_BOLD = re.compile(r"\x1b\[\d*m")  # Codes that switch a terminal's bold print on and off.


class UserError(Exception):
    """Input that a rule forbids. The message states the rule, then what came, on one line that a terminal can show."""

    def __init__(self, message: str) -> None:
        line = printable(" ".join(message.split()))
        super().__init__(line if len(line) <= _BEGINNING + _END else f"{line[:_BEGINNING]} … {line[-_END:]}")


def first_line(error: BaseException) -> str:
    """Returns the first line of what another library's error says, or its type where it says nothing.

    Keras begins with the layer in which it happened, and says what happened in its second sentence, in bold.
    """
    lines = [line.strip() for line in _BOLD.sub("", str(error)).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        return lines[1]
    return lines[0] if lines else type(error).__name__


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `UserError` if the value called `name` is not one of the choices."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")
