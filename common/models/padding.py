"""SAME padding as TensorFlow defines it, for any input size.

The output has ceil(size / stride) positions. The padding that this takes is split in two halves; where it is odd, the
larger half comes after the input (PyTorch's `padding=k//2` puts it on both sides, which shifts every stride-2 layer).
Source: TensorFlow's documentation of `tf.nn.convolution`, section "SAME".
"""


def same_output(size: int, stride: int) -> int:
    """Returns the number of output positions of a SAME layer: ceil(size / stride)."""
    return -(-size // stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns how many positions SAME adds before and after an axis.

    Args:
      size: length of the input axis, at least 1.
      kernel: length of the kernel along it.
      stride: step along it.
    """
    total = max((same_output(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
