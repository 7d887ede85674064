"""HDF5 files from elsewhere: what is read of them stands in tables of `Column`, and is refused where it is not so.

Names, types, shapes and sizes are checked before any value is read. Text is of a fixed length in what is written here:
one flipped bit in HDF5's text of variable length can make the library loop for ever. Files of schema version 1 have
such text; a child process with a time limit reads it first.
"""

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from common import errors, files


@contextlib.contextmanager
def written_whole(path: pathlib.Path, durable: bool = False) -> Iterator[h5py.File]:
    """Yields a new file, which is written under its name, whole or not at all, when all went well.

    It is made in memory: HDF5 cannot close a file that the disk does not take, and the process crashes as it ends.

    Args:
      path: of the file; replaced if it exists.
      durable: whether it is whole after a power cut, too.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    files.write_bytes(path, image.getbuffer(), durable)


def open_for_reading(path: pathlib.Path) -> h5py.File:
    """Opens a file without HDF5's own lock, which network file systems refuse: files are written before they appear.

    Raises:
      OSError: for what is no HDF5 file, or cannot be read.
    """
    return h5py.File(path, "r", locking=False)


TEXT = h5py.string_dtype("utf-8")
SECONDS = 30  # That a child process has to read text, and one more for each file.


@dataclasses.dataclass(frozen=True)
class Column:
    """What a dataset must be.

    Attributes:
      dtype: of NumPy, or `TEXT`, which is read as an array of str objects.
      shape: a number for an axis that must have this size; a letter for one whose size all axes of that letter share.
      low: least value.
      high: greatest value, or a function that returns it from the sizes of the letters.
      nan: whether values may be NaN; infinite they never are.
    """

    dtype: Any
    shape: Sequence[int | str]
    low: float = -math.inf
    high: float | Callable[[Mapping[str, int]], float] = math.inf
    nan: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is text."""
        return h5py.check_string_dtype(np.dtype(self.dtype)) is not None  # NumPy's dtype of text equals any object's.

    def beyond(self, values: np.ndarray, sizes: Mapping[str, int]) -> tuple[np.ndarray, str]:
        """Returns where values are out of bounds, bool of their shape, and the rule that they break."""
        if self.is_text:
            return np.zeros(values.shape, bool), "text"
        high = self.high(sizes) if callable(self.high) else self.high
        fine = (values >= self.low) & (values <= high) & ~np.isinf(values)
        rule = "finite" if high == math.inf else f"at most {high:g}"
        if self.low > -math.inf:
            rule = f"at least {self.low:g} and finite" if high == math.inf else f"{self.low:g}…{high:g}"
        return (~fine & ~np.isnan(values), f"{rule} or NaN") if self.nan else (~fine, rule)


@contextlib.contextmanager
def opened(path: pathlib.Path, what: str) -> Iterator[h5py.File]:
    """Opens a file to read it.

    Args:
      path: of the file.
      what: it is, to begin a message with: "A shard".

    Raises:
      errors.UserError: for whatever goes wrong with the file inside the block.
    """
    try:
        with open_for_reading(path) as file:
            yield file
    except errors.UserError:
        raise
    except (
        Exception
    ) as error:  # A damaged file makes h5py raise nearly any of them: KeyError, RuntimeError, MemoryError…
        raise errors.UserError(f"{what} must be a readable HDF5 file. Received: {path}: {error}") from None


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset that lies in this very file: links and data elsewhere could name any file of the reader's.

    Args:
      file: open.
      name: of the dataset.

    Raises:
      errors.UserError: for a missing name, a group, a soft or external link, virtual or external data, and more data
        than the file has bytes.
    """
    link = file.get(name, getlink=True)
    item = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(item, h5py.Dataset):
        came = "nothing" if link is None else type(link).__name__ if item is None else "a group"
        raise errors.UserError(f"{name!r} must be a dataset of the file itself. Received: {came} in {file.filename}")
    if item.is_virtual or item.external:
        raise errors.UserError(
            f"Dataset {name!r} must lie in the file itself. Received: data elsewhere, {file.filename}"
        )
    if math.prod(item.shape or ()) * item.dtype.itemsize > os.path.getsize(file.filename):
        raise errors.UserError(
            f"Dataset {name!r} must be smaller than its file. "
            f"Received: {item.dtype} {list(item.shape)} in {file.filename} of {os.path.getsize(file.filename)} bytes"
        )
    return item


def read(file: h5py.File, table: Mapping[str, Column], sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Returns all datasets of a table, by name. Nothing is read before all types and shapes are right.

    Args:
      file: open.
      table: name -> what the dataset must be; its bounds are not checked here (see `check_bounds`).
      sizes: letter -> size that is known; receives those that the datasets have.

    Raises:
      errors.UserError: as `dataset`, for another type, and for sizes that are not those known or contradict each other.
    """
    items = {name: dataset(file, name) for name in table}
    for name, column in table.items():
        _check_type(items[name], name, column, sizes)
    return {name: _text(items[name]) if table[name].is_text else items[name][...] for name in table}


