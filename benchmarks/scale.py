"""What a second worker brings, on two cores: one process of two threads against two of one thread, side by side.

    python benchmarks/scale.py  # Eight minutes or so.

Whole commands are timed, each with little and with much to do; what counts is the time that the rest takes, so that
loading a framework, which costs the same for a night's work, is told apart. The two ways take turns; the median of the
rounds is printed. All but prepare are of I3D of `i3d_synthetic`, with initial weights, on synthetic videos; prepare
makes JPEG clips of 224 x 224 px from such videos. The two workers of train and evaluate are those of `torchrun` and of
TF_CONFIG, each with one thread.

Last, what a Ray task costs beside its work, with units of --unit_seconds; where Ray is not installed it says so.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import errors, files, launching, progress, tables
from common.clips import clip_store
from common.command_line import commands
from common.launching import Launch, Tick
from common.models import canonical_weights, configs, initial_weights
from common.runs.run_directory import RunConfig, RunDirectory, data_record
from common.tables import Column, Table

_ROUNDS = flags.DEFINE_integer("rounds", 1, "Times that each way is measured.", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "Rows to measure. Unset: all.")
_ITERATIONS = flags.DEFINE_integer("iterations", 50, "Of a mask's search, in explain.", lower_bound=1)
_CLIPS = flags.DEFINE_integer("clips", 8, "That explain explains beyond the first two.", lower_bound=2)
_PER_CLASS = flags.DEFINE_integer("per_class", 80, "Videos of each of twelve classes, for prepare.", lower_bound=1)
_EVALUATED = flags.DEFINE_integer("evaluated", 24, "Clips of each class to evaluate, with order card.", lower_bound=3)
_TRAIN_STEPS = flags.DEFINE_integer("train_steps", 5, "Beyond the first two, of 64 clips each.", lower_bound=1)
_UNIT_SECONDS = flags.DEFINE_float("unit_seconds", 10.0, "Of a unit under Ray.", lower_bound=0.1)

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_UNITS = 3  # Under Ray.
_FEW = 2  # Clips of a class, or to explain, in the shorter call.


class _Process(NamedTuple):
    """One process of a way: its command line after the interpreter, and what its environment has beside."""

    command: tuple[str, ...]
    environment: dict[str, str]


# (folder, whether there is much to do, workers) -> processes that start together.
_Way = Callable[[pathlib.Path, bool, int], list[_Process]]


def _threads(number: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(number))


def _prepare(folder: pathlib.Path, much: bool, workers: int) -> list[_Process]:
    per_class = f"--clips_per_class=0,{_PER_CLASS.value if much else _FEW},0"
    size = ("--height=224", "--width=224", "--clips_per_shard=8")
    command = (f"--source={folder / 'videos'}", f"--out={folder / 'prepared'}", f"--workers={workers}")
    script = str(_ROOT / "data_prep" / "prepare.py")
    return [_Process((script, "--dataset=synthetic", "--splits=validation", per_class, *size, *command), _threads(1))]


def _explain(framework: str) -> _Way:
    def way(folder: pathlib.Path, much: bool, workers: int) -> list[_Process]:
        limit = f"--limit={_FEW + _CLIPS.value if much else _FEW}"
        work = ("--batch=1", "--oracle=coarse", f"--iterations={_ITERATIONS.value}", limit, "--device=cpu")
        where = (f"--run={folder / 'run'}", f"--out={folder / 'explained.h5'}", f"--workers={workers}")
        script = str(_ROOT / f"{framework}_impl" / "explain.py")
        return [_Process((script, *work, *where), _threads(2 // workers))]

    return way


def _evaluate(framework: str) -> _Way:
    def way(folder: pathlib.Path, much: bool, workers: int) -> list[_Process]:
        script = str(_ROOT / f"{framework}_impl" / "evaluate.py")
        split = f"--split={'train' if much else 'validation'}"
        where = (f"--run={folder / 'run'}", split, f"--out={folder / 'evaluation.json'}")
        command = (script, *where, "--order_card", "--device=cpu")
        return _together(framework, command, workers)

    return way


def _train(folder: pathlib.Path, much: bool, workers: int) -> list[_Process]:
    steps = _FEW + (_TRAIN_STEPS.value if much else 0)
    # The paper's number of channels: in each of 57 layers a process asks the other one, which takes 1 ms of any size.
    size = ("--preset=i3d_synthetic", "--multiplier=1", "--batch_size=64")
    work = (*size, "--epochs=1000", f"--max_steps={steps}", "--device=cpu")
    where = (f"--clips={folder / 'clips'}", f"--run={folder / 'trained'}")
    return _together("torch", (str(_ROOT / "torch_impl" / "train.py"), *work, *where), workers)


def _together(framework: str, command: tuple[str, ...], workers: int) -> list[_Process]:
    """Returns the processes that are launched as one command: of PyTorch by torchrun, of TensorFlow by TF_CONFIG."""
    threads = _threads(2 // workers)
    if workers == 1:
        return [_Process(command, threads)]
    if framework == "torch":
        run = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={_free_port()}", "--")
        return [_Process((*run, *command), threads)]
    cluster = {"worker": [f"localhost:{_free_port()}" for _ in range(2)]}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    return [_Process(command, {**threads, "TF_CONFIG": task}) for task in tasks]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


_ROWS: dict[str, _Way] = {
    "prepare": _prepare,
    **{f"explain {framework}": _explain(framework) for framework in ("torch", "tf")},
    **{f"evaluate {framework}": _evaluate(framework) for framework in ("torch", "tf")},
    "train torch": _train,
}


def _seconds(folder: pathlib.Path, processes: list[_Process]) -> float:
    """Runs processes together and returns how long it took until the last had ended; what they wrote is removed."""
    start = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            cwd=_ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in processes
    ]
    ends = [process.communicate()[1] for process in running]
    seconds = time.perf_counter() - start
    for process, end in zip(running, ends, strict=True):
        if process.returncode:
            raise errors.UserError(f"A command must end well. Received: {end[-500:]}")
    for name in ("prepared", "trained"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("explained.h5", "evaluation.json"):
        (folder / name).unlink(missing_ok=True)
    return seconds


def _measure(name: str, folder: pathlib.Path) -> tuple[str, float, float, float, float]:
    """Returns a row: name, seconds of what is to be done by one and by two workers, their ratio, seconds to begin."""
    rests: dict[int, list[float]] = {1: [], 2: []}
    beginnings = []
    for _ in progress.bar(range(_ROUNDS.value), desc=name, unit="round"):
        for workers, rest in rests.items():
            few, much = (_seconds(folder, _ROWS[name](folder, size, workers)) for size in (False, True))
            rest.append(much - few)
            if workers == 2:
                beginnings.append(few)
    one, two = (statistics.median(rest) for rest in rests.values())
    ratio = statistics.median(first / second for first, second in zip(*rests.values(), strict=True))
    return name, one, two, ratio, statistics.median(beginnings)


def _make_inputs(folder: pathlib.Path, with_videos: bool) -> None:
    """Makes clips of the splits train (many) and validation (few), a run that has learnt nothing, and maybe videos."""
    counts = f"--clips_per_class={_EVALUATED.value},{_FEW},0"
    command = (str(_ROOT / "data_prep" / "prepare.py"), "--dataset=synthetic", f"--out={folder / 'clips'}", counts)
    _seconds(folder, [_Process(command, {})])
    if with_videos:
        videos = (*command[:2], f"--out={folder / 'unused'}", f"--source={folder / 'videos'}", "--splits=validation")
        _seconds(folder, [_Process((*videos, f"--clips_per_class=0,{_PER_CLASS.value},0"), {})])
    train = configs.PRESETS["i3d_synthetic"]
    run = RunDirectory(folder / "run")
    info = clip_store.read_dataset_json(folder / "clips")
    run.create(RunConfig(train, data_record(info), files.stored_path(folder / "clips", run.path), "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(train.model, 0), train.model)


def _wait(seconds: float, tick: Tick) -> None:
    time.sleep(seconds)
    tick(1)


def _ray() -> str:
    """Returns a line on what a task of Ray costs: units one after the other, from the end of the first one on."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: not measured."
    seconds, launch = _UNIT_SECONDS.value, Launch(ray="local", unit_cpus=launching.available())
    start = time.perf_counter()
    ends = [time.perf_counter() for _ in launching.run(_wait, [seconds] * _UNITS, launch, lambda amount: None)]
    overhead = (ends[-1] - ends[0]) / (_UNITS - 1) - seconds
    return (
        f"A unit of {seconds:g} s as a Ray task takes {overhead:.3f} s more ({overhead / seconds:.2%}); "
        f"Ray and its first process take {ends[0] - start - seconds:.1f} s to start."
    )


def main(_: list[str]) -> None:
    """Measures what the flags say and prints a table."""
    unknown = set(_ONLY.value) - {*_ROWS, "ray"}
    if unknown:
        raise errors.UserError(f"--only must be of {', '.join(_ROWS)}, ray. Received: {', '.join(sorted(unknown))}")
    chosen = _ONLY.value or [*_ROWS, "ray"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        names = [row for row in _ROWS if row in chosen]
        if names:
            _make_inputs(folder, "prepare" in names)
        rows = [_measure(row, folder) for row in names]
    columns = (
        Column(f"{launching.available()} cores, {_ROUNDS.value} round(s)"),
        Column("1 process, s", ".1f"),
        Column("2 workers, s", ".1f"),
        Column("ratio", ".2f"),
        Column("2 workers' shortest call, s", ".1f"),
    )
    if rows:
        sys.stdout.write(tables.write_text(Table(columns, rows)) + "\n")
    if "ray" in chosen:
        sys.stdout.write(_ray() + "\n")


if __name__ == "__main__":
    commands.run(main)
