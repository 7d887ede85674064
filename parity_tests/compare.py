"""Compares an array of one framework with the other's: shape, dtype and finiteness first, then closeness."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far two arrays lie apart.

    Attributes:
      quantity: name of what was compared.
      max_abs: largest |torch - tf|; NaN where the arrays cannot be compared.
      relative: `max_abs` / max(1, largest |torch|), which a limit is for.
      where: index of the largest difference.
      torch_value: value there.
      tf_value: value there.
      fault: why the arrays cannot be compared (shape, dtype, values that are not finite), or "".
    """

    quantity: str
    max_abs: float = float("nan")
    relative: float = float("nan")
    where: tuple[int, ...] = ()
    torch_value: float = float("nan")
    tf_value: float = float("nan")
    fault: str = ""

    def within(self, limit: float) -> bool:
        """Returns whether the arrays agree to `limit`."""
        return not self.fault and self.relative <= limit

    def __str__(self) -> str:
        if self.fault:
            return f"{self.quantity}: {self.fault}"
        return (
            f"{self.quantity}: torch {self.torch_value:.9g} and tf {self.tf_value:.9g} at {self.where}, "
            f"absolute error {self.max_abs:.3g}, relative {self.relative:.3g}"
        )


def difference(quantity: str, torch_array: np.ndarray, tf_array: np.ndarray) -> Difference:
    """Returns how far two arrays lie apart; PyTorch's is the reference.

    Args:
      quantity: name of what is compared.
      torch_array: any shape and dtype.
      tf_array: the same shape and dtype, else that is the fault.
    """
    torch_array, tf_array = np.asarray(torch_array), np.asarray(tf_array)
    for what in ("shape", "dtype"):
        ours, theirs = getattr(torch_array, what), getattr(tf_array, what)
        if ours != theirs:
            return Difference(quantity, fault=f"{what} {ours} in torch and {theirs} in tf")
    for name, array in (("torch", torch_array), ("tf", tf_array)):
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            return Difference(
                quantity, fault=f"{len(bad)} values not finite in {name}, first {array[where]} at {where}"
            )
    if not torch_array.size:
        return Difference(quantity, 0.0, 0.0)
    first, second = torch_array.astype(np.float64), tf_array.astype(np.float64)
    gaps = np.abs(first - second)
    where = tuple(int(i) for i in np.unravel_index(gaps.argmax(), gaps.shape))
    largest = float(gaps[where])
    relative = largest / max(1.0, float(np.abs(first).max()))
    return Difference(quantity, largest, relative, where, float(first[where]), float(second[where]))


def assert_close(quantity: str, torch_array: np.ndarray, tf_array: np.ndarray, limit: float) -> None:
    """Fails, naming quantity, worst index, both values and both errors, where arrays differ by more than `limit`."""
    found = difference(quantity, torch_array, tf_array)
    if not found.within(limit):
        raise AssertionError(f"{found} (limit {limit:g})")


def assert_all_close(what: str, torch_arrays: dict, tf_arrays: dict, limit: float) -> None:
    """Compares dicts of arrays in PyTorch's order, so that the first of a chain that differs is the one named."""
    if torch_arrays.keys() != tf_arrays.keys():
        raise AssertionError(f"{what}: {sorted(torch_arrays)} in torch and {sorted(tf_arrays)} in tf")
    for name, array in torch_arrays.items():
        assert_close(f"{what} {name}", array, tf_arrays[name], limit)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields where each value in a JSON value is, and the value."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*at, key))
    else:
        yield at, value
