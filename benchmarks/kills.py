"""Kills every command again and again, starts it again, and compares what it wrote with an uninterrupted call's.

    python benchmarks/kills.py --kills=20

Each command is killed at that many moments that are uniform over the time it takes, and just before as many of its
operations on files, drawn at random: there are the moments that matter, and they are short. Then it is called again,
and must end with exit code 0 and every byte of an uninterrupted call, but for TensorBoard's events and how long
training took; nothing else may be left. A process that has loaded PyTorch forks for each call, so that kills fall in
the work, not in the loading. `make kill` is this, in a few minutes. Ends with code 1 where anything differs.
"""

import importlib
import os
import pathlib
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import errors, progress, tables
from common.command_line import commands, faults_for_tests
from common.tables import Column, Table

_KILLS = flags.DEFINE_integer("kills", 20, "Of each command, of either kind.", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "Commands to kill. Unset: all.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.", lower_bound=0)

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CPU = ("--device=cpu",)
_RUN = ("--run=run", *_CPU)
_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Command(NamedTuple):
    """A command in the folder that the commands before it worked in."""

    script: str
    flags: tuple[str, ...]


# One process, which makes the files itself; data_prep/interruption_test.py kills workers.
_PREPARED = ("--dataset=synthetic", "--out=clips", "--clips_per_class=1,1,1", "--clips_per_shard=4", "--workers=1")
_TRAINED = ("--preset=conv_lstm_synthetic", "--clips=clips", "--epochs=3", "--batch_size=4", "--filters=4", "--resume")
_COMMANDS = {
    "prepare": _Command("data_prep/prepare.py", (*_PREPARED, "--frames=8")),
    "train": _Command("torch_impl/train.py", (*_TRAINED, "--checkpoint_minutes=0", *_RUN)),
    "evaluate": _Command("torch_impl/evaluate.py", _RUN),
    "explain": _Command("torch_impl/explain.py", (*_RUN, "--limit=6", "--batch=2", "--iterations=5")),
    "evidence": _Command("torch_impl/evidence.py", (*_RUN, "--limit=2", "--mask_limit=0")),
    "report": _Command(
        "common/report.py",
        (
            "--explanations=run/explanations.h5",
            "--evaluations=run/evaluation.json",
            "--evidence=run/evidence.json",
            "--figures=1",
        ),
    ),
}


class _Ended(NamedTuple):
    """How a call ended: its exit status, -9 where it was killed, and what it wrote to stderr."""

    code: int
    stderr: str
    seconds: float


def _call(
    command: _Command, folder: pathlib.Path, kill_after: float = 0.0, watch: Callable[[str, Any], None] | None = None
) -> _Ended:
    """Runs a command in a fork of this process, in a session of its own.

    Args:
      command: what to run.
      folder: to run it in.
      kill_after: seconds until it and its workers are killed; 0 for never.
      watch: of every audit event.
    """
    log = folder.with_suffix(".stderr")
    log.touch()  # The child may not live long enough.
    started = time.monotonic()
    child = os.fork()
    if not child:
        _be(command, folder, log, watch)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if kill_after and time.monotonic() - started > kill_after:
            os.kill(child, signal.SIGKILL)  # Its workers follow below.
        time.sleep(0.002)
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
        _kill_workers(child)
    return _Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), time.monotonic() - started)


