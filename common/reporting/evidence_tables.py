"""What `evidence.py` found, as tables and line charts of the report, each with a sentence on how to read it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import bootstrap
from common.explaining import evidence_file
from common.reporting import charts, paper_tables
from common.tables import Column, Estimate, Table

_CURVES = {
    "deletion": "the fewer frames it takes for the score to fall, the better the order: a smaller area is better",
    "insertion": "the fewer frames it takes for the score to come back, the better the order: a larger area is better",
}


def tables(found: Sequence[dict[str, Any]]) -> list[Table]:
    """Returns areas under the curves, likeness under randomisation, and restarts, of several runs.

    What was gathered of no run (evidence.py --mask_limit=0 searches no masks) is left out.
    """
    if not found:
        return []
    labels = paper_tables.labels(found)
    made = [_areas(found, labels), _randomization(found, labels), _restarts(found, labels)]
    return [table for table in map(_known_columns, made) if any(map(table.is_number, range(len(table.columns))))]


def _known_columns(table: Table) -> Table:
    """Returns a table without columns that have no value in any row."""
    kept = [place for place in range(len(table.columns)) if any(row[place] is not None for row in table.rows)]
    columns = tuple(table.columns[place] for place in kept)
    return dataclasses.replace(table, columns=columns, rows=tuple(tuple(row[p] for p in kept) for row in table.rows))


def line_charts(found: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns (title, SVG) of each mean curve, the orders of frames in one picture."""
    pictures = []
    for values, label in zip(found, paper_tables.labels(found), strict=True):
        for what in _CURVES:
            for kind in evidence_file.KINDS:
                curves = {order: values["curves"][what][kind][order]["mean"] for order in evidence_file.ORDERS}
                pictures.append((f"{what.capitalize()} by {kind}: {label}", charts.curves(what, curves)))
    return pictures


def _areas(found: Sequence[dict[str, Any]], labels: Sequence[str]) -> Table:
    columns = [Column("Run"), Column("Curve"), *(Column(f"Order: {order}", ".3f") for order in evidence_file.ORDERS)]
    rows = [
        (
            label,
            f"{what}, {kind}",
            *(_estimate(values["curves"][what][kind][order]["areas"]) for order in evidence_file.ORDERS),
        )
        for values, label in zip(found, labels, strict=True)
        for what in _CURVES
        for kind in evidence_file.KINDS
    ]
    caption = (
        "Frames are perturbed (deletion) or restored (insertion) one after the other, those of the mask first, from "
        f"the middle outwards, or at random; the mean score on the way. Deletion: {_CURVES['deletion']}. "
        f"Insertion: {_CURVES['insertion']}."
    )
    return Table(columns, rows, name="evidence_curves", title="Do the masked frames matter?", caption=caption)


def _randomization(found: Sequence[dict[str, Any]], labels: Sequence[str]) -> Table:
    rows = [
        (label, f"{row['layers']}, from {row['from']} on", _estimate(row["gradcam"]), _estimate(row["mask"]))
        for values, label in zip(found, labels, strict=True)
        for row in values["randomization"]
    ]
    caption = (
        "Layers are drawn anew from the last to the first, and the same clips and classes are explained again. An "
        "explanation of what was learnt loses its likeness to the original (0: unlike, 1: the same)."
    )
    columns = (Column("Run"), Column("Layers drawn anew"), Column("Grad-CAM, rank correlation", ".3f"))
    return Table(
        (*columns, Column("Mask, IoU", ".3f")),
        rows,
        name="evidence_randomization",
        title="Does the explanation depend on the model?",
        caption=caption,
    )


def _restarts(found: Sequence[dict[str, Any]], labels: Sequence[str]) -> Table:
    rows = [
        (label, _estimate(values["restarts"]["mask"]), _estimate(values["restarts"]["loss"]))
        for values, label in zip(found, labels, strict=True)
    ]
    caption = (
        "The same clips, searched from random windows. The nearer both are to 1, the less a mask depends on where its "
        "search began."
    )
    columns = (Column("Run"), Column("Mask, IoU", ".3f"), Column("Loss over the explained mask's", ".3f"))
    title = "Does the search find the same mask again?"
    return Table(columns, rows, name="evidence_restarts", title=title, caption=caption)


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    """Returns the mean of what is defined, with its bootstrap interval."""
    known = np.array([value for value in values if value is not None], np.float64)
    return bootstrap.mean(known)
