"""Reads nested dicts of NumPy arrays out of a pickle, and runs nothing that the pickle names.

A pickle is a program: it names functions and calls them. Here the few names by which NumPy rebuilds an array stand for
the two classes below, which take bytes, a shape and a dtype of numbers; every other name is refused before it is looked
up, so neither a module is imported nor any function of NumPy called on what a stranger wrote.
"""

import pathlib
import pickle
import re
from typing import Any

import numpy as np

from common import errors
from common.models import published_weights


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the arrays of nested dicts by path, keys joined by "/".

    Args:
      path: of the file. Where an array could stand, a number or a text may, too.

    Raises:
      errors.UserError: for a file that cannot be read, is cut short, is no dict, or names anything but arrays.
    """
    try:
        with path.open("rb") as file:
            leaves = published_weights.flatten(_Unpickler(file).load(), "/")
        return {name: leaf.value if isinstance(leaf, _Array) else leaf for name, leaf in leaves.items()}
    except Exception as error:  # A hostile file can make the unpickler raise anything.
        raise errors.UserError(
            "A pickle of weights must hold nested dicts of NumPy arrays and nothing else. "
            f"Received: {path}: {type(error).__name__}: {str(error)[:200]}"
        ) from None


class _Dtype:
    """Stands for `numpy.dtype` of a plain number."""

    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", name):
            raise pickle.UnpicklingError(f"no dtype of numbers: {name!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for `numpy.ndarray`; its state is (version, shape, dtype, is Fortran's order, bytes)."""

    value: np.ndarray

    def __init__(self, *_: Any) -> None:
        """Takes the class, shape and typecode of an empty array, which NumPy writes first."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        # `frombuffer` and `reshape` refuse a shape that does not fit the bytes that are there.
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    """Stands for what pickles of protocol 5 name."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


class _Unpickler(pickle._Unpickler):
    # The one written in Python: in that of C a few bytes, the index of a memo, can claim all memory.

    # NumPy 2 moved its functions, so files of either version name them differently.
    _NAMES = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy.core.numeric", "_frombuffer"): _from_buffer,
        ("numpy._core.numeric", "_frombuffer"): _from_buffer,
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): "ndarray",  # Only ever an argument of `_reconstruct`.
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is named, which is no array")
        return self._NAMES[module, name]
