"""Arrays to a GPU and back while it computes."""

import functools
from typing import Any

import numpy as np
import torch


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Returns an array as a tensor on a device.

    The copy to a GPU goes through pinned memory and a stream of its own: it waits for nothing, and only what uses the
    tensor waits for it. So the next batch arrives while the GPU still computes with the last one.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    copies, computation = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        moved = tensor.pin_memory().to(device, non_blocking=True)
    computation.wait_stream(copies)
    moved.record_stream(computation)  # Its memory is not the copies' to use again before the computation is through.
    return moved


def on_host(values: Any) -> Any:
    """Returns a tensor of a GPU as one of the CPU, which NumPy takes, and anything else as it is."""
    return values.cpu() if isinstance(values, torch.Tensor) else values


class OnItsWay:
    """A tensor that a GPU may still be computing; `np.asarray` waits for it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._arrived.synchronize()
        return np.array(self._host.numpy(), dtype, copy=copy)


def to_host(tensor: torch.Tensor) -> "np.ndarray | OnItsWay":
    """Returns what `np.asarray` turns into the tensor's values; on a GPU it is not waited for."""
    return OnItsWay(tensor) if tensor.is_cuda else tensor.numpy()


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
