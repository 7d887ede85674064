"""The evaluation of a run, `evaluation.json`: written, read and refused here, and the cells of tables made of it.

An object with schema_version, run, model, dataset, framework, trained_with, clips (folder), split; forward and
reversed (what `metrics.classification_metrics` returns); and drop, by which share reversal lowers each score: null
where the forward score is 0, and per_class only of classes that have clips.
"""

import pathlib
from typing import Any

from common import errors, files

SCHEMA_VERSION = 1

_PASSES = ("forward", "reversed")
_SCORES = ("f1_weighted", "f1_top_5_weighted", "top_1", "top_5")
# What tables are made of: its place in the file -> its type.
_PASS_FIELDS: dict[str, files.Kind] = {
    **dict.fromkeys(_SCORES, "a number"),
    "per_class": "an object",
    "per_class/*/clips": "a whole number",
    "per_class/*/f1": "a number",
    "per_class/*/accuracy": "a number",
    "confusion": "a list",
    "confusion/*": "a list",
    "confusion/*/*": "a whole number",
}
_FIELDS: dict[str, files.Kind] = {
    **dict.fromkeys(("run", "model", "dataset", "framework"), "a text"),
    **{f"{shown}/{field}": kind for shown in _PASSES for field, kind in _PASS_FIELDS.items()},
    **{f"drop/{name}": "a number or null" for name in _SCORES},
    "drop/per_class": "an object",
    "drop/per_class/*": "a number or null",
}


def write(path: pathlib.Path, values: dict[str, Any]) -> dict[str, Any]:
    """Writes an evaluation, whole or not at all, and returns what the file holds.

    Args:
      path: of the file; replaced if it exists.
      values: everything but schema_version.
    """
    result = {"schema_version": SCHEMA_VERSION, **values}
    files.write_json(path, result)
    return result


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns what an `evaluation.json` holds.

    Args:
      path: of the file.

    Raises:
      errors.UserError: for another schema version, a field that is missing or of another type, and classes or counts
        of confusion that differ between the passes.
    """
    values = files.read_json(path, "An evaluation", SCHEMA_VERSION)
    files.check_fields(values, _FIELDS, "An evaluation", path)
    names = list(values["forward"]["per_class"])
    if not names or list(values["reversed"]["per_class"]) != names:
        raise errors.UserError(
            f"An evaluation must have classes, the same in forward/per_class and reversed/per_class. "
            f"Received: {', '.join(names)[:100]} and {', '.join(values['reversed']['per_class'])[:100]} in {path}"
        )
    for shown in _PASSES:
        rows = values[shown]["confusion"]
        if {len(rows), *map(len, rows)} != {len(names)}:
            raise errors.UserError(
                f"An evaluation must have {len(names)} rows of {len(names)} counts as {shown}/confusion. "
                f"Received: {len(rows)} rows of {sorted(set(map(len, rows)))} in {path}"
            )
    return values


def table_1_cells(result: dict[str, Any]) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """Returns Table 1's row forward, its row reversed, and the drop: F1 top 1 and 5, accuracy top 1 and 5.

    Args:
      result: what `evaluation.json` holds.
    """
    forward, backward, drop = ([result[shown][key] for key in _SCORES] for shown in ("forward", "reversed", "drop"))
    return forward, backward, drop


def class_cells(result: dict[str, Any]) -> list[tuple[str, int, float, float, float, float, float | None]]:
    """Returns a row for each class that has clips: name, clips, F1, F1 reversed, accuracy, reversed, its drop.

    Args:
      result: what `evaluation.json` holds.
    """
    rows = []
    for name, before in result["forward"]["per_class"].items():
        after = result["reversed"]["per_class"][name]
        if before["clips"]:
            scores = (before["f1"], after["f1"], before["accuracy"], after["accuracy"])
            rows.append((name, before["clips"], *scores, result["drop"]["per_class"].get(name)))
    return rows
