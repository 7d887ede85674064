"""Several processes as one (`common/runs/processes.py`), started by `torchrun`."""

import contextlib
import datetime
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import distributed

from common import errors
from common.runs.processes import ALONE, Processes, patience


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Yields the processes that this one works with: those that the launcher started, or itself alone.

    Args:
      device: "auto", "cpu" or "gpu".

    Raises:
      errors.UserError: where another process is lost on the way, or a machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        # Each process takes the GPU of its number on its machine.
        place, backend = int(os.environ.get("LOCAL_RANK", "0")), "cpu:gloo,cuda:nccl"
        if place >= torch.cuda.device_count():
            raise errors.UserError(
                f"There must be a GPU for each process of a machine. Received: {torch.cuda.device_count()} GPU(s), "
                f"process {place}"
            )
        torch.cuda.set_device(place)
    try:
        distributed.init_process_group(backend, timeout=datetime.timedelta(seconds=patience()))
        yield _Group()
    except RuntimeError as error:
        if "gloo" not in str(error) and "NCCL" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        raise errors.UserError(
            f"All {os.environ['WORLD_SIZE']} processes must stay to the end. Received: one that was lost "
            f"({str(error).splitlines()[0]:.200})"
        ) from None
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


class _Group:
    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def stack(self, array: np.ndarray) -> np.ndarray:
        """See `Processes.stack`."""
        given = torch.from_numpy(np.array(array, order="C"))
        found = [torch.empty_like(given) for _ in range(self.count)]
        distributed.all_gather(found, given)
        return torch.stack(found).numpy()
