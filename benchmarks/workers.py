"""Processes that are one framework each and take turns, so that what else the machine does falls on all of them.

A worker is the benchmark's own script with --worker and its options as JSON. It makes its tasks, says that it is ready,
and runs the task named on each line of its input; what it answers are lines of JSON.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, cast

from absl import flags

from common import errors

WORKER = flags.DEFINE_string("worker", None, "Used by the command itself: be one framework, with JSON options.")


class Worker:
    """A process that works when asked and says how long it took; once made, it is ready.

    Args:
      script: to run; it calls `serve` where `WORKER` is set.
      framework: that it is, for messages.
      options: JSON-able.

    Raises:
      errors.UserError: what its own making raised, or if it ended.
    """

    def __init__(self, script: str, framework: str, options: Mapping[str, Any]) -> None:
        self._framework = framework
        self._process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(script).resolve()), f"--worker={json.dumps(options)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Both are pipes, so neither is None.
        self._input, self._output = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self._answer()

    def seconds(self, task: str) -> float:
        """Runs a task once and returns how long it took."""
        return self.run(task)[0]

    def run(self, task: str) -> tuple[float, Any]:
        """Runs a task once; returns how long it took, and what it returned if that is a list, else None."""
        self._input.write(task + "\n")
        self._input.flush()
        answer = self._answer()
        return answer["seconds"], answer["result"]

    def close(self) -> None:
        """Ends the process."""
        self._input.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._output.readline()
        if not line:
            raise errors.UserError(
                f"The process of {self._framework} must answer. Received: it ended with code {self._process.wait()}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise errors.UserError(f"{self._framework}: {answer['error']}")
        return answer


@contextlib.contextmanager
def started(script: str, options: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Worker]]:
    """Yields framework -> its worker, from framework -> its options; ends them all, whatever happens."""
    with contextlib.ExitStack() as stack:
        yield {
            framework: stack.enter_context(contextlib.closing(Worker(script, framework, values)))
            for framework, values in options.items()
        }


def serve(
    make_tasks: Callable[[], Mapping[str, Callable[[], object]]], clock: Callable[[], float] = time.perf_counter
) -> None:
    """Is a worker: makes the tasks, then runs those that are asked for until the input ends."""
    try:
        tasks = make_tasks()
    except errors.UserError as error:
        _say({"error": str(error)})
        return
    _say({})
    for line in sys.stdin:
        start = clock()
        result = tasks[line.strip()]()
        _say({"seconds": clock() - start, "result": result if isinstance(result, list) else None})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
