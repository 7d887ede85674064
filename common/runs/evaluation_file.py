"""The evaluation of a run, `evaluation.json`: written, read and refused here, and the cells of tables made of it.

An object with schema_version, run, model, dataset, framework, trained_with, clips (folder), split; forward and
reversed (what `metrics.classification_metrics` returns); drop, by which share reversal lowers each score: null where
the forward score is 0, and per_class only of classes that have clips; and, where it was asked for, order_card.
"""

import pathlib
from typing import Any, TypedDict

from common import errors, files
from common.runs.order_card import OrderCard

SCHEMA_VERSION = 1

_PASSES = ("forward", "reversed")
_SCORES = ("f1_weighted", "f1_top_5_weighted", "top_1", "top_5")


class _ShownOfClass(TypedDict):
    """What tables show of a class; in `_OfClass` all that is written. The same with the others."""

    clips: files.Count
    f1: float
    accuracy: float


class _OfClass(_ShownOfClass, total=False):
    precision: float
    recall: float


class _ShownOfPass(TypedDict):
    f1_weighted: float
    f1_top_5_weighted: float
    top_1: float
    top_5: float
    per_class: dict[files.Text, _OfClass]
    confusion: list[list[files.Count]]


class _Pass(_ShownOfPass, total=False):
    clips: files.Count
    f1_macro: float
    f1_top_5_macro: float
    loss: float


class _ShownOfDrop(TypedDict):
    f1_weighted: float | None
    f1_top_5_weighted: float | None
    top_1: float | None
    top_5: float | None
    per_class: dict[files.Text, float | None]


class _Drop(_ShownOfDrop, total=False):
    f1_macro: float | None
    f1_top_5_macro: float | None


class _ShownOfEvaluation(TypedDict):
    schema_version: int
    run: files.Text
    model: files.Text
    dataset: files.Text
    framework: files.Text
    forward: _Pass
    reversed: _Pass
    drop: _Drop


class _Evaluation(_ShownOfEvaluation, total=False):
    order_card: OrderCard
    trained_with: files.Text
    clips: str
    split: files.Text


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
      errors.UserError: for another schema version, fields that are not those of the format, and classes or counts of
        confusion that differ between the passes.
    """
    values = files.read_json(path, "An evaluation", SCHEMA_VERSION)
    files.convert(values, _Evaluation, "An evaluation", path)
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
    return forward, backward, [_fall(share) for share in drop]


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
            rows.append((name, before["clips"], *scores, _fall(result["drop"]["per_class"].get(name))))
    return rows


def _fall(share: float | None) -> float | None:
    """Returns a drop; None for a rise: as a share of a small forward score (-300 %) it says nothing."""
    return None if share is None or share < 0 else share
