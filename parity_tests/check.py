"""Do both frameworks compute the same from a user's own run and clips? Endpoint by endpoint, then loss and gradients.

Each framework runs in a process of its own. Prints a table, writes `parity.json` into the run directory, and ends with
code 1 where a difference is beyond the limits of `tolerances.py`. With --explanations it compares two explanations
files clip by clip instead, and writes `explanations_parity.json` beside the first.
Examples: python parity_tests/check.py --run=runs/i3d_planted
          python parity_tests/check.py --explanations=torch.h5,tf.h5
"""

import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from common import errors, files, remote, tables, text
from common.command_line import clips_flags, commands
from common.models import canonical_weights
from common.remote import Cache
from common.runs import run_directory
from common.runs.run_directory import RunDirectory
from common.tables import Column, Table
from parity_tests import check_explanations, compare, tolerances

flags.adopt_module_key_flags(clips_flags)  # So that --help lists them.

_RUN = flags.DEFINE_string("run", None, "Run directory, of either framework.")
_CLIPS = flags.DEFINE_string("clips", None, f"{clips_flags.HELP} Unset: the one the run was trained on.")
_SPLIT = flags.DEFINE_enum("split", "validation", ["train", "validation", "test"], "Split to take clips from.")
_LIMIT = flags.DEFINE_integer("limit", 2, "Number of clips, from the first on.", lower_bound=1)
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "float64"], "Precision of the computation.")
_EXPLANATIONS = flags.DEFINE_list("explanations", [], "Instead of --run: the files of torch and of tf, in this order.")
_BRIEF = flags.DEFINE_bool("brief", False, "Print the verdict alone, with the worst difference; the file has the rest.")
_WORKER = flags.DEFINE_string("worker", None, "Used by the command itself: be one framework, with a JSON of settings.")

SCHEMA_VERSION = 1
FRAMEWORKS = ("torch", "tf")


@dataclasses.dataclass(frozen=True)
class CheckSettings:
    """What to compare.

    Attributes:
      run: run directory, of either framework.
      clips: folder or URL of the clip store, or None for the one the run was trained on.
      split: of the clips.
      limit: number of clips, from the first on.
      precision: "float32" or "float64".
      cache: where clips at a URL are kept.
    """

    run: pathlib.Path
    clips: files.Place | None = None
    split: str = "validation"
    limit: int = 2
    precision: str = "float32"
    cache: Cache = remote.DEFAULT


def check(settings: CheckSettings) -> dict[str, Any]:
    """Compares both frameworks on a run; returns what `parity.json` holds, and writes nothing.

    Args:
      settings: what to compare.
    """
    run = RunDirectory(settings.run)
    frames, labels, clips = _batch(run, settings)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.savez(folder / "batch.npz", frames=frames, labels=labels)
        for framework in FRAMEWORKS:
            _run_worker(
                {
                    "framework": framework,
                    "weights": str(run.weights.resolve()),
                    "folder": name,
                    "precision": settings.precision,
                }
            )
        torch_arrays, tf_arrays = (np.load(folder / f"{framework}.npz") for framework in FRAMEWORKS)
        rows = _rows(torch_arrays, tf_arrays, settings.precision)
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run.name,
        "clips": str(clips),
        "split": settings.split,
        "num_clips": len(labels),
        "precision": settings.precision,
        "agree": all(row["agree"] for row in rows),
        "rows": rows,
    }


def _batch(run: RunDirectory, settings: CheckSettings) -> tuple[np.ndarray, np.ndarray, files.Place]:
    # Refuses here, in one line, what the workers would trip over.
    _, _, store = run_directory.open_trained(run, settings.clips, settings.split, settings.cache)
    chosen = np.arange(min(settings.limit, len(store)))
    labels = store.labels[chosen].astype(np.int64)
    if not len(chosen) or labels.min() < 0:
        raise errors.UserError(
            f"For the check all clips must be labelled. Received: {settings.split} of {store.directory}"
        )
    return store.read(chosen), labels, store.directory


def _run_worker(values: dict[str, str]) -> None:
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), f"--worker={json.dumps(values)}"]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise errors.UserError(f"Both frameworks must be installed and run. Received: {values['framework']}: {last}")


def work(values: dict[str, str]) -> None:
    """Is one framework: reads weights and batch, writes everything the model computes from them.

    Args:
      values: framework, weights (file), folder (of the exchange), precision.
    """
    side = importlib.import_module(f"parity_tests.{values['framework']}_side")
    folder = pathlib.Path(values["folder"])
    arrays, config = canonical_weights.load(pathlib.Path(values["weights"]))
    batch = np.load(folder / "batch.npz")
    config = dataclasses.replace(config, dropout=0.0)
    outcome = side.outcome(config, arrays, (batch["frames"], batch["labels"]), values["precision"], training=False)
    named = {f"endpoint/{name}": array for name, array in outcome.endpoints.items()}
    named |= {"loss/": outcome.loss} | {f"gradient/{name}": array for name, array in outcome.gradients.items()}
    np.savez(folder / f"{values['framework']}.npz", **named)


