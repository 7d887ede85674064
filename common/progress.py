"""Progress bars of the long commands."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm


def bar(iterable: Iterable[Any] | None = None, **values: Any) -> Any:
    """Returns a progress bar that fits the terminal; in a log file it writes a line every half minute.

    Args:
      iterable: to go through, or None where `update` is called by hand.
      **values: of `tqdm.tqdm`, such as total, unit and desc.
    """
    interval = 0.5 if sys.stderr.isatty() else 30.0  # seconds
    return tqdm.tqdm(iterable, **{"dynamic_ncols": True, "mininterval": interval, **values})
