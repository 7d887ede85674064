"""Every explained clip as a record: a row of `clips.csv`, an object of `clips.json`; the tables' means are of these."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.clips.clip_store import ClipStore
from common.reporting import comparison, words
from common.reporting.comparison import Run
from common.tables import Cell, Column, Table

NAME = "clips"
_EXPLAINED = ("S", "final_loss", "oracle_loss")


def records(runs: Sequence[Run], store: ClipStore) -> list[dict[str, Any]]:
    """Returns a record for each run and clip, ready for JSON, in the order of the runs, then of their clips.

    Args:
      runs: explained runs.
      store: the split that they are of.

    Returns:
      video_id; run; game and kind of its masks; label, prediction and target, names of classes (label: None where it
      is unknown); probability of the prediction; words (see `words.clip_words`); mask (T values, 1: the frames it
      names), frames_on (where it is on), event (frames of the event, None without ground truth), best_interval (first
      frame, and the one after the last); the numbers S, final_loss and oracle_loss of the explanations file, and those
      of `explanation_statistics.clip_statistics`, None where one is not defined.
    """
    return [record for run in runs for record in _records(run, store)]


def table(found: Sequence[dict[str, Any]]) -> Table:
    """Returns records as a table: lists as numbers with a blank between them."""
    names = list(dict.fromkeys(name for record in found for name in record))
    return Table(
        tuple(Column(name, "g") for name in names),
        tuple(tuple(_cell(record.get(name)) for name in names) for record in found),
        name=NAME,
        title="Every clip",
        caption="A row for each run and clip.",
    )


def _records(run: Run, store: ClipStore) -> list[dict[str, Any]]:
    salient = comparison.salient_frames(run.explanations, store)
    clips = range(len(run.explanations))
    return [_record(run, row, None if salient is None else salient[row]) for row in clips]


def _record(run: Run, row: int, salient: np.ndarray | None) -> dict[str, Any]:
    explained, names = run.explanations, run.explanations.header["class_names"]
    label, prediction, target = (int(explained[name][row]) for name in ("label", "prediction", "target"))
    numbers = {name: explained[name][row] for name in _EXPLAINED}
    numbers |= {name: values[row] for name, values in run.statistics.items()}
    return {
        "video_id": explained["video_id"][row],
        "run": run.label,
        "game": run.game,
        "kind": run.kind,
        "label": names[label] if label >= 0 else None,
        "prediction": names[prediction],
        "target": names[target],
        "probability": float(explained["probabilities"][row, prediction]),
        "words": "".join(words.clip_words(words.clip_facts(run, row))),
        "mask": [float(value) for value in explained["mask"][row]],
        "frames_on": np.flatnonzero(explained["mask_snapped"][row]).tolist(),
        "event": None if salient is None else np.flatnonzero(salient).tolist(),
        "best_interval": explained["oracle_interval"][row].tolist(),
        **{name: float(value) if np.isfinite(value) else None for name, value in numbers.items()},
    }


def _cell(value: Any) -> Cell:
    return " ".join(f"{one:g}" for one in value) if isinstance(value, list) else value
