"""Several processes as one (`common/runs/processes.py`), named in TF_CONFIG; and several devices of each.

Both are one of TensorFlow's strategies, which replicates the variables. Of the clips of a batch that are a process's,
replica j of l takes those at the places j, j + l, j + 2 l … (`split`). Keras' `fit` is not involved: Keras 3 does not
train under several workers (github.com/keras-team/keras/issues/20585).
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
import tensorflow as tf

from common import errors, files
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
    addresses, index = _named()
    workers = len(addresses)
    gpus = tf.config.list_logical_devices("GPU") if device != "cpu" and workers < 2 else []
    if workers < 2 and len(gpus) < 2:
        yield ALONE
        return
    if workers < 2:
        with tf.distribute.MirroredStrategy([gpu.name for gpu in gpus]).scope():
            yield ALONE
        return
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")  # The strategy takes what it sees.
    tf.get_logger().setLevel("WARNING")  # It tells of every sum.
    _meet(addresses, index)
    kind = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=kind.AUTO if tf.config.list_physical_devices("GPU") else kind.RING,
        timeout_seconds=patience(),  # Without it, one that has lost the others waits for ever.
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        with strategy.scope():
            those = _Workers(strategy, options)
            yield those
            wait(those)  # None goes while another still needs it.
    except (tf.errors.OpError, RuntimeError) as error:
        raise errors.UserError(
            f"All {workers} processes must stay to the end. Received: one that was lost ({_reason(error):.200})"
        ) from None


def _reason(error: Exception) -> str:
    """Returns the line of an error that says what happened; of a graph's, it comes after where that was."""
    where = ("Graph execution error", "Detected at node", "  File")
    lines = (line for line in str(error).splitlines() if line.strip() and not line.startswith(where))
    return next(lines, errors.first_line(error))


class _Task(TypedDict):
    type: Literal["worker"]
    index: files.Count


class _Cluster(TypedDict):
    worker: Annotated[list[Annotated[str, msgspec.Meta(pattern=r"^.+:\d+$")]], msgspec.Meta(min_length=1)]


class _Config(TypedDict):
    """What is read of TF_CONFIG. All processes are workers: no chief, no parameter servers, no evaluator."""

    cluster: _Cluster
    task: _Task


def _named() -> tuple[list[str], int]:
    """Returns the addresses of the workers that TF_CONFIG names, and which of them this is; one where there is none."""
    text = os.environ.get("TF_CONFIG", "").strip()
    if text in ("", "{}"):
        return ["localhost:0"], 0
    values = files.parse_json(text, "TF_CONFIG", "the environment")
    known = {name: values[name] for name in ("cluster", "task") if name in values}
    config = files.convert(known, _Config, "TF_CONFIG", "the environment")
    workers, index = config["cluster"]["worker"], config["task"]["index"]
    ports = [_split(worker)[1] for worker in workers]
    if len(set(workers)) < len(workers) or index >= len(workers) or not all(0 < port < 1 << 16 for port in ports):
        raise errors.UserError(
            "TF_CONFIG must name each worker once, at a port below 65536, and by its index the one that this is. "
            f"Received: index {index} of {', '.join(workers)}"
        )
    return workers, index


def _meet(workers: list[str], index: int) -> None:
    """Waits until each worker answers at its address: for one that never comes, TensorFlow would wait an hour.

    Meanwhile this one answers at its own; then it makes room for TensorFlow, which does so from there on.
    """
    until = time.monotonic() + patience()
    both, (_, port) = socket.has_dualstack_ipv6(), _split(workers[index])
    try:
        server = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=len(workers)
        )
    except OSError as error:
        raise errors.UserError(
            f"TF_CONFIG must give this worker a free port of this machine. Received: {workers[index]}: {error}"
        ) from None
    with server:
        for worker in workers[:index] + workers[index + 1 :]:
            while not _answers(worker):
                if time.monotonic() > until:
                    raise errors.UserError(
                        f"All {len(workers)} workers must come within {patience()} s. Received: none at {worker}"
                    )
                time.sleep(0.1)


