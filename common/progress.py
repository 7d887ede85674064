"""Progress of the long commands: a bar on a terminal, a line every half minute in a log file."""

import io
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_LINE = "{l_bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Lines(io.TextIOBase):
    """Makes lines of what tqdm draws: the state every half minute, and the last one.

    Args:
      stream: that the lines are written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written_at = time.monotonic()
        self._waiting = self._last = ""

    def write(self, text: str) -> int:
        """Takes what is to be drawn: a carriage return and a state, or, at the end, a newline."""
        state = text.strip().replace("%|", "%")
        if state and state.partition(" [")[0] != self._last:  # Else only the clock has gone on.
            self._waiting = state
        due = time.monotonic() - self._written_at >= _SECONDS_BETWEEN_LINES
        if self._waiting and (due or text == "\n"):
            self._stream.write(f"{self._waiting}\n")
            self._stream.flush()
            self._last = self._waiting.partition(" [")[0]
            self._waiting, self._written_at = "", time.monotonic()
        return len(text)


def bar(iterable: Iterable[Any] | None = None, **values: Any) -> Any:
    """Returns a progress bar on a terminal; elsewhere it writes a line every half minute, and one at the end.

    Args:
      iterable: to go through, or None where `update` is called by hand.
      **values: of `tqdm.tqdm`, such as total, unit and desc.
    """
    if sys.stderr.isatty():
        return tqdm.tqdm(iterable, **{"dynamic_ncols": True, "mininterval": 0.5, **values})
    lines = {"file": _Lines(sys.stderr), "mininterval": _SECONDS_BETWEEN_LINES, "ascii": True}
    form = values.get("bar_format", _LINE).replace("|{bar}|", "")
    return tqdm.tqdm(iterable, **{**lines, **values, "bar_format": form})
