"""Which device computes, and with which arithmetic."""

import tensorflow as tf

from common import errors, memory

DEVICES = ("auto", "cpu", "gpu")


def find_device(name: str) -> str:
    """Returns the device called `name`, set to full float32 arithmetic.

    Args:
      name: "cpu", "gpu" (the first visible one; choose with CUDA_VISIBLE_DEVICES), or "auto" (a GPU if there is one).

    Raises:
      errors.UserError: for another name, or "gpu" where there is none.
    """
    errors.check_choice("device", name, DEVICES)
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if name == "gpu" and not has_gpu:
        raise errors.UserError("With device=gpu there must be a GPU that TensorFlow sees. Received: none (tf.config)")
    # TF32 rounds the factors of a float32 product to 10 bits, by default in TensorFlow: --precision decides.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return "/CPU:0" if name == "cpu" or not has_gpu else "/GPU:0"


def free_memory(device: str) -> int:
    """Returns how many bytes are free on a device, or for this process where it is the CPU."""
    return memory.available_on_gpu() if "GPU" in device else memory.available()
