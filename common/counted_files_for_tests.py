"""A file system of fsspec that counts: `counted://PATH` is the local file, and each fetch of one is written down.

COUNTED           file that gets a line "NAME BYTES" for each
COUNTED_SECONDS   that a fetch takes; unset: none
"""

import collections
import os
import pathlib
import time
from typing import Any

import fsspec
from fsspec.implementations import local


class CountedFiles(local.LocalFileSystem):
    """Local files under another name."""

    protocol = "counted"

    def get_file(self, path1: str, path2: str, callback: Any = None, **kwargs: Any) -> None:
        """Copies a file, slowly if that is asked for, and writes it down."""
        time.sleep(float(os.environ.get("COUNTED_SECONDS", "0")))
        super().get_file(path1, path2, callback=callback, **kwargs)
        with open(os.environ["COUNTED"], "a") as file:
            file.write(f"{pathlib.Path(path1).name} {pathlib.Path(path2).stat().st_size}\n")


def register() -> None:
    """Has fsspec know the protocol, in this process."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)


def fetched() -> dict[str, list[int]]:
    """Returns name -> bytes of each time that it was fetched, by all processes."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    path = pathlib.Path(os.environ["COUNTED"])
    for line in path.read_text().splitlines() if path.exists() else ():
        name, size = line.split()
        found[name].append(int(size))
    return dict(found)
