"""How a command begins and ends: it parses its flags; bad input and failing disks become one line and exit code 2."""

import atexit
import copy
import gc
import io
import logging as standard_logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

import common
from common import errors, launching, units


def run(main: Callable[[list[str]], int | None], positional: str | None = None) -> None:
    """Runs an entry script; bad input, failing disks, too little memory and lost workers end in one line and code 2.

    A task of an array job that leaves units to other tasks says so, and ends well.

    Args:
      main: takes what absl leaves of argv after the flags (the program's name first), and returns an exit code.
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
        sys.stdout.flush()  # Here, so that an error is reported like others.
        return code

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            raise errors.UserError(f"{error} (--helpfull lists every flag)") from None
        except SystemExit:  # Of --help and its variants, which absl ends with 1 as if they were mistakes.
            sys.exit(0)

    # A process that ends looks for garbage among all objects, which takes a second where TensorFlow is loaded; the
    # system takes back the memory anyway.
    atexit.register(gc.freeze)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):  # What a terminal lacks letters for is shown as an escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.INFO)
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_is_told)
    if sys.stderr.isatty():
        logging.get_absl_handler().setFormatter(_TerminalFormatter("%(asctime)s %(message)s", "%H:%M"))
    try:
        app.run(checked, flags_parser=_with_help(parse))
    except errors.UserError as error:
        _end(f"error: {error}", 2)
    except OSError as error:
        _end(f"error: Files must be readable and writable. Received: {' '.join(str(error).split())}", 2)
    except units.UnfinishedError as left:
        logging.info("%s", left)
    except launching.WorkerDiedError as died:
        _end(
            f"error: Workers must live until their jobs are done. Received: {died}; start again, with fewer --workers "
            "if memory ran out: finished files are kept",
            2,
        )
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _end(
            "error: What is computed at a time must fit into memory (fewer clips, --batch or --batch_size, or fewer "
            f"--workers). Received: {errors.first_line(error):.300}",
            2,
        )


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error says that memory does not suffice: Python's and NumPy's, PyTorch's or TensorFlow's."""
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError"):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # PyTorch's on a CPU.


def _is_told(record: standard_logging.LogRecord) -> bool:
    """Returns whether a line is for the user: ours, and what libraries warn of, but not what else they say."""
    return record.name == logging.get_absl_logger().name or record.levelno >= standard_logging.WARNING


class _TerminalFormatter(standard_logging.Formatter):
    """A line for people: the time, what is worse than information by name, the message. Files get absl's full form."""

    def format(self, record: standard_logging.LogRecord) -> str:
        if record.levelno <= standard_logging.INFO:
            return super().format(record)
        named = copy.copy(record)
        named.msg, named.args = f"{record.levelname.lower()}: {record.getMessage()}", ()
        return super().format(named)


class _VersionFlag(flags.BooleanFlag):
    """--version: prints name and version, and ends, whatever else is given."""

    def __init__(self) -> None:
        super().__init__("version", False, "Print the version and end.")

    def parse(self, argument: str | bool) -> None:
        if self._parse(argument):
            name = pathlib.Path(sys.argv[0]).name
            sys.stdout.write(f"{name} of interpreting-video-features {common.__version__}\n")
            sys.stdout.flush()
            sys.exit(0)


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
    """Absl adds --help and its variants inside its own parser only; this does the same for ours."""

    def parser(argv: list[str]) -> list[str]:
        app.define_help_flags()
        flags.DEFINE_flag(_VersionFlag())
        return parse(argv)

    return parser
