"""Tables of the paper as values: Table 1, and what reversal confuses.

Table 1 is section 5.1, forward and reversed; the classes that reversal confuses are what the same section tells in
words. The comparison of section 5.2 is made in `comparison`, Table 2 (appendix A.1) of the runs' own settings in
`training`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from common.reporting.names import FRAMEWORK_NAMES, GAME_NAMES, MODEL_NAMES
from common.runs import evaluation_file
from common.tables import Cell, Column, Table


def labels(headers: Sequence[dict[str, Any]]) -> list[str]:
    """Returns short names of runs, each another: what `names` returns, the masks' game where that says too little.

    Args:
      headers: with "model", "run" and "framework" (of `explanations.h5` or `evaluation.json`); those of explanations
        also with "mask".
    """
    games = [GAME_NAMES[header["mask"]["game"]] if "mask" in header else "" for header in headers]
    found = told_apart(names(headers), games, lambda n, name: f"{name}, {games[n]}")
    return told_apart(found, range(len(headers)), lambda n, name: f"{name} #{n + 1}")


def names(headers: Sequence[dict[str, Any]]) -> list[str]:
    """Returns names of models: model and framework, the run too where these say too little. Games share a name."""
    models = [MODEL_NAMES.get(header["model"], header["model"]) for header in headers]
    frameworks = [FRAMEWORK_NAMES.get(header["framework"], header["framework"]) for header in headers]
    runs = [header["run"] for header in headers]
    found = [f"{model} ({framework})" for model, framework in zip(models, frameworks, strict=True)]
    return told_apart(found, runs, lambda n, name: f"{models[n]} ({runs[n]}, {frameworks[n]})")


def told_apart(found: list[str], differences: Sequence[Any], longer: Callable[[int, str], str]) -> list[str]:
    """Returns names, longer ones where equal names differ in what is given of each.

    Args:
      found: names.
      differences: of each name what may tell it from an equal one.
      longer: number and name -> longer name.
    """
    kinds = {name: {other for same, other in zip(found, differences, strict=True) if same == name} for name in found}
    return [longer(n, name) if len(kinds[name]) > 1 else name for n, name in enumerate(found)]


def table_1(evaluations: Sequence[dict[str, Any]]) -> Table:
    """Returns Table 1 of evaluations (values of `evaluation.json`), two rows each: forward and reversed."""
    rows: list[tuple[Cell, ...]] = []
    for result, label in zip(evaluations, by_data_set(evaluations), strict=True):
        forward, backward, drops = evaluation_file.table_1_cells(result)
        rows.append((label, result["dataset"], *forward, None, None))
        rows.append((f"{label} reversed", result["dataset"], *backward, *drops[:2]))
    titles = ("F1 top 1", "F1 top 5", "Accuracy top 1", "Accuracy top 5")
    return Table(
        (
            *(Column("Model"), Column("Data set")),
            *(Column(title, ".3f") for title in titles),
            *(Column("Drop, top 1", ".0%"), Column("Drop, top 5", ".0%")),
        ),
        rows,
        name="table_1",
        title="Scores forward and reversed (Table 1 of the paper)",
        caption="F1 weighted by clips of each class. A drop is relative to the forward score; a rise is none (–).",
    )


def by_data_set(evaluations: Sequence[dict[str, Any]]) -> list[str]:
    """Returns labels of evaluations: one model may be evaluated on several data sets under one name."""
    found = [""] * len(evaluations)
    for dataset in {result["dataset"] for result in evaluations}:
        places = [number for number, result in enumerate(evaluations) if result["dataset"] == dataset]
        for number, label in zip(places, labels([evaluations[place] for place in places]), strict=True):
            found[number] = label
    return [found[number] for number in range(len(evaluations))]


def classes_tables(evaluations: Sequence[dict[str, Any]]) -> list[Table]:
    """Returns for each evaluation one row per class: scores, the drop, and what its reversed clips are taken for."""
    return [
        _classes_table(number, result, label)
        for number, (result, label) in enumerate(zip(evaluations, by_data_set(evaluations), strict=True))
    ]


def _classes_table(number: int, result: dict[str, Any], label: str) -> Table:
    names = list(result["forward"]["per_class"])
    rows: list[tuple[Cell, ...]] = []
    for name, clips, *scores in evaluation_file.class_cells(result):
        guesses = result["reversed"]["confusion"][names.index(name)]
        most = max(range(len(guesses)), key=guesses.__getitem__)
        rows.append((name, clips, *scores, names[most], guesses[most] / clips))
    rows.sort(key=lambda row: (row[6] is None, -(row[6] or 0.0)))  # type: ignore[operator]
    best = max(names, key=lambda name: result["reversed"]["per_class"][name]["f1"])
    return Table(
        (
            *(Column("Class"), Column("Clips", "d"), Column("F1", ".3f"), Column("F1 reversed", ".3f")),
            *(Column("Accuracy", ".3f"), Column("Accuracy reversed", ".3f"), Column("Drop", ".0%")),
            *(Column("Reversed, taken for"), Column("Share", ".0%")),
        ),
        rows,
        name=f"classes_{number + 1}",
        title=f"What reversal confuses: {label}, {result['dataset']}",
        caption="Largest drop of accuracy first. The last two columns: the class that most of the reversed clips are "
        f"taken for, and how many of them. Highest F1 after reversal: {best} "
        f"({result['reversed']['per_class'][best]['f1']:.3f}).",
    )
