"""Does jobs in this process, in several processes of this machine, or as tasks of a Ray cluster.

    for result in launching.run(make, jobs, launch, advance): …

`make` is pickled once and unpickled once in each process, so that what it opens when it is first called (a model, a
framework) stays open for the process's other jobs. How jobs are launched decides nothing but where they are done: what
`make` returns must depend on the job alone.

Ray (https://docs.ray.io) is imported where it is asked for, and nowhere else.
"""

import concurrent.futures.process
import contextlib
import dataclasses
import functools
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from absl import logging

from common import errors

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
Tick = Callable[[float], object]  # Of how much work was done since the last call.

_POLL = 0.2  # Seconds between looks at the workers' count.
_PATIENCE = 10.0  # Seconds that workers are given to come to their next tick, when all is to end.
# Read by libraries when they are loaded: the threads that compute in one operation.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
_RETRIES = 3  # Of a Ray task whose node or process is lost.

# Of a worker process: what it shares with the parent, [whether all are to stop, work done by worker 0, by worker 1, …],
# and its number. Each number has one writer, so nothing is locked: a worker that is killed would keep a lock for ever.
_shared: Any = None
_number = 0


class WorkerDiedError(Exception):
    """A worker process ended without a result: killed, out of memory, or crashed in a library."""


class _Stopped(Exception):
    """Raised inside a worker, in `tick`, when the parent asks it to stop."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """How jobs are launched.

    Attributes:
      workers: processes of this machine; with 1 everything runs in this process.
      num_tasks: number of calls that share the units (`units`), as tasks of an array job; 0 for one call alone.
      task: number of this one, 0…num_tasks - 1.
      ray: "" for none; "local" starts Ray on this machine; "auto" is the cluster that this machine belongs to; else the
        address of a cluster.
      unit_cpus: cores that a Ray task takes, which is the number of threads that it computes with, too.
      unit_gpus: GPUs that a Ray task takes; less than 1 where several share one.
    """

    workers: int = 1
    num_tasks: int = 0
    task: int = 0
    ray: str = ""
    unit_cpus: int = 1
    unit_gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise errors.UserError(f"workers must be at least 1. Received: {self.workers}")
        if not (0 <= self.task < self.num_tasks or self.task == self.num_tasks == 0):
            raise errors.UserError(
                f"task must be 0…num_tasks - 1. Received: task {self.task} with num_tasks {self.num_tasks}"
            )
        if self.ray and (self.workers > 1 or self.num_tasks):
            raise errors.UserError("ray must be given without workers and num_tasks. Received: both")
        if self.unit_cpus < 1 or self.unit_gpus < 0:
            raise errors.UserError(
                f"unit_cpus must be at least 1, unit_gpus at least 0. Received: {self.unit_cpus} and {self.unit_gpus:g}"
            )


HERE = Launch()  # In this process.


def available() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_ray() -> None:
    """Refuses to use Ray where it is not installed; does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise errors.UserError(
            "ray must be installed for --ray (pip install ray, the extra [ray]). Received: no module of that name"
        )


def run(
    make: Callable[[JobT, Tick], ResultT],
    jobs: Sequence[JobT],
    launch: Launch,
    advance: Callable[[float], object],
) -> Iterator[ResultT]:
    """Yields results as jobs end, in any order; of `launch` it looks at the launcher, not at the share of a task.

    Args:
      make: takes a job and `tick`, which it calls with each piece of work that it has done. Picklable, as jobs and
        results are, unless everything runs in this process.
      jobs: what to do.
      launch: where.
      advance: called in this process with the amount of work that came to be done.

    Raises:
      WorkerDiedError: when a process dies.
      BaseException: what a job raises, as it raised it; other jobs are stopped then.
    """
    results: Generator[ResultT, None, None]
    if launch.ray:
        results = _on_ray(make, jobs, launch, advance)
    elif min(launch.workers, len(jobs)) > 1:
        results = _in_processes(make, jobs, min(launch.workers, len(jobs)), advance)
    else:
        results = (make(job, advance) for job in jobs)
    with _ended_by_sigterm(), contextlib.closing(results):
        yield from results


def _in_processes(
    make: Callable[[JobT, Tick], ResultT], jobs: Sequence[JobT], workers: int, advance: Callable[[float], object]
) -> Generator[ResultT, None, None]:
    context = multiprocessing.get_context("spawn")  # Threads of decoders, HDF5 and frameworks do not survive a fork.
    shared, started = context.RawArray("d", 1 + workers), context.Value("i", 0)
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=start_worker, initargs=(shared, started, _environments(workers))
    )
    pickled = pickle.dumps(make)
    done, finished = 0.0, False
    try:
        waiting = {pool.submit(_run_pickled, pickled, job) for job in jobs}
        while waiting:
            ended, waiting = concurrent.futures.wait(waiting, _POLL, concurrent.futures.FIRST_COMPLETED)
            count = sum(shared[1:])
            advance(count - done)
            done = count
            for future in ended:
                yield future.result()
        finished = True
    except concurrent.futures.process.BrokenProcessPool:
        raise WorkerDiedError("a worker process died (killed, out of memory, or crashed in a library)") from None
    finally:
        shared[0] = 1
        if not finished:
            pool.shutdown(wait=False, cancel_futures=True)
            _end(set(multiprocessing.active_children()) - others)
        pool.shutdown()


