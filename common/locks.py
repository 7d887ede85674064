"""One writer at a time for a folder."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from common import errors

try:
    import fcntl
except ImportError:  # Windows: nothing guards the folder there.
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Holds a folder against a second process; the lock ends with this one, however it ends.

    Raises:
      errors.UserError: where another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.UserError(
                f"A folder must be written by one run at a time. Received: {folder}, where one is at work"
            ) from None
        yield
    finally:
        os.close(descriptor)
