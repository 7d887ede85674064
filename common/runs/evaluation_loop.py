"""Table 1 of the paper: scores on clips shown forward and reversed, and what the reversal costs.

"To investigate how reliant the two models are on the temporal order of the input frames, a further test was conducted
with the input sequences reversed" (section 5.1). A drop is relative to the forward score, as the paper's 78 % and 79 %.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common import errors, tables, text
from common.models import configs
from common.runs import evaluation_file, metrics, prediction, run_directory
from common.runs.run_directory import RunDirectory
from common.tables import Cell, Column, Table

PredictBatch = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """What to evaluate.

    Attributes:
      runs: run directories, of either framework.
      clips: folder of the clip store, or None for the one that each run was trained on.
      split: of the clips.
      batch_size: clips at a time.
      num_threads: threads that read clips.
      out: file to write for each run, or () for evaluation.json in each run directory.
    """

    runs: tuple[pathlib.Path, ...]
    clips: pathlib.Path | None = None
    split: str = "validation"
    batch_size: int = 16
    num_threads: int = 2
    out: tuple[pathlib.Path, ...] = ()

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """The file to write for each run."""
        return self.out or tuple(run / "evaluation.json" for run in self.runs)

    def __post_init__(self) -> None:
        if self.out and len({path.resolve() for path in self.out}) != len(self.runs):
            raise errors.UserError(
                f"--out must name one file for each run, all different. "
                f"Received: {', '.join(map(str, self.out))} for {text.counted(len(self.runs), 'run')}"
            )


def evaluate(
    settings: EvaluateSettings,
    make_predict: Callable[[configs.ModelConfig, dict[str, np.ndarray]], PredictBatch],
    framework: str,
) -> Iterator[dict[str, Any]]:
    """Evaluates runs forward and reversed, each when it is asked for; writes nothing.

    Args:
      settings: what to evaluate.
      make_predict: (model config, canonical weights) -> function from clips uint8 [n, T, H, W, 3] to logits [n, K].
      framework: that computes: "torch" or "tf".

    Yields:
      What `evaluation_file.write` takes, of one run after the other.
    """
    return (_evaluate_run(RunDirectory(path), settings, make_predict, framework) for path in settings.runs)


def _evaluate_run(
    run: RunDirectory, settings: EvaluateSettings, make_predict: Callable[..., PredictBatch], framework: str
) -> dict[str, Any]:
    stored, weights, store = run_directory.open_trained(run, settings.clips, settings.split)
    if not len(store) or store.labels.min() < 0:
        raise errors.UserError(
            "For evaluation all clips must be labelled, with classes of the model. "
            f"Received: {text.counted(int((store.labels < 0).sum()), 'clip')} of {len(store)} without such a label, in "
            f"{settings.split} of {store.directory}"
        )
    predict_batch = make_predict(stored.train.model, weights)
    scores = {
        name: metrics.classification_metrics(
            prediction.predict(
                predict_batch,
                store,
                batch_size=settings.batch_size,
                num_threads=settings.num_threads,
                reverse=name == "reversed",
                progress=f"{run.name} {name}",
            ),
            store.labels,
            store.info.class_names,
        )
        for name in ("forward", "reversed")
    }
    return {
        "run": run.name,
        "model": stored.train.model.model,
        "dataset": store.info.dataset,
        "framework": framework,
        "trained_with": stored.framework,
        "clips": str(store.directory),
        "split": settings.split,
        **scores,
        "drop": _drops(scores["forward"], scores["reversed"]),
    }


def _drops(forward: dict[str, Any], backward: dict[str, Any]) -> dict[str, Any]:
    """Returns by which share reversal lowers each score; None where the forward score is 0."""

    def drop(before: float, after: float) -> float | None:
        return 1 - after / before if before > 0 else None

    names = ("top_1", "top_5", "f1_macro", "f1_weighted", "f1_top_5_macro", "f1_top_5_weighted")
    per_class = {
        name: drop(scores["accuracy"], backward["per_class"][name]["accuracy"])
        for name, scores in forward["per_class"].items()
        if scores["clips"]
    }
    return {**{name: drop(forward[name], backward[name]) for name in names}, "per_class": per_class}


def table_1(results: list[dict[str, Any]], brief: bool = False) -> str:
    """Returns the rows of Table 1 for evaluated runs, as text, then, unless `brief`, each run's accuracy per class."""
    titles = ("Model", "F1 (top 1)", "F1 (top 5)", "Accuracy", "Accuracy top 5")
    rows: list[tuple[Cell, ...]] = []
    for result in results:
        forward, backward, drop = evaluation_file.table_1_cells(result)
        rows += [(result["run"], *forward), (f"{result['run']} (reversed)", *backward), ("  drop by reversal", *drop)]
    table = Table([Column(title) for title in titles], rows, forms=(".3f", ".3f", ".0%") * len(results))
    return "\n\n".join(map(tables.write_text, [table, *([] if brief else map(_class_table, results))]))


def _class_table(result: dict[str, Any]) -> Table:
    rows = [
        (f"  {name}", clips, before, after, drop)
        for name, clips, _, _, before, after, drop in evaluation_file.class_cells(result)
    ]
    scores = (Column("forward", ".3f"), Column("reversed", ".3f"), Column("drop", ".0%"))
    return Table((Column(f"{result['run']}: accuracy per class"), Column("clips", "d"), *scores), rows)
