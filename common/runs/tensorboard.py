"""TensorBoard events without a framework, through tensorboardX."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any


def _tensorboardx() -> Any:
    """Imports tensorboardX, which would load PyTorch too wherever that is installed; a Keras process must not."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # `import torch` fails, as if it were not installed.
    try:
        import tensorboardX
    finally:
        if absent:
            del sys.modules["torch"]
    return tensorboardX


@contextlib.contextmanager
def open_events(directory: pathlib.Path, step: int = 0) -> Iterator[Any]:
    """Yields a `tensorboardX.SummaryWriter`.

    Args:
      directory: of the event files.
      step: what an earlier try wrote from this step on is hidden.
    """
    with _tensorboardx().SummaryWriter(str(directory), purge_step=step or None) as writer:
        yield writer
