"""Which device computes, and with which arithmetic."""

import ctypes
import functools
import os

import numpy as np
import tensorflow as tf

from common import errors, launching, memory, text
from common.models import convolution_check
from tf_impl import layers

DEVICES = ("auto", "cpu", "gpu")


def find_device(name: str, precision: str = "float32") -> str:
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
    gpus = tf.config.list_physical_devices("GPU")
    if name == "gpu" and not gpus:
        raise errors.UserError("With device=gpu there must be a GPU that TensorFlow sees. Received: none (tf.config)")
    device = "/CPU:0" if name == "cpu" or not gpus else "/GPU:0"
    on_gpu = "GPU" in device
    details = tf.config.experimental.get_device_details(gpus[0]) if on_gpu else {}
    convolution_check.check_tf32(precision, details.get("compute_capability"))
    # By default TF32 is on in convolutions and products.
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    if on_gpu and precision in convolution_check.LIMITS:
        _check_convolutions(device, precision)
    where = details.get("device_name", "a GPU") if on_gpu else f"the CPU, {text.counted(_num_threads(), 'thread')}"
    text.tell_once(f"TensorFlow {tf.__version__} in {precision} on {where}")
    return device


def _num_threads() -> int:
    """Returns how many threads an operation may use: as set, else as the environment says, else one a processor."""
    in_environment = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return (
        tf.config.threading.get_intra_op_parallelism_threads()
        or (int(in_environment) if in_environment.isdecimal() else 0)
        or launching.available()
    )


def make_deterministic() -> None:
    """Has every operation of this process give the same bits for the same input, at some cost in speed on a GPU."""
    tf.config.experimental.enable_op_determinism()


def free_memory(device: str) -> int:
    """Returns how many bytes are free on a device, or for this process where it is the CPU."""
    return memory.available_on_gpu() if "GPU" in device else memory.available()


def cudnn_version() -> int | None:
    """Returns the version of cuDNN as it counts them, 91002 for 9.10.2; None where there is none."""
    # TensorFlow knows which version it was built for, not which one it runs with: the library itself says.
    major = tf.sysconfig.get_build_info().get("cudnn_version", "")
    try:
        library = ctypes.CDLL(f"libcudnn.so.{major}")
        library.cudnnGetVersion.restype = ctypes.c_size_t
        return int(library.cudnnGetVersion())
    except (OSError, AttributeError):  # No such library, or not where the system looks for libraries.
        return None


@functools.cache  # Once a process.
def _check_convolutions(device: str, precision: str) -> None:
    convolution_check.check(functools.partial(_convolve, device), precision, cudnn_version())


def _convolve(
    device: str, clips: np.ndarray, kernel: np.ndarray, weights: np.ndarray, strides: tuple[int, ...], precision: str
) -> list[np.ndarray]:
    """See `convolution_check.Convolve`."""
    dtype = layers.DTYPES[precision].removeprefix("mixed_")
    with tf.device(device), tf.GradientTape(watch_accessed_variables=False) as tape:
        x, k, gradient = (tf.cast(array, dtype) for array in (clips, kernel, weights))
        tape.watch((x, k))
        y = layers.same_conv(x, k, strides)
        gradients = tape.gradient(y, (x, k), output_gradients=gradient)
    return [tf.cast(result, tf.float64).numpy() for result in (y, *gradients)]
