"""How a command begins and ends: flags are parsed, and what a user or a disk did wrong is one line and exit code 2."""

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from common import errors


def run(main: Callable[[list[str]], int | None], positional: str | None = None) -> None:
    """Runs an entry script: `main` returns an exit code; bad input and failing disks end in one line and code 2.

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
        code = main(argv)
        sys.stdout.flush()  # Here, so that an error is told like others.
        return code

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            raise errors.UserError(f"{error} (--helpfull lists every flag)") from None

    _open_streams()
    for stream in (sys.stdout, sys.stderr):  # What a terminal lacks letters for is shown as an escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    try:
        app.run(checked, flags_parser=_with_help(parse))
    except errors.UserError as error:
        _end(f"error: {error}", 2)
    except OSError as error:
        _end(f"error: Files must be readable and writable. Received: {' '.join(str(error).split())}", 2)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _open_streams() -> None:
    """Opens what the process was started without: what is printed would be an error, and files would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _end(line: str, code: int) -> NoReturn:
    """Ends the process with a line on stderr, and with what was printed before, as far as it can be written."""
    try:
        sys.stdout.flush()
    except OSError:  # The interpreter would try again at the end, and write a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stderr.write(f"{line}\n")
    sys.exit(code)


def _with_help(parse: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    """Absl adds --help and its kin inside its own parser only; this does the same for ours."""

    def parser(argv: list[str]) -> list[str]:
        app.define_help_flags()
        return parse(argv)

    return parser
