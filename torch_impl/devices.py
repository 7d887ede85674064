"""Which device computes, and with which arithmetic."""

import torch

from common import errors, memory

DEVICES = ("auto", "cpu", "gpu")


def find_device(name: str) -> torch.device:
    """Returns the device called `name`, set to full float32 arithmetic.

    Args:
      name: "cpu", "gpu" (the first visible one; choose with CUDA_VISIBLE_DEVICES), or "auto" (a GPU if there is one).

    Raises:
      errors.UserError: for another name, or "gpu" where there is none.
    """
    errors.check_choice("device", name, DEVICES)
    if name == "gpu" and not torch.cuda.is_available():
        raise errors.UserError(
            "With device=gpu there must be a GPU that PyTorch sees. Received: none (torch.cuda.is_available())"
        )
    # TF32 rounds the factors of a float32 product to 10 bits, by default in cuDNN's convolutions: --precision decides.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")


def free_memory(device: torch.device) -> int:
    """Returns how many bytes are free on a device, or for this process where it is the CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()
