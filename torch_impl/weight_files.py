"""Files of weights that PyTorch wrote, as arrays."""

import pathlib
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
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A hostile file can make the unpickler raise anything.
        raise errors.UserError(
            "Weights must be a whole file of torch.save that weights_only=True can read. "
            f"Received: {path}: {type(error).__name__}: {str(error)[:200]}"
        ) from None
    leaves = published_weights.flatten(tree, ".")
    return {name: _array(leaf) if isinstance(leaf, torch.Tensor) else leaf for name, leaf in leaves.items()}


def _array(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach()
    # NumPy has no bfloat16, which float32 holds exactly.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
