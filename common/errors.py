"""Errors in what a user gave, reported on one line."""

from collections.abc import Iterable


class UserError(Exception):
    """Input that a rule forbids. The message states the rule, then what came, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `UserError` if the value called `name` is not one of the choices."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")
