"""Which device computes, and with which arithmetic."""

import functools
import os

import numpy as np
import torch

from common import errors, memory, text
from common.models import convolution_check
from torch_impl import layers

DEVICES = ("auto", "cpu", "gpu")


def find_device(name: str, precision: str = "float32") -> torch.device:
    """Returns the device called `name`, set to the arithmetic of a precision; on a GPU, convolutions are checked first.

    Args:
      name: "cpu", "gpu" (the first visible one; choose with CUDA_VISIBLE_DEVICES), or "auto" (a GPU if there is one).
      precision: one of `configs.PRECISIONS`. "tf32" rounds the factors of a float32 product to 10 bits; every other
        one forbids that.

    Raises:
      errors.UserError: for another name, "gpu" where there is none, "tf32" where no GPU has it, or a GPU whose
        convolutions are wrong (see `convolution_check`).
    """
    errors.check_choice("device", name, DEVICES)
    if name == "gpu" and not torch.cuda.is_available():
        raise errors.UserError(
            "With device=gpu there must be a GPU that PyTorch sees. Received: none (torch.cuda.is_available())"
        )
    device = torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")
    convolution_check.check_tf32(precision, torch.cuda.get_device_capability() if device.type == "cuda" else None)
    # By default TF32 is on in cuDNN's convolutions.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if device.type == "cuda":
        # The fastest algorithm for each shape, found by trying; which one that is may differ from run to run.
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        if precision in convolution_check.LIMITS:
            _check_convolutions(device, precision)
    threads = text.counted(torch.get_num_threads(), "thread")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU, {threads}"
    text.tell_once(f"PyTorch {torch.__version__} in {precision} on {where}")
    return device


def make_deterministic() -> None:
    """Has every operation of this process give the same bits for the same input, at some cost in speed on a GPU."""
    # Read by cuBLAS when it starts: with a workspace of its own for each stream, its sums have one order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def free_memory(device: torch.device) -> int:
    """Returns how many bytes are free on a device, or for this process where it is the CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()


def cudnn_version() -> int | None:
    """Returns the version of cuDNN as it counts them, 91002 for 9.10.2; None where there is none."""
    return torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None


@functools.cache  # Once a process.
def _check_convolutions(device: torch.device, precision: str) -> None:
    convolution_check.check(functools.partial(_convolve, device), precision, cudnn_version())


def _convolve(
    device: torch.device,
    clips: np.ndarray,
    kernel: np.ndarray,
    weights: np.ndarray,
    strides: tuple[int, ...],
    precision: str,
) -> list[np.ndarray]:
    """See `convolution_check.Convolve`; in the memory layout of the models."""
    _, dtype = layers.DTYPES[precision]
    x, gradient = (layers.to_native(torch.from_numpy(array).to(device, dtype)) for array in (clips, weights))
    kernel = np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2))
    x, k = x.requires_grad_(), torch.from_numpy(kernel).to(device, dtype).requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        y = layers.same_conv(x, k, strides)
        gradients = torch.autograd.grad(y, (x, k), gradient)
    results = (
        y.detach().permute(0, 2, 3, 4, 1),
        gradients[0].permute(0, 2, 3, 4, 1),
        gradients[1].permute(2, 3, 4, 1, 0),
    )
    return [result.double().cpu().numpy() for result in results]