def _end(processes: set[Any]) -> None:
    """Waits for processes that were asked to stop, and kills those that do not."""
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
    for process in processes:
        process.kill()


def _environments(workers: int) -> list[dict[str, str]]:
    """Returns what to add to the environment of each worker: its share of the cores, and its GPU where there are many.

    What a user has set for threads counts.
    """
    threads = {name: str(max(1, available() // workers)) for name in _THREADS if name not in os.environ}
    gpus = _gpus()
    if len(gpus) < 2:
        return [threads] * workers
    return [{**threads, "CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(workers)]


def _gpus() -> list[str]:
    """Returns the names of the GPUs that this process may see, as CUDA_VISIBLE_DEVICES has them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.split()


def start_worker(shared: Any, started: Any, environments: Sequence[dict[str, str]]) -> None:
    """Sets up a worker process, before it loads what the jobs need.

    Ctrl-C is the parent's to handle; SIGTERM ends a worker as it ends the command; and it ends when its parent is gone.

    Args:
      shared: see `_shared`.
      started: how many workers have started, which numbers them.
      environments: what to add to the environment of each worker, by its number.
    """
    global _shared, _number
    _shared = shared
    with started.get_lock():
        _number = started.value
        started.value += 1
    os.environ.update(environments[_number])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=functools.partial(_end_with, parent.sentinel), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Waits until the parent is gone, even by kill -9; otherwise workers would wait for work for ever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _run_pickled(pickled: bytes, job: Any) -> Any:
    try:
        return _unpickled(pickled)(job, _tick)
    except SystemExit as ended:  # By SIGTERM. The pool would take it for a result, and go on.
        os._exit(int(ended.code or 0))
    except Exception as error:
        carried = _portable(error)
        if carried is error:
            raise
        raise carried from error


def _portable(error: Exception) -> Exception:
    """Returns an error that can go from process to process: itself, or where it cannot, one that says the same.

    An error that cannot be unpickled would end the pool as if a process had died, without saying why.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@functools.lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> Callable[[Any, Tick], Any]:
    """Returns the same function for the same pickle, with all that it has opened."""
    return pickle.loads(pickled)


def _tick(amount: float) -> None:
    _shared[1 + _number] += amount
    if _shared[0]:
        raise _Stopped


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Has SIGTERM end the work as Ctrl-C does: what is half written is removed, and claims are given back."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


def _on_ray(
    make: Callable[[JobT, Tick], ResultT], jobs: Sequence[JobT], launch: Launch, advance: Callable[[float], object]
) -> Generator[ResultT, None, None]:
    """Runs each job as a Ray task; tasks whose node or process is lost are done again elsewhere, by Ray."""
    check_ray()
    import ray

    try:
        if ":" in launch.ray:  # Ray itself would try for minutes.
            host, _, port = launch.ray.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address=launch.ray, include_dashboard=False if launch.ray == "local" else None)
    except (ConnectionError, OSError, OverflowError, ValueError) as error:
        reason = errors.first_line(error)
        raise errors.UserError(f"ray must name a cluster that answers. Received: {launch.ray}: {reason}") from None
    _tell_gpus(ray.cluster_resources().get("GPU", 0), launch.unit_gpus)
    # Ray sets OMP_NUM_THREADS itself. `max_calls=0`: a process goes on to the next job with what it has opened, as
    # otherwise it would not where it has a GPU.
    task = ray.remote(
        num_cpus=launch.unit_cpus,
        num_gpus=launch.unit_gpus,
        max_retries=_RETRIES,
        max_calls=0,
        runtime_env={"env_vars": {name: str(launch.unit_cpus) for name in _THREADS}},
    )(_run_for_ray)
    waiting: list[Any] = []
    try:
        pickled = ray.put(ray.cloudpickle.dumps(make))  # It knows what a script defines, too.
        folder = os.getcwd()
        waiting = [task.remote(pickled, job, folder) for job in jobs]
        while waiting:
            (ended,), waiting = ray.wait(waiting)
            try:
                result, raised, amount = ray.get(ended)
            except ray.exceptions.RayError as lost:
                raise WorkerDiedError(f"a Ray task was lost: {errors.first_line(lost)}") from None
            if raised is not None:
                raise raised
            advance(amount)
            yield result
    finally:
        for left in waiting:
            ray.cancel(left, force=True)
        ray.shutdown()


def _tell_gpus(there: float, for_a_task: float) -> None:
    """Says that GPUs are not used: Ray hides them from tasks that ask for none, which then compute on a CPU."""
    if there and not for_a_task:
        logging.info("--unit_gpus=0: tasks of Ray do not see the cluster's %g GPUs.", there)


def _run_for_ray(pickled: bytes, job: Any, folder: str) -> tuple[Any, Exception | None, float]:
    """Returns a job's result, or what it raised, and how much work it told of; works in the driver's folder."""
    amounts: list[float] = []
    try:
        os.chdir(folder)
        return _unpickled(pickled)(job, amounts.append), None, sum(amounts)
    except Exception as error:
        return None, _portable(error), sum(amounts)
