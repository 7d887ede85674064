"""How a command begins and ends: flags are parsed, and what a user did wrong becomes one line and exit code 2."""

import io
import sys
from collections.abc import Callable

from absl import app, flags, logging

from common import errors


def run(main: Callable[[list[str]], int | None], positional: str | None = None) -> None:
    """Runs an entry script: `main` returns an exit code; bad input ends in one line and code 2.

    Args:
      main: takes what absl leaves of argv after the flags (the program's name first).
      positional: name of the one argument that is not a flag; None where there is none.
    """

    def checked(argv: list[str]) -> int | None:
        if positional and len(argv) != 2:
            raise errors.UserError(
                f"Exactly one argument must be given: {positional}. Received: {' '.join(argv[1:]) or 'none'}"
            )
        if not positional and len(argv) > 1:
            raise errors.UserError(f"Arguments must be --flags. Received: {' '.join(argv[1:])}")
        return main(argv)

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            raise errors.UserError(f"{error} (--helpfull lists every flag)") from None

    for stream in (sys.stdout, sys.stderr):  # What a terminal lacks letters for is shown as an escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    try:
        app.run(checked, flags_parser=_with_help(parse))
    except errors.UserError as error:
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
