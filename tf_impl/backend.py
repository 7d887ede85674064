"""TensorFlow and Keras as this build needs them. The package imports this before any of its modules.

Keras chooses its backend once, when it is first imported, from KERAS_BACKEND or a user's keras.json: TensorFlow here.
A GPU's memory is taken as it is needed, not whole, so that another process can use the rest.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from common import errors

# TensorFlow says these on stderr at every start, before its own log level counts.
_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|port\.cc:\d+\] oneDNN custom operations are on"
    rb"|cpu_feature_guard|^To enable the following instructions:|Unable to register cu\w+ (factory|PjRt)"
    rb"|cudart_stub|Could not find cuda drivers"
)


def check_backend() -> None:
    """Raises a `UserError` if Keras was imported with another backend than TensorFlow."""
    keras = sys.modules.get("keras")
    backend = keras.config.backend() if keras else "tensorflow"
    if backend != "tensorflow":
        raise errors.UserError(
            "tf_impl needs Keras on TensorFlow: import it before Keras, or set KERAS_BACKEND=tensorflow. "
            f"Received: Keras is loaded with the backend {backend!r}"
        )


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back what is written to stderr, also by C++, and lets through all but the known lines."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not _CHATTER.search(line)))


check_backend()
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Warnings too: what they tell at start is for TensorFlow's authors.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
with _without_chatter():
    import keras  # noqa: F401
    import tensorflow  # noqa: F401