def _kill_workers(group: int) -> None:
    """Kills what is left of a group, as the system does with a job, and waits until it is gone."""
    for _ in range(1000):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def _be(
    command: _Command, folder: pathlib.Path, log: pathlib.Path, watch: Callable[[str, Any], None] | None
) -> NoReturn:
    """Becomes a command, and never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for stream, path in ((1, os.devnull), (2, str(log))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        for name in (_KILLS.name, _ONLY.name, _SEED.name, "version"):  # The command defines its own.
            delattr(flags.FLAGS, name)
        sys.argv = [command.script, *command.flags]
        if watch:
            sys.addaudithook(watch)
        runpy.run_path(str(_ROOT / command.script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.stderr.write(f"Traceback: {error!r}\n")
    finally:
        os._exit(code)


def _counting(folder: pathlib.Path, at: int, then: Callable[[int], object]) -> Callable[[str, Any], None]:
    """Returns an audit hook that calls `then` before every operation on files of a folder from number `at` on."""
    count = 0

    def watch(event: str, arguments: Any) -> None:
        nonlocal count
        if event not in _EVENTS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not arguments[2] & _WRITING:
            return
        if pathlib.Path(os.path.abspath(os.fsdecode(arguments[0]))).is_relative_to(folder):
            count += 1
            if count >= at:
                then(count)

    return watch


def _operations(command: _Command, before: pathlib.Path, folder: pathlib.Path) -> int:
    """Returns how many operations on files a command has."""
    shutil.copytree(before, folder)
    counted = folder.with_suffix(".count")
    descriptor = os.open(counted, os.O_WRONLY | os.O_CREAT)
    _call(command, folder, watch=_counting(folder, 1, lambda count: os.pwrite(descriptor, b"%8d" % count, 0)))
    os.close(descriptor)
    return int(counted.read_text())


def _try(name: str, before: pathlib.Path, work: pathlib.Path, stream: random.Random) -> tuple[Any, ...]:
    """Kills one command and returns its row of the table."""
    command = _COMMANDS[name]
    whole = pathlib.Path(shutil.copytree(before, work / "whole"))
    ended = _call(command, whole)
    if ended.code:
        raise errors.UserError(f"{name} must end well without kills. Received: {ended.stderr[-500:]}")
    expected = faults_for_tests.contents(whole)
    operations = _operations(command, before, work / "counted")
    killed = same = 0
    faults = []
    for number in progress.bar(range(2 * _KILLS.value), desc=name, unit="kill"):
        folder = pathlib.Path(shutil.copytree(before, work / str(number)))
        if number < _KILLS.value:
            first = _call(command, folder, kill_after=stream.uniform(0, ended.seconds))
        else:
            at = stream.randint(1, operations)
            first = _call(
                command, folder, watch=_counting(folder, at, lambda _: os.killpg(os.getpid(), signal.SIGKILL))
            )
        killed += first.code == -signal.SIGKILL
        again = _call(command, folder)
        found = faults_for_tests.contents(folder)
        different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key, 0))
        if again.code or different or "Traceback" in first.stderr:
            faults.append(f"{name}, kill {number}: code {again.code}, {different[:5]}, {again.stderr[-300:]}")
        else:
            same += 1
            shutil.rmtree(folder)
    for line in faults:
        sys.stderr.write(f"{line}\n")
    return name, operations, ended.seconds, 2 * _KILLS.value, killed, same


def main(_: list[str]) -> int:
    """Kills the commands that the flags name, prints a table, and returns 1 where something differs."""
    unknown = set(_ONLY.value) - set(_COMMANDS)
    if unknown:
        raise errors.UserError(f"--only must be of {', '.join(_COMMANDS)}. Received: {', '.join(sorted(unknown))}")
    for module in (
        "torch_impl.explanation",
        "torch_impl.evaluation",
        "common.reporting.building",
        "data_prep.building",
    ):
        importlib.import_module(module)
    stream = random.Random(_SEED.value)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        before = pathlib.Path(name, "before")
        before.mkdir()
        for command in _COMMANDS:
            work = pathlib.Path(name, command)
            work.mkdir()
            if not _ONLY.value or command in _ONLY.value:
                rows.append(_try(command, before, work, stream))
            _call(_COMMANDS[command], before)
    columns = ("command", "operations on files", "seconds", "calls", "killed", "same bytes after the second call")
    forms = ("", "d", ".1f", "d", "d", "d")
    table = Table([Column(title, form) for title, form in zip(columns, forms, strict=True)], rows)
    sys.stdout.write(tables.write_text(table) + "\n")
    return int(any(row[-1] != row[-3] for row in rows))


if __name__ == "__main__":
    commands.run(main)
