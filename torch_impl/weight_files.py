"""Files of weights that PyTorch wrote, as arrays."""

import pathlib
import re
from typing import Any

import torch

from common import errors
from common.models import published_weights


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a file of PyTorch's holds, by the names it has there; nothing that the file names is run.

    Args:
      path: of a file of `torch.save`.

    Returns:
      Name -> array; values that are no arrays as they are.

    Raises:
      errors.UserError: for a file that cannot be read, is cut short, or holds more than weights.
    """
    leaves = published_weights.flatten(load(path, "Weights"), ".")
    return {name: _array(leaf) if isinstance(leaf, torch.Tensor) else leaf for name, leaf in leaves.items()}


def load(path: pathlib.Path, what: str) -> Any:
    """Returns what a file of PyTorch's holds, on the CPU; nothing that the file names is run.

    Args:
      path: of a file of `torch.save`.
      what: it is, in the words of the refusal.

    Raises:
      errors.UserError: for a file that is cut short, or holds more than tensors.
      OSError: for one that cannot be read.
    """
    with path.open("rb"):
        pass  # What cannot be opened is no damage, which PyTorch also tells as an OSError.
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A hostile file can make the unpickler raise anything.
        raise errors.UserError(
            f"{what} must be a whole file of torch.save that weights_only=True can read. "
            f"Received: {path}: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """Returns why a file is refused, without PyTorch's advice to read it with `weights_only=False`."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return f"it names {named[1]}, which is no tensor"
    _, found, inner = str(error).partition("WeightsUnpickler error: ")
    if found:
        return inner.strip().partition("\n")[0]
    return f"cut short, or damaged ({type(error).__name__}: {errors.first_line(error)})"


def is_whole(tensor: torch.Tensor) -> bool:
    """Returns whether the file holds every value of a tensor of it.

    A sparse or quantized tensor holds others, one on the device "meta" none, and an expanded one, of any size, may have
    a single number in the file.
    """
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _array(tensor: torch.Tensor) -> Any:
    if not is_whole(tensor):
        return tensor
    tensor = tensor.detach()
    # NumPy has neither bfloat16 nor the floats of 8 bits; float32 holds them exactly.
    narrow = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    return (tensor.float() if narrow else tensor).numpy()