def _answers(worker: str) -> bool:
    try:
        socket.create_connection(_split(worker), 1).close()
        return True
    except OSError:
        return False


def _split(worker: str) -> tuple[str, int]:
    host, _, port = worker.rpartition(":")
    return host.strip("[]"), int(port)


class _Workers:
    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy, options: Any) -> None:
        self._strategy, self._options = strategy, options
        self.rank, self.count = strategy.cluster_resolver.task_id, num_workers(strategy)
        self._everywhere = tf.function(self._traced, autograph=False, reduce_retracing=True)

    def stack(self, array: np.ndarray) -> np.ndarray:
        """See `Processes.stack`."""
        values = self._everywhere(tf.constant(array[None], tf.float64))  # Of whole numbers up to 2^53, too.
        (first, *_) = self._strategy.experimental_local_results(values)
        return first.numpy()[:: num_local_replicas()].astype(array.dtype)  # Every replica of a process gives the same.

    def _traced(self, array: tf.Tensor) -> Any:
        return self._strategy.run(self._gathered, (array,))

    def _gathered(self, array: tf.Tensor) -> tf.Tensor:
        mine = tf.identity(array)  # On the replica's device, where the argument of a graph is on none.
        return tf.distribute.get_replica_context().all_gather(mine, axis=0, options=self._options)


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns how many processes a strategy is of."""
    resolver = strategy.cluster_resolver
    return len(resolver.cluster_spec().as_dict().get("worker", [0])) if resolver else 1


def num_local_replicas() -> int:
    """Returns how many replicas this process has."""
    strategy = tf.distribute.get_strategy()
    return strategy.num_replicas_in_sync // num_workers(strategy)


def _local(replica: int) -> int:
    return replica % num_local_replicas()


def split(*arrays: np.ndarray) -> tuple[Any, ...]:
    """Returns this process's part of a batch, `[N, …]` each, split among its replicas.

    A replica for which there is no clip gets zeros for one: oneDNN does not convolve no clips (see `present`).
    """

    def part(array: np.ndarray, replica: int) -> tf.Tensor:
        own = array[_local(replica) :: num_local_replicas()]
        return tf.constant(own if len(own) else np.zeros_like(array, shape=(1, *array.shape[1:])))

    return tuple(
        tf.distribute.get_strategy().experimental_distribute_values_from_function(
            lambda context, array=array: part(array, context.replica_id_in_sync_group)
        )
        for array in arrays
    )


def present(count: int) -> Any:
    """Returns, of `count` clips that were split, for each replica 1.0 if it has any, 0.0 if not, float64."""
    return tf.distribute.get_strategy().experimental_distribute_values_from_function(
        lambda context: tf.constant(float(_local(context.replica_id_in_sync_group) < count), tf.float64)
    )


def joined_rows(values: Any, count: int) -> np.ndarray:
    """Returns what the replicas of this process made of `split` arrays of `count` rows, `[N, …]`."""
    parts = [part.numpy() for part in tf.distribute.get_strategy().experimental_local_results(values)]
    whole = np.empty((count, *parts[0].shape[1:]), parts[0].dtype)
    for replica, part in enumerate(parts):
        rows = whole[replica :: len(parts)]
        rows[:] = part[: len(rows)]
    return whole


def places(count: tf.Tensor) -> tf.Tensor:
    """Returns the places, int64 [count], that a replica's clips have in the batch of all processes."""
    steps = tf.range(tf.cast(count, tf.int64), dtype=tf.int64)
    if not tf.distribute.has_strategy():
        return steps
    context = tf.distribute.get_replica_context()
    workers, local = num_workers(context.strategy), num_local_replicas()
    replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
    return replica // local + workers * (replica % local + local * steps)
