"""Scores of attribution files against the truth of a suite of clips: what `score_when.py` prints and writes.

Needs neither framework: what has to be asked of a model (areas of deletion and insertion, forwards spent) stands in the
attribution file if its writer knows it.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common import bootstrap, errors, files, tables
from common.clips.clip_store import ClipStore
from common.explaining import attribution_file, explanations, masks, methods_baselines, when_metrics
from common.explaining.attribution_file import Attributions
from common.tables import Cell, Column, Estimate, Table

SCHEMA_VERSION = 1
TITLES = {
    "pointing": "pointing",
    "precision": "precision",
    "auprc": "AUPRC",
    "temporal_iou": "temporal IoU",
    "deletion": "deletion",
    "insertion": "insertion",
}
CAPTION = (
    "Each value is (x - random) / (1 - random), of means over clips: 1 is perfect, 0 is chance; in brackets the 95 % "
    "bootstrap interval. Deletion is of 1 less its area."
)


SELECTION_CAPTION = (
    "Means over clips of the frames that an answer selects, as they are: how many, the share of them in the event, "
    "temporal IoU, what one interval as long reaches at a random place, and the share of clips whose event is found "
    "exactly."
)


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """What to score.

    Attributes:
      attributions: files, each named by its stem in the table; of an explanations file (.h5) the mask, the best
        interval and every method are scored, for the clips that the model got right.
      suite: folder of a clip store with ground truth.
      split: of it.
      out: folder for when.json, when.csv and selected.csv, or None to write none.
    """

    attributions: tuple[pathlib.Path, ...]
    suite: pathlib.Path
    split: str = "test"
    out: pathlib.Path | None = None


# What `when_metrics.measure` returns, the areas with and without "_random", and "forwards" -> [N]; NaN where it is not
# defined.
Scores = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
      tables: of scores, and of what is selected.
      record: what `when.json` holds.
    """

    tables: tuple[Table, Table]
    record: dict[str, Any]


def score_files(settings: ScoreSettings) -> Found:
    """Scores attribution files, and beside them two answers that no model gave; writes nothing.

    "centred" knows where the middle of a clip is, "frame difference" how much each frame differs from the one before;
    both answer for every clip that a file names.

    Raises:
      errors.UserError: for files that cannot be read, or of clips that the suite lacks.
    """
    names = [path.stem for path in settings.attributions]
    if len(set(names)) < len(names):
        raise errors.UserError(f"Files must have different names. Received: {', '.join(names)}")
    store = ClipStore(settings.suite, settings.split)
    answers: dict[str, Attributions] = {}
    for path in settings.attributions:
        answers |= _explained(path) if path.suffix == ".h5" else {path.stem: attribution_file.read(path)}
    named = {video_id for answer in answers.values() for video_id in answer.video_ids}
    answers |= _baselines(store, tuple(video_id for video_id in store.video_ids if video_id in named))
    scored = [(name, score(answer, store)) for name, answer in answers.items()]
    return Found((table(scored), selection_table(scored)), record(scored, store))


def write(out: pathlib.Path, found: Found) -> None:
    """Writes when.json, and each table as a CSV file, to a folder, which is made if it is not there."""
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "when.json", found.record)
    for one in found.tables:
        files.write_text(out / f"{one.name}.csv", tables.write_csv(one))


def _explained(path: pathlib.Path) -> dict[str, Attributions]:
    """Returns the answers in an explanations file: its mask, the best interval, and those of methods."""
    whole = explanations.read(path)
    right = whole.take(np.flatnonzero(whole["label"] == whole["prediction"]))
    if not len(right):
        raise errors.UserError(f"A model must get at least one clip right. Received: none of {len(whole)} in {path}")
    video_ids, time = tuple(right["video_id"]), right["mask"].shape[1]
    intervals = masks.interval_masks(right["oracle_interval"], time)
    found = {
        "mask": Attributions(video_ids, right["mask"].astype(np.float64), right["mask_snapped"] != 0),
        "best interval": Attributions(video_ids, intervals, intervals != 0),
    }
    for name in explanations.methods_of(right.header):
        found[name] = Attributions(video_ids, right[explanations.attribution(name)].astype(np.float64))
    return {f"{path.stem}: {name}": answer for name, answer in found.items()}


def _baselines(store: ClipStore, video_ids: tuple[str, ...]) -> dict[str, Attributions]:
    frames = store.read(store.places(video_ids))
    centred = np.tile(methods_baselines.closeness_to_middle(frames.shape[1]), (len(frames), 1))
    return {
        "centred": Attributions(video_ids, centred),
        "frame difference": Attributions(video_ids, methods_baselines.frame_differences(frames)),
    }


