"""HDF5 files: written whole or not at all, opened in one way, and refused where they are not what they should be."""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Sequence
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


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset that lies in this very file: links and data elsewhere could name any file of the reader's.

    Args:
      file: open.
      name: of the dataset.

    Raises:
      errors.UserError: for a missing name, a group, a soft or external link, and virtual or external data.
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
    return item


def column(file: h5py.File, name: str, dtype: Any, shape: Sequence[int | str]) -> np.ndarray:
    """Returns all of a dataset.

    Args:
      file: open.
      name: of the dataset.
      dtype: that it must have. With an `h5py.string_dtype`, an array of str objects is returned.
      shape: a number for an axis that must have this size, a letter for one that may have any.

    Raises:
      errors.UserError: as `dataset`, and for another type or shape.
    """
    found = dataset(file, name)
    # NumPy's dtype of text equals that of any other objects: h5py knows which is which.
    text, is_text = (h5py.check_string_dtype(each) is not None for each in (np.dtype(dtype), found.dtype))
    fits = len(shape) == found.ndim and all(
        isinstance(size, str) or size == came for size, came in zip(shape, found.shape, strict=True)
    )
    if found.dtype != dtype or text != is_text or not fits:
        raise errors.UserError(
            f"Dataset {name!r} must be {'text' if text else np.dtype(dtype)} [{', '.join(map(str, shape))}]. "
            f"Received: {found.dtype} {list(found.shape)} in {file.filename}"
        )
    return found.asstr()[...] if text else found[...]
