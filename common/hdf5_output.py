"""New HDF5 files, on disks that may be full.

HDF5 cannot close a file that it cannot write: closing fails with a RuntimeError, and the library tries again when the
process ends, which crashes. So it is given an output that takes everything. What the disk refuses is remembered, and
raised as the `OSError` that it is: by the next check, or once HDF5 is done with the file.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py


@contextlib.contextmanager
def created(path: pathlib.Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Creates an HDF5 file, which is closed at the end of the block.

    Args:
      path: of the file; its folder exists.

    Yields:
      The file, and a function that raises what the disk has refused so far.

    Raises:
      OSError: where the file cannot be written; at the latest at the end of the block.
    """
    with contextlib.closing(_Output(path)) as output:
        try:
            with h5py.File(output, "w") as file:
                yield file, output.check
        finally:
            output.check()  # It is why HDF5 failed, if it did.


class _Output:
    """A file as h5py's driver for Python objects takes it; after the first error it drops what is written."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None
        self._place = self._end = 0

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:  # h5py takes for a file what has this.
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        """Reads what HDF5 wrote before; zeros where the disk did not keep it."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))

        def read() -> None:
            self._file.seek(self._place)
            self._file.readinto(view)

        self._attempt(read)
        self._place += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")

        def write() -> None:
            self._file.seek(self._place)
            written = 0
            while written < len(view):  # One call may write less than it was given.
                written += self._file.write(view[written:])

        self._attempt(write)
        self._place += len(view)
        self._end = max(self._end, self._place)
        return len(view)

    def truncate(self, size: int) -> int:
        self._attempt(lambda: self._file.truncate(size))
        self._end = size
        return size

    def flush(self) -> None:
        pass  # There is no buffer.

    def _attempt(self, work: Callable[[], object]) -> None:
        """Does a piece of work unless an error came before; keeps an error that comes now."""
        if self._error is None:
            try:
                work()
            except OSError as error:
                self._error = error
