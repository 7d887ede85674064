"""How the runs of a report were trained: their own settings (Table 2 of the paper), and curves of their logs."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from common import errors
from common.reporting import charts, paper_tables
from common.reporting.names import FRAMEWORK_NAMES, MODEL_NAMES
from common.runs.run_directory import RunConfig, RunDirectory
from common.tables import Cell, Column, Table


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run: its short name, each another; its settings; and the lines of its log, one an epoch."""

    label: str
    config: RunConfig
    log: list[dict[str, Any]]


def found(given: Sequence[pathlib.Path], beside: Iterable[tuple[pathlib.Path, str]]) -> list[Trained]:
    """Returns the runs that a report is of, each once.

    Args:
      given: run directories.
      beside: (file, name of the run that it is of): `explanations.h5` and `evaluation.json` mostly lie in their run.

    Raises:
      errors.UserError: for a given folder that holds no run.
    """
    for path in given:
        if not RunDirectory(path).exists():
            raise errors.UserError(f"--runs must name run directories. Received: {path} without config.json")
    folders = [*given]
    for file, name in beside:
        run = RunDirectory(file.parent)
        if run.exists() and run.name == name:
            folders.append(file.parent)
    runs = [RunDirectory(path) for path in dict.fromkeys(path.resolve() for path in folders)]
    return [Trained(label, run.read_config(), run.read_log()) for label, run in zip(_labels(runs), runs, strict=True)]


def _labels(runs: Sequence[RunDirectory]) -> list[str]:
    return paper_tables.told_apart([run.name for run in runs], range(len(runs)), lambda n, name: f"{name} #{n + 1}")


def table(runs: Sequence[Trained]) -> Table:
    """Returns the settings, a row a run, and what came of them."""
    return Table(
        (
            *(Column("Run"), Column("Model"), Column("Trained on"), Column("With"), Column("Optimizer")),
            *(Column("Learning rate", "g"), Column("Momentum", "g"), Column("Weight decay", "g")),
            *(Column("Dropout", "g"), Column("Batch", "d"), Column("Epochs"), Column("Best top-1, validation", ".3f")),
        ),
        [_row(run) for run in runs],
        name="training",
        title="Training settings (Table 2 of the paper)",
        caption="Epochs trained, of those asked for. The learning rate is that of the first step.",
    )


def _row(run: Trained) -> tuple[Cell, ...]:
    train = run.config.train
    trained = bool(run.log)
    return (
        *(run.label, MODEL_NAMES.get(train.model.model, train.model.model), run.config.data["dataset"]),
        *(FRAMEWORK_NAMES.get(run.config.framework, run.config.framework), train.optimizer.upper()),
        *(train.learning_rate, train.momentum if train.optimizer == "sgd" else None, train.weight_decay),
        *(train.model.dropout, train.batch_size),
        f"{run.log[-1]['epoch']} of {train.epochs}" if trained else None,
        max(line["validation_top_1"] for line in run.log) if trained else None,
    )


def curves(runs: Sequence[Trained]) -> list[tuple[str, str]]:
    """Returns (title, SVG) of loss and accuracy over the epochs of each run that has a log."""
    pictures = []
    for run in runs:
        for what, train, validation in (
            ("Loss", "train_loss", "validation_loss"),
            ("Accuracy", "train_accuracy", "validation_top_1"),
        ):
            lines = {
                "validation": [line[validation] for line in run.log],
                "training": [line[train] for line in run.log],
            }
            if run.log:
                ceiling = 1.0 if what == "Accuracy" else None
                pictures.append((f"{what}: {run.label}", charts.epochs(what, lines, run.log[0]["epoch"], ceiling)))
    return pictures
