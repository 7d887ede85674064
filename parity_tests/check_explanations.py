"""Compares two explanations files of one run, PyTorch's and TensorFlow's, clip by clip (design of both: the same file).

A part of `check.py`, which has the command.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from common import errors, tables, text
from common.explaining import explanations, masks
from common.explaining.explanations import Explanations
from common.tables import Column, Table
from parity_tests import compare, tolerances

# Column -> limit of the difference; None: equal.
_COLUMNS: dict[str, str | None] = {
    "label": None,
    "prediction": None,
    "target": None,
    "probabilities": "endpoints",
    "oracle_interval": None,
    "oracle_loss": "endpoints",
    "mask": "mask of explained clips",
    "mask_snapped": None,
    "loss": "mask of explained clips",
    "final_loss": "mask",
    **dict.fromkeys(("FS", "RS"), "scores of explained clips"),
    **dict.fromkeys(("OS", "FS_snapped", "RS_snapped", "S", "CS"), "mask"),
    "gradcam": "gradcam",
}
# What two files may differ in and still say the same.
_FREE = {"framework", "versions"}


def check_explanations(torch_path: pathlib.Path, tf_path: pathlib.Path) -> dict[str, Any]:
    """Compares two files; returns rows ready for JSON.

    Args:
      torch_path: what `torch_impl/explain.py` wrote.
      tf_path: what `tf_impl/explain.py` wrote from the same run and settings, and from some or all of the same clips.

    Raises:
      errors.UserError: for files of other runs, clips or settings.
    """
    ours, theirs = explanations.read(torch_path), explanations.read(tf_path)
    _check_comparable(ours, theirs)
    ours = ours.of_clips(theirs["video_id"])
    precision = "float64" if ours.header["precision"] == "float64" else "float32"
    answers = {explanations.attribution(method): "gradients" for method in explanations.methods_of(ours.header)}
    columns = {name: kind for name, kind in (_COLUMNS | answers).items() if name in ours.columns}
    rows = [_row(name, kind, ours, theirs, precision) for name, kind in columns.items()]
    return {
        "run": ours.header["run"],
        "num_clips": len(ours),
        "precision": ours.header["precision"],
        "agree": all(row["clips_beyond"] == 0 for row in rows),
        "rows": rows,
    }


def _check_comparable(ours: Explanations, theirs: Explanations) -> None:
    for expected, found in (("torch", ours), ("tf", theirs)):
        if found.header["framework"] != expected:
            raise errors.UserError(
                f"--explanations must name torch's file, then tf's. "
                f"Received: {found.header['framework']} for {expected}"
            )
    # Clips are the same wherever they lie, and a path depends on where the file lies; early files have no digest.
    free = _FREE | ({"clips"} if "clips_digest" in ours.header.keys() & theirs.header.keys() else set())
    different = [name for name in ours.header if name not in free and ours.header[name] != theirs.header.get(name)]
    if different:
        what = ", ".join(different)
        raise errors.UserError(
            f"Both files must be of one run and the same settings. Received: two that differ in {what}"
        )
    missing = sorted(set(theirs["video_id"]) - set(ours["video_id"]))
    if missing:
        raise errors.UserError(f"Torch's file must have all clips of tf's. Received: one without {', '.join(missing)}")


def _row(name: str, kind: str | None, ours: Explanations, theirs: Explanations, precision: str) -> dict[str, Any]:
    limit = tolerances.limit(kind, precision) if kind else 0.0
    if kind in ("endpoints", "gradients"):
        limit = max(limit, float(np.finfo(np.float32).eps))  # The file's own rounding.
    first, second = ours[name], theirs[name]
    if name == "CS":  # NaN where the guess is right, in both or there is a fault.
        first, second = (np.where(np.isnan(first) & np.isnan(second), 0, values) for values in (first, second))
    if name == "loss":
        first, second = map(_held, (first, second))
    if name == "mask_snapped":
        undecided = np.abs(ours["mask"] - masks.SNAP_THRESHOLD) <= tolerances.limit("snapped mask", precision)
        first, second = (np.where(undecided, 0, values) for values in (first, second))
    # Maps and answers have no unit: a difference counts relative to the largest value of all clips.
    scale = np.abs(first.astype(np.float64)).max(initial=0) if kind in ("gradcam", "gradients") else 1.0
    found = [
        compare.difference(name, a.astype(np.float64) / (scale or 1), b.astype(np.float64) / (scale or 1))
        for a, b in zip(first, second, strict=True)
    ]
    relative = np.array([difference.relative for difference in found])
    beyond = ~(relative <= limit)
    worst = int(np.nan_to_num(relative, nan=np.inf).argmax())
    values = dataclasses.asdict(found[worst])
    return {
        "quantity": name,
        "max_abs": _finite(values["max_abs"]),
        "relative": _finite(values["relative"]),
        "median_relative": _finite(float(np.median(relative))),
        "limit": limit,
        "clips_beyond": int(beyond.sum()),
        "worst_clip": str(ours["video_id"][worst]),
        "fault": values["fault"],
    }


def _held(losses: np.ndarray) -> np.ndarray:
    """Returns losses [N, I] with the last one of a search that has stopped in place of the NaN after it."""
    ended = np.logical_and.accumulate(np.isnan(losses[:, ::-1]), axis=1)[:, ::-1]
    last = np.maximum(losses.shape[1] - ended.sum(axis=1) - 1, 0)
    return np.where(ended, losses[np.arange(len(losses)), last][:, None], losses)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def table(result: dict[str, Any]) -> str:
    """Returns a comparison as text: one row per column of the file, with the worst clip of each."""
    columns = (
        *(Column("per clip"), Column("median", ".1e"), Column("worst", ".1e"), Column("limit", ".0e")),
        *(Column("clips beyond", "d"), Column("worst clip")),
    )
    rows = [
        (
            *(row[key] for key in ("quantity", "median_relative", "relative", "limit", "clips_beyond")),
            f"{row['worst_clip']} {row['fault']}".rstrip(),
        )
        for row in result["rows"]
    ]
    verdict = "agree" if result["agree"] else "do NOT agree"
    return (
        f"{tables.write_text(Table(columns, rows))}\n"
        f"torch and tf {verdict} on {text.counted(result['num_clips'], 'explained clip')} in {result['precision']}."
    )