def score(answer: Attributions, store: ClipStore) -> Scores:
    """Returns the scores of each clip of an answer.

    Raises:
      errors.UserError: for clips that the store lacks, or of another length.
    """
    truth = when_metrics.truth_of(store, answer.video_ids)
    if answer.values.shape != truth.event.shape:
        raise errors.UserError(
            f"Attributions must be of {truth.event.shape[1]} frames, as the clips of {store.directory}. "
            f"Received: {answer.values.shape[1]}"
        )
    selected = when_metrics.selection(answer.values) if answer.selected is None else answer.selected
    nothing = np.full(len(answer), np.nan)
    areas = {
        f"{area}{suffix}": answer.areas.get(f"{area}{suffix}", nothing)
        for area in attribution_file.AREAS
        for suffix in ("", "_random")
    }
    # The smaller the area of deletion, the better: turned over, 1 is perfect as everywhere else. Where nothing happens
    # there is nothing to delete.
    turned = {
        name: np.where(truth.event.any(axis=1), 1 - areas[name] if name.startswith("deletion") else areas[name], np.nan)
        for name in areas
    }
    forwards = nothing if answer.forwards is None else answer.forwards
    return {**when_metrics.measure(answer.values, selected, truth), **turned, "forwards": forwards}


def corrected(scores: Scores, name: str) -> Estimate | None:
    """Returns a metric corrected for chance, (x - random) / (1 - random) of means over clips, with its interval.

    Of means, not the mean of each clip's: where a clip's chance is almost 1, its own ratio says nothing.
    """
    pairs = np.stack([scores[name], scores[f"{name}_random"]], axis=1)
    return bootstrap.estimate(pairs, _above_chance)


def _above_chance(means: np.ndarray) -> np.ndarray:
    rest = 1 - means[..., 1]
    return np.divide(means[..., 0] - means[..., 1], rest, out=np.full(rest.shape, np.nan), where=rest > 0)


SELECTION_TITLES = {
    "selected": "frames",
    "inside": "inside the event",
    "temporal_iou": "temporal IoU",
    "temporal_iou_random": "IoU at random",
    "exact": "exact",
}


def selection_cells(scores: Scores) -> list[Cell]:
    """Returns clips, and the means of what is selected as it is: what follows a row's name."""
    return [len(scores["selected"]), *(bootstrap.mean(scores[name]) for name in SELECTION_TITLES)]


def selection_columns(first: str) -> list[Column]:
    """Returns the columns of a table of what is selected, whose rows are named by `first`."""
    frames, *shares = SELECTION_TITLES.values()
    return [Column(first), Column("clips", "d"), Column(frames, ".1f"), *(Column(title, ".2f") for title in shares)]


def cells(scores: Scores) -> list[Cell]:
    """Returns clips, every metric corrected for chance, and mean forwards: what follows a row's name."""
    forwards = scores["forwards"]
    mean = float(forwards.mean()) if np.isfinite(forwards).all() else None
    return [len(forwards), *(corrected(scores, name) for name in TITLES), mean]


def columns(first: str) -> list[Column]:
    """Returns the columns of a table whose rows are named by `first`."""
    return [
        Column(first),
        Column("clips", "d"),
        *(Column(t, ".2f") for t in TITLES.values()),
        Column("forwards", ".0f"),
    ]


def table(scored: Sequence[tuple[str, Scores]]) -> Table:
    """Returns the scores of named answers, a row each."""
    rows = [(name, *cells(scores)) for name, scores in scored]
    return Table(columns("answer"), rows, name="when", title="Which frames?", caption=CAPTION)


def selection_table(scored: Sequence[tuple[str, Scores]]) -> Table:
    """Returns what named answers select, a row each."""
    rows = [(name, *selection_cells(scores)) for name, scores in scored]
    return Table(
        selection_columns("answer"), rows, name="selected", title="What is selected", caption=SELECTION_CAPTION
    )


def record(scored: Sequence[tuple[str, Scores]], store: ClipStore) -> dict[str, Any]:
    """Returns the scores of named answers as `when.json` holds them: means, chance, and what is left above it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": store.info.dataset,
        "suite_digest": store.info.digest,
        "split": store.split,
        "answers": [{"name": name, **_record(scores)} for name, scores in scored],
    }


def _record(scores: Scores) -> dict[str, Any]:
    forwards = scores["forwards"]
    metrics = {}
    for name in TITLES:
        found = corrected(scores, name)
        metrics[name] = {
            "mean": _mean(scores[name]),
            "random": _mean(scores[f"{name}_random"]),
            "corrected": None if found is None else _or_none(found.value),
            "low": None if found is None else _or_none(found.low),
            "high": None if found is None else _or_none(found.high),
            "clips": 0 if found is None else found.clips,
        }
    selection = {name: _mean(scores[name]) for name in SELECTION_TITLES}
    return {"clips": len(forwards), "forwards": _mean(forwards), "metrics": metrics, "selection": selection}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