def _rows(ours: Any, theirs: Any, precision: str) -> list[dict[str, Any]]:
    """Returns one row per quantity, in the order in which the model computes them."""
    if ours.files != theirs.files:
        raise errors.UserError(
            f"Both must compute the same quantities. Received: {set(ours.files) ^ set(theirs.files)}"
        )
    rows = []
    for key in ours.files:
        kind, _, name = key.partition("/")
        limit = tolerances.limit("endpoints" if kind == "endpoint" else "gradients", precision)
        found = compare.difference(name or kind, ours[key], theirs[key])
        values = {
            field: value if not isinstance(value, float) or np.isfinite(value) else None
            for field, value in dataclasses.asdict(found).items()
        }
        rows.append({"kind": kind, **values, "limit": limit, "agree": bool(found.within(limit))})
    return rows


def table(result: dict[str, Any]) -> str:
    """Returns a check as text: every endpoint and the loss, and of the gradients the worst and each that is beyond."""
    gradients = [row for row in result["rows"] if row["kind"] == "gradient"]
    worst = max(gradients, key=lambda row: float("inf") if row["relative"] is None else row["relative"])
    shown = [row for row in result["rows"] if row["kind"] != "gradient" or not row["agree"] or row is worst]
    rows = []
    for row in shown:
        prefix = "gradient of " if row["kind"] == "gradient" else ""
        numbers = (None, None) if row["fault"] else (row["max_abs"], row["relative"])
        where = row["fault"] or str(tuple(row["where"]))
        mark = "" if row["agree"] else "  <- beyond the limit"
        rows.append((prefix + row["quantity"], *numbers, row["limit"], where + mark))
    numeric = (Column("max abs", ".2e"), Column("relative", ".2e"), Column("limit", ".0e"))
    columns = (Column(""), *numeric, Column("where"))
    verdict = "agree" if result["agree"] else "do NOT agree"
    return (
        f"{tables.write_text(Table(columns, rows), left=(0, len(columns) - 1))}\n"
        f"{len(gradients)} gradients compared, the worst shown. torch and tf {verdict} on "
        f"{text.counted(result['num_clips'], 'clip')} in {result['precision']}."
    )


def line(result: dict[str, Any], path: pathlib.Path) -> str:
    """Returns a check as one line: the verdict, and the difference that comes nearest to its limit.

    Args:
      result: of `check` or `check_explanations.check_explanations`.
      path: of its file.
    """
    rows = result["rows"]
    verdict = "agree" if result["agree"] else "do NOT agree"

    def share(row: dict[str, Any]) -> float:
        if row["relative"] is None:
            return float("inf")
        return row["relative"] / row["limit"] if row["limit"] else float("inf") if row["relative"] else 0.0

    worst = max(rows, key=share)
    relative = "not finite" if worst["relative"] is None else f"{worst['relative']:.1e}"
    what = f"gradient of {worst['quantity']}" if worst.get("kind") == "gradient" else worst["quantity"]
    return (
        f"{result['run']}: torch and tf {verdict} on {text.counted(result['num_clips'], 'clip')}, in "
        f"{len(rows)} quantities; nearest to its limit of {worst['limit']:.0e} is {what}, {relative} ({path})"
    )


def main(_: list[str]) -> int:
    """Checks what the flags say; returns 1 where the frameworks do not agree."""
    if _WORKER.value:
        work(json.loads(_WORKER.value))
        return 0
    if _EXPLANATIONS.value:
        return _check_explanations([pathlib.Path(name) for name in _EXPLANATIONS.value])
    if not _RUN.value:
        raise errors.UserError("--run must name a run directory. Received: none")
    run, clips = pathlib.Path(_RUN.value), clips_flags.place(_CLIPS.value)
    result = check(CheckSettings(run, clips, _SPLIT.value, _LIMIT.value, _PRECISION.value, clips_flags.cache()))
    path = run / "parity.json"
    return _tell(result, line(result, path) if _BRIEF.value else table(result), path)


def _check_explanations(paths: list[pathlib.Path]) -> int:
    if len(paths) != 2:
        raise errors.UserError(f"--explanations must name torch's file, then tf's. Received: {len(paths)}")
    result = check_explanations.check_explanations(*paths)
    path = paths[0].with_name("explanations_parity.json")
    return _tell(result, line(result, path) if _BRIEF.value else check_explanations.table(result), path)


def _tell(result: dict[str, Any], told: str, path: pathlib.Path) -> int:
    """Prints and writes a check, each even where the other fails; returns the exit code."""
    try:
        sys.stdout.write(told + "\n")
    finally:
        files.write_json(path, result)
    return 0 if result["agree"] else 1


if __name__ == "__main__":
    commands.run(main)
