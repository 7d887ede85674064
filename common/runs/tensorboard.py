"""TensorBoard events without a framework, through tensorboardX.

Its `SummaryWriter` hands events to a thread, which a full disk ends, and then waits for it for ever. Here they are
written where they are added, so that what goes wrong is raised there.
"""

import contextlib
import pathlib
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from common import files

_SECONDS_BETWEEN_FLUSHES = 120.0
_NOT_IN_TAGS = re.compile(r"[^-/\w.]")


def _tensorboardx() -> Any:
    """Imports tensorboardX, which would load PyTorch too wherever that is installed; a Keras process must not."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # `import torch` fails, as if it were not installed.
    try:
        import tensorboardX.proto.event_pb2
        import tensorboardX.summary
    finally:
        if absent:
            del sys.modules["torch"]
    return tensorboardX


class Events:
    """An event file in the making."""

    def __init__(self, directory: pathlib.Path, step: int) -> None:
        self._library = _tensorboardx()
        self._event = self._library.proto.event_pb2.Event
        # TensorBoard wants time and host; these alone two processes could share, and somebody could guess.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{secrets.token_hex(4)}"
        self._file = self._library.RecordWriter(str(directory / name))
        self._flushed_at = time.monotonic()
        self._add(file_version="brain.Event:2")
        if step:
            start = self._library.proto.event_pb2.SessionLog.START
            self._add(step=step, session_log=self._library.proto.event_pb2.SessionLog(status=start))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Adds a number."""
        self._add(step=step, summary=self._library.summary.scalar(_tag(name), value))

    def add_image(self, name: str, image: np.ndarray) -> None:
        """Adds a picture, uint8 [h, w, 3]."""
        self._add(summary=self._library.summary.image(_tag(name), image, dataformats="HWC"))

    def _add(self, **values: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **values).SerializeToString())
        if time.monotonic() - self._flushed_at > _SECONDS_BETWEEN_FLUSHES:
            self._file.flush()
            self._flushed_at = time.monotonic()

    def close(self) -> None:
        """Writes what is left, to the disk."""
        try:
            self._file.flush()
        finally:
            self._file.close()


def _tag(name: str) -> str:
    """Returns a name with what tags may not hold replaced: tensorboardX would do so too, with a line for each."""
    return _NOT_IN_TAGS.sub("_", name).lstrip("/")


@contextlib.contextmanager
def open_events(directory: pathlib.Path, step: int = 0) -> Iterator[Events]:
    """Yields an event file to add to.

    Args:
      directory: of the event files; made if it is not there.
      step: what an earlier try wrote from this step on is hidden.

    Raises:
      errors.UserError: for a directory that is a link.
      OSError: where it cannot be written, here or when something is added.
    """
    files.refuse_link(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Events(directory, step)) as events:
        yield events
