"""Errors in what a user gave, reported on one line."""

from collections.abc import Iterable

_BEGINNING, _END = 1000, 400  # Characters that are kept of a longer message, whose middle came from a file.


class UserError(Exception):
    """Input that a rule forbids. The message states the rule, then what came, on one line."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= _BEGINNING + _END else f"{line[:_BEGINNING]} … {line[-_END:]}")


def first_line(error: BaseException) -> str:
    """Returns the first line of what another library's error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `UserError` if the value called `name` is not one of the choices."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")
