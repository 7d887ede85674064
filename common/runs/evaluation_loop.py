"""Table 1 of the paper: scores on clips shown forward and reversed, and what the reversal costs.

"To investigate how reliant the two models are on the temporal order of the input frames, a further test was conducted
with the input sequences reversed" (section 5.1). A drop is relative to the forward score, as the paper's 78 % and 79 %.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from common import errors, files, remote, tables, text
from common.clips.clip_store import ClipStore
from common.models import foreign
from common.remote import Cache
from common.runs import evaluation_file, metrics, order_card, prediction, subjects
from common.runs.processes import ALONE, Processes, check_same
from common.runs.subjects import Classifier, LoadForeign, Subject
from common.tables import Cell, Column, Table

PredictBatch = Callable[[np.ndarray], ArrayLike]


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """What to evaluate.

    Attributes:
      models: run directories, of either framework, and foreign models.
      clips: folder or URL of the clip store, or None for the one that each run was trained on.
      split: of the clips.
      batch_size: clips at a time.
      num_threads: threads that read clips.
      order_card: whether to show clips in other ways, too (see `order_card`); it takes T + 1 more passes.
      out: file to write for each model, or () for evaluation.json in each one's `foreign.folder`.
      cache: where clips at a URL are kept.
    """

    models: tuple[foreign.Source, ...]
    clips: files.Place | None = None
    split: str = "validation"
    batch_size: int = 16
    num_threads: int = 2
    order_card: bool = False
    out: tuple[pathlib.Path, ...] = ()
    cache: Cache = remote.DEFAULT

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """The file to write for each model."""
        return self.out or tuple(foreign.folder(model) / "evaluation.json" for model in self.models)

    def __post_init__(self) -> None:
        # Without --out too: foreign models of one name have one folder.
        if not len({path.resolve() for path in self.paths}) == len(self.paths) == len(self.models):
            raise errors.UserError(
                f"--out must name one file for each model, all different. "
                f"Received: {', '.join(map(str, self.paths))} for {text.counted(len(self.models), 'model')}"
            )


def evaluate(
    settings: EvaluateSettings,
    make_predict: Callable[[Classifier], PredictBatch],
    framework: str,
    load: LoadForeign = subjects.load_none,
    processes: Processes = ALONE,
) -> Iterator[dict[str, Any] | None]:
    """Evaluates models forward and reversed, each when it is asked for; writes nothing.

    Args:
      settings: what to evaluate.
      make_predict: classifier -> function from clips uint8 [n, T, H, W, 3] to logits [n, K].
      framework: that computes: "torch" or "tf".
      load: loads a foreign model.
      processes: that share the clips.

    Yields:
      What `evaluation_file.write` takes, of one model after the other; None where another process does.

    Raises:
      errors.UserError: for clips without labels, or processes that are to evaluate different things.
    """
    check_same(processes, {"number of models": len(settings.models)})
    for source in settings.models:
        result = _evaluate_one(source, settings, make_predict, framework, load, processes)
        yield result if processes.rank == 0 else None


def _evaluate_one(
    source: foreign.Source,
    settings: EvaluateSettings,
    make_predict: Callable[[Classifier], PredictBatch],
    framework: str,
    load: LoadForeign,
    processes: Processes,
) -> dict[str, Any]:
    """Returns what `evaluation_file.write` takes; see `evaluate`."""
    subject, store = _open(source, settings, load, processes)
    subject.tell(len(store), store)
    predict_batch = make_predict(subject.classifier)
    names, time = store.info.class_names, store.info.layout.frames

    def predict(shown: str, orders: np.ndarray | None) -> np.ndarray:
        logits = prediction.predict(
            predict_batch,
            store,
            batch_size=settings.batch_size,
            num_threads=settings.num_threads,
            orders=orders,
            progress=f"{subject.name} {shown}",
            processes=processes,
        )
        subjects.check_classes(logits, store.info)
        return logits

    backward = order_card.backward(len(store), time)
    logits = {"forward": predict("forward", None), "reversed": predict("reversed", backward)}
    scores = {name: metrics.classification_metrics(values, store.labels, names) for name, values in logits.items()}
    card = order_card.card(predict, logits, store.labels, names, time) if settings.order_card else None
    return {
        "run": subject.name,
        "model": subject.model,
        "dataset": store.info.dataset,
        "framework": framework,
        "trained_with": subject.trained_with,
        "clips": str(store.directory),
        "split": settings.split,
        **scores,
        "drop": _drops(scores["forward"], scores["reversed"]),
        **({"order_card": card} if card else {}),
    }


def _open(
    source: foreign.Source, settings: EvaluateSettings, load: LoadForeign, processes: Processes
) -> tuple[Subject, ClipStore]:
    """Opens a model and the clips to evaluate it on; refuses clips without labels, and processes that differ."""
    subject, store = subjects.open_subject(source, settings.clips, settings.split, load, settings.cache)
    if not len(store) or store.labels.min() < 0:
        raise errors.UserError(
            "For evaluation all clips must be labelled, with classes of the model. "
            f"Received: {text.counted(int((store.labels < 0).sum()), 'clip')} of {len(store)} without such a label, in "
            f"{settings.split} of {store.directory}"
        )
    same = {
        "model": subject.digest,
        "clips": store.info.digest,
        "--split": settings.split,
        "--batch_size": settings.batch_size,
        "--order_card": settings.order_card,
    }
    check_same(processes, same)
    return subject, store


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
    """Returns the rows of Table 1 for evaluated models, as text; then, unless `brief`, accuracies per class.

    Where there are order cards, they follow.
    """
    titles = ("Model", "F1 (top 1)", "F1 (top 5)", "Accuracy", "Accuracy top 5")
    rows: list[tuple[Cell, ...]] = []
    for result in results:
        forward, backward, drop = evaluation_file.table_1_cells(result)
        rows += [(result["run"], *forward), (f"{result['run']} (reversed)", *backward), ("  drop by reversal", *drop)]
    table = Table([Column(title) for title in titles], rows, forms=(".3f", ".3f", ".0%") * len(results))
    blocks = list(map(tables.write_text, [table, *([] if brief else map(_class_table, results))]))
    for result in results:
        if "order_card" in result:
            shown, by_class = map(tables.write_text, order_card.card_tables(result["run"], result["order_card"]))
            blocks += [shown] if brief else [shown, by_class]
            blocks.append(f"{result['run']}: {order_card.sentence(result['order_card'])}")
    return "\n\n".join(blocks)


def _class_table(result: dict[str, Any]) -> Table:
    rows = [
        (f"  {name}", clips, before, after, drop)
        for name, clips, _, _, before, after, drop in evaluation_file.class_cells(result)
    ]
    scores = (Column("forward", ".3f"), Column("reversed", ".3f"), Column("drop", ".0%"))
    return Table((Column(f"{result['run']}: accuracy per class"), Column("clips", "d"), *scores), rows)
