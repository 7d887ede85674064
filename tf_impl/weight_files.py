"""Files of weights that TensorFlow wrote, as arrays."""

import pathlib
from typing import Any

import tensorflow as tf

from common import errors


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a file of TensorFlow's holds, by the names it has there; nothing that the file names is run.

    Args:
      path: prefix of the files of a checkpoint.

    Returns:
      Name -> array; values that are no arrays as they are.

    Raises:
      errors.UserError: for a file that cannot be read, is cut short, or holds more than weights.
    """
    try:
        reader = tf.train.load_checkpoint(str(path))
        return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
    except Exception as error:  # Which class of error depends on what is wrong.
        raise errors.UserError(
            "Weights must be a whole checkpoint that tf.train.load_checkpoint can read. "
            f"Received: {path}: {type(error).__name__}: {str(error)[:200]}"
        ) from None
