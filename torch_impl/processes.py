"""Several processes as one (`common/runs/processes.py`), started by `torchrun`."""

import contextlib
import datetime
import gc
import os
import secrets
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import distributed

from common import errors
from common.runs.processes import ALONE, Processes, patience, wait


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Yields the processes that this one works with: those that the launcher started, or itself alone.

    Args:
      device: "auto", "cpu" or "gpu".

    Raises:
      errors.UserError: where another process does not come or is lost on the way, the environment does not say which
        processes these are, or a machine has fewer GPUs than processes.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
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
        timeout = datetime.timedelta(seconds=patience())
        store, rank, count = _rendezvous(timeout)
        store = distributed.PrefixStore(_met(store, rank, count), store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
        group = _Group()
        yield group
        wait(group)  # None goes while another still needs it.
    except RuntimeError as error:
        if "gloo" not in str(error) and "NCCL" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        raise errors.UserError(
            f"All {os.environ['WORLD_SIZE']} processes must stay to the end. Received: one that was lost "
            f"({errors.first_line(error):.200})"
        ) from None
    finally:
        if distributed.is_initialized():
            gc.collect()  # What holds the group's works, as a wrapped model does, goes before the group.
            distributed.destroy_process_group()


def _rendezvous(timeout: datetime.timedelta) -> tuple[distributed.Store, int, int]:
    """Returns what the environment says: a store, this process's number, and how many there are."""
    try:
        return next(distributed.rendezvous("env://", timeout=timeout))
    except ValueError as error:
        raise errors.UserError(
            "Processes must be started by torchrun, or with what it sets: WORLD_SIZE, RANK, MASTER_ADDR and "
            f"MASTER_PORT. Received: {errors.first_line(error)}"
        ) from None


def _met(store: distributed.Store, rank: int, count: int) -> str:
    """Returns a name that only the processes that are alive now know, for what they keep in a store.

    A launcher's store may be that of processes that were lost (PyTorch 2.13), with their addresses in it. So the first
    process draws a name, and answers each other one, which asks again until it has asked the one that is alive.
    """
    mine = secrets.token_hex(8)
    if rank == 0:
        store.set("name", mine)
        for other in range(1, count):
            asker = store.get(f"{mine}/asker/{other}").decode()
            store.set(f"{mine}/answer/{asker}", "yes")
        return mine
    until = time.monotonic() + patience()
    while True:
        name = store.get("name").decode()
        store.set(f"{name}/asker/{rank}", mine)
        try:
            store.wait([f"{name}/answer/{mine}"], datetime.timedelta(seconds=2))
            return name
        except distributed.DistStoreError:
            if time.monotonic() > until:
                raise


class _Group:
    def __init__(self) -> None:
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def stack(self, array: np.ndarray) -> np.ndarray:
        """See `Processes.stack`."""
        given = torch.from_numpy(np.array(array, order="C"))
        found = [torch.empty_like(given) for _ in range(self.count)]
        distributed.all_gather(found, given)
        return torch.stack(found).numpy()
