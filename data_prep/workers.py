"""Runs jobs in processes: counts what they do while they do it, stops at once when asked, leaves no process behind."""

import concurrent.futures.process
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import av
import cv2

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
Tick = Callable[[], None]
_POLL = 0.2  # seconds between looks at the workers' count

# Shared with the parent: ticks of all workers, and whether they are to stop. Set in worker processes alone.
_shared: Any = None


class WorkerDiedError(Exception):
    """A worker process ended without a result: killed, out of memory, or crashed in a decoder."""


class _Stopped(Exception):
    """Raised inside a worker, in `tick`, when the parent asks it to stop."""


def run_jobs(
    make: Callable[[JobT, Tick], ResultT],
    jobs: Sequence[JobT],
    workers: int,
    advance: Callable[[int], Any],
) -> Iterator[ResultT]:
    """Yields results as jobs end, in any order.

    Args:
      make: a module-level function that takes a job and `tick`, which it calls once per piece of work.
      jobs: picklable.
      workers: processes; with 1, or a single job, everything runs in this process.
      advance: called in this process with the number of new ticks.

    Raises:
      WorkerDiedError: when a worker process dies.
    """
    if min(workers, len(jobs)) <= 1:
        with one_thread():
            yield from (make(job, lambda: advance(1)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # Threads of decoders and HDF5 do not survive a fork.
    shared = context.Array("q", [0, 0])
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, initializer=start_worker, initargs=(shared,)
    )
    done = 0
    try:
        waiting = {pool.submit(_run, make, job) for job in jobs}
        while waiting:
            ended, waiting = concurrent.futures.wait(waiting, _POLL, concurrent.futures.FIRST_COMPLETED)
            advance(shared[0] - done)
            done = shared[0]
            for future in ended:
                yield future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise WorkerDiedError("a worker process died (killed, out of memory, or crashed in a decoder)") from None
    finally:
        shared[1] = 1
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keeps OpenCV to one thread, and it and FFmpeg silent, for a while."""
    threads, levels = cv2.getNumThreads(), (av.logging.get_level(), cv2.utils.logging.getLogLevel())
    _be_modest()
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        av.logging.set_level(levels[0])
        cv2.utils.logging.setLogLevel(levels[1])


def available() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_worker(shared: Any = None) -> None:
    """Sets up a worker process: Ctrl-C is the parent's to handle, and a worker ends when its parent is gone."""
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _be_modest()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=functools.partial(_end_with, parent.sentinel), daemon=True).start()


def _be_modest() -> None:
    cv2.setNumThreads(0)
    av.logging.set_level(None)  # What FFmpeg and OpenCV would say about odd files, we say in notes and failures.
    cv2.utils.logging.setLogLevel(0)


def _end_with(sentinel: int) -> None:
    """Waits until the parent is gone, even by kill -9; otherwise workers would wait for work for ever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _run(make: Callable[[JobT, Tick], ResultT], job: JobT) -> ResultT:
    return make(job, _tick)


def _tick() -> None:
    with _shared.get_lock():
        _shared[0] += 1
    if _shared[1]:
        raise _Stopped
