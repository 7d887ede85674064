"""What a user did wrong, told in one line, and the one place that turns it into exit code 2."""

import sys
from collections.abc import Callable, Iterable

from absl import app, flags, logging


class UserError(Exception):
    """Input that a rule forbids. The message states the rule, then what came, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raises a `UserError` if the value called `name` is none of the choices."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")


def run(main: Callable[[list[str]], int | None], positional: str | None = None) -> None:
    """Runs an entry script: `main` returns an exit code; bad input ends in one line and code 2.

    Args:
      main: takes what absl leaves of argv after the flags (the program's name first).
      positional: name of the one argument that is not a flag; None where there is none.
    """

    def checked(argv: list[str]) -> int | None:
        if positional and len(argv) != 2:
            raise UserError(f"One argument is taken: {positional}. Received: {' '.join(argv[1:]) or 'none'}")
        if not positional and len(argv) > 1:
            raise UserError(f"Only --flags are taken. Received: {' '.join(argv[1:])}")
        return main(argv)

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            raise UserError(f"{error} (--helpfull lists every flag)") from None

    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    try:
        app.run(checked, flags_parser=_with_help(parse))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _with_help(parse: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    """Absl adds --help and its kin inside its own parser only; this does the same for ours."""

    def parser(argv: list[str]) -> list[str]:
        app.define_help_flags()
        return parse(argv)

    return parser
