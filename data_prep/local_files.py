"""Opens files for decoders: they are given the bytes of one local file, and never its name.

FFmpeg takes some names for URLs or patterns ("http:host", "concat:a|b", "a%03d"), imageio looks into zip archives, and
OpenCV cannot open every name. Decoders also take an error in reading (a cable is pulled) for the end of the file, or
for damage; here it is remembered, and raised once they are done.
"""

import contextlib
import errno
import io
import pathlib
from collections.abc import Iterator
from typing import Any

# Errors that belong to the file itself and come again. Others (a missing file, too many open files, an error of the
# disk or the network) say nothing about it.
_OF_THE_FILE = frozenset((errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG))
_BLOCK = 1 << 20  # bytes


class LocalFile(io.RawIOBase):
    """A file open for reading, as PyAV and Pillow take it.

    Attributes:
      name: empty, so no decoder can take it for anything.
      error: the first error in reading; the decoder was given the end of the file instead.
    """

    name = ""

    def __init__(self, path: pathlib.Path) -> None:
        self.error: OSError | None = None
        self._file = path.open("rb")

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads up to as many bytes as the buffer holds and returns how many; 0 at the end of the file."""
        try:
            return self._file.readinto(buffer)
        except OSError as error:
            self.error = self.error or error
            return 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to a place and returns it; -1 where there is no such place, as FFmpeg expects."""
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:  # A place before the beginning.
                self.error = self.error or error
            return -1

    def tell(self) -> int:
        """Returns the place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[LocalFile]:
    """Opens a file for a decoder.

    Raises:
      OSError: where it cannot be opened, or was not read to the end that it has; whatever the decoder made of this.
    """
    with contextlib.closing(LocalFile(path)) as file:
        try:
            yield file
        finally:
            if file.error:
                raise file.error


def is_of_the_file(error: OSError) -> bool:
    """Returns whether an error in reading is the file's own, so that others can be read nevertheless.

    Decoders raise an `OSError` without a number for what they find in a file.
    """
    return error.errno is None or error.errno in _OF_THE_FILE


def check_readable(path: pathlib.Path) -> None:
    """Reads all of a file, for a decoder that opens files itself and does not say why it failed.

    Raises:
      OSError: where the file cannot be read to its end.
    """
    with path.open("rb") as file:
        while file.read(_BLOCK):
            pass