def check_bounds(
    columns: Mapping[str, np.ndarray], table: Mapping[str, Column], sizes: Mapping[str, int], origin: object
) -> None:
    """Refuses columns with a value out of bounds.

    Args:
      columns: name -> values.
      table: name -> what they must be.
      sizes: letter -> size.
      origin: where they come from, to end a message with.
    """
    for name, column in table.items():
        beyond, rule = column.beyond(columns[name], sizes)
        if beyond.any():
            place = tuple(np.argwhere(beyond)[0])
            raise errors.UserError(
                f"{name} must be {rule}. Received: {columns[name][place]} in row {place[0]} of {origin}"
            )


def _check_type(item: h5py.Dataset, name: str, column: Column, sizes: dict[str, int]) -> None:
    shape = item.shape or ()
    fits = len(shape) == len(column.shape) and all(
        (sizes.setdefault(size, came) if isinstance(size, str) else size) == came
        for size, came in zip(column.shape, shape, strict=True)
    )
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if not fits or is_text != column.is_text or not is_text and item.dtype != column.dtype:
        wanted = [f"{size}={sizes[size]}" if size in sizes else str(size) for size in column.shape]
        raise errors.UserError(
            f"Dataset {name!r} must be {'text' if column.is_text else np.dtype(column.dtype)} [{', '.join(wanted)}]. "
            f"Received: {item.dtype} {list(shape)} in {item.file.filename}"
        )


def write_text(file: h5py.File, name: str, values: Sequence[str] | str) -> None:
    """Writes a dataset of text, all values of one length in the file (UTF-8, filled up with zero bytes)."""
    encoded = np.char.encode(np.array(values, dtype=np.str_), "utf-8")
    dtype = h5py.string_dtype("utf-8", max(encoded.dtype.itemsize, 1))
    file.create_dataset(name, data=encoded.astype(dtype), dtype=dtype)


def _text(item: h5py.Dataset) -> np.ndarray:
    """Returns a dataset of text as str objects."""
    if h5py.check_string_dtype(item.dtype).length is None:  # Schema version 1.
        try_text([pathlib.Path(item.file.filename)])
        return item.asstr()[...]
    return np.char.decode(item[...], "utf-8").astype(object)


def integer_attribute(file: h5py.File, name: str) -> int | None:
    """Returns an attribute that is one integer; None for any other, and where there is none."""
    if name not in file.attrs:
        return None
    attribute = file.attrs.get_id(name)
    return int(file.attrs[name]) if attribute.shape == () and attribute.dtype.kind in "iu" else None


def text_attribute(file: h5py.File, name: str) -> str | None:
    """Returns an attribute of text, as files of schema version 1 have it; None for any other and for none."""
    if name not in file.attrs:
        return None
    attribute = file.attrs.get_id(name)
    if attribute.shape != () or h5py.check_string_dtype(attribute.dtype) is None:
        return None
    try_text([pathlib.Path(file.filename)])
    value = file.attrs[name]
    return value if isinstance(value, str) else value.decode("utf-8")


# Reads all text of the files named on its input and prints a letter for each; faults are for who reads them next.
_TRY = """
import sys, h5py
for path in sys.stdin.buffer.read().split(b"\\0"):
    try:
        with h5py.File(path, "r", locking=False) as file:
            list(file.attrs.items())
            file["video_id"][...]
    except Exception:
        pass
    print("x", end="", flush=True)
"""
_tried: set[tuple[pathlib.Path, int, int]] = set()


def try_text(paths: Sequence[pathlib.Path]) -> None:
    """Refuses files of schema version 1 whose text HDF5 cannot read in time, or not without crashing.

    A child process reads it, once for each file.

    Args:
      paths: of the files, which exist.
    """
    untried = {(path.absolute(), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths} - _tried
    if not untried:
        return
    ordered = sorted(untried)
    limit = SECONDS + len(ordered)
    names = b"\0".join(os.fsencode(path) for path, _, _ in ordered)
    try:
        done = subprocess.run([sys.executable, "-c", _TRY], input=names, capture_output=True, timeout=limit).stdout
    except subprocess.TimeoutExpired as error:
        done = error.stdout or b""
    if len(done) < len(ordered):
        raise errors.UserError(
            f"HDF5 must read the text of a file within {limit} seconds. "
            f"Received: {ordered[len(done)][0]}, where it does not"
        )
    _tried.update(untried)
