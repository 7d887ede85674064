"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: pathlib.Path, durable: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary name beside `path`; the file written there takes its place when all went well.

    Args:
      path: of the file; replaced if it exists.
      durable: whether it is whole after a power cut, too.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
