"""The tables of the paper as values, and their CSV, LaTeX and text: Table 1, what reversal confuses, Table 2.

Table 1 is section 5.1, forward and reversed; the classes that reversal confuses are what the same section tells in
words. Table 2 is appendix A.1, read from the presets. The comparison of section 5.2 is made in `comparison`.
"""

import csv
import dataclasses
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common.models import configs
from common.reporting.names import FRAMEWORK_NAMES, MODEL_NAMES

NOTHING = "–"  # Stands where a value is not defined.
_TITLE_LETTERS = 16  # In a line of a title in LaTeX.

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    NOTHING: "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


class Estimate(NamedTuple):
    """A mean over clips (or a ratio of means) with a 95 % interval.

    Attributes:
      value: the estimate.
      low: lower end; NaN, as `high`, where there are fewer than two clips.
      high: upper end.
      clips: how many clips it is of.
    """

    value: float
    low: float
    high: float
    clips: int


Cell = str | int | float | Estimate | None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its title, and the format of its numbers (a format spec such as ".3f"; unused for text)."""

    title: str
    form: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as values.

    Attributes:
      name: of its files: lower case, digits and underscores.
      title: short.
      caption: what the numbers are.
      columns: the first names the row.
      rows: a cell a column; None where a value is not defined.
      forms: format specs of whole rows, for a table whose rows have different units; empty: those of the columns.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    forms: tuple[str, ...] = ()

    def text_rows(self) -> list[list[str]]:
        """Returns every cell as a person reads it."""
        return [
            [
                _text(cell, self.forms[number] if self.forms else column.form)
                for cell, column in zip(row, self.columns, strict=True)
            ]
            for number, row in enumerate(self.rows)
        ]

    def is_number(self, place: int) -> bool:
        """Returns whether a column holds numbers."""
        return any(isinstance(row[place], int | float | Estimate) for row in self.rows)


def write_csv(table: Table) -> str:
    """Returns a table as CSV with all digits; an estimate is four columns, what is not defined an empty cell."""
    width = [
        4 if any(isinstance(row[place], Estimate) for row in table.rows) else 1 for place in range(len(table.columns))
    ]
    titles = [
        [column.title, f"{column.title}: low", f"{column.title}: high", f"{column.title}: clips"][:cells]
        for column, cells in zip(table.columns, width, strict=True)
    ]
    rows = [[_values(cell, cells) for cell, cells in zip(row, width, strict=True)] for row in table.rows]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [value for cells in row for value in cells] for row in (titles, *rows)
    )
    return out.getvalue()


def write_latex(table: Table) -> str:
    """Returns a table as LaTeX for the packages booktabs and graphicx.

    An estimate's interval stands under it, in small letters. A table that is wider than the line is scaled down.
    """
    titles = [
        _latex_title(column.title) if table.is_number(place) else escape_latex(column.title)
        for place, column in enumerate(table.columns)
    ]
    lines = [
        line for row, cells in zip(table.text_rows(), table.rows, strict=True) for line in _latex_lines(row, cells)
    ]
    align = "".join("r" if table.is_number(place) else "l" for place in range(len(table.columns)))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(_sentence(table.title))} {escape_latex(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\linewidth \linewidth\else \width\fi}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(titles) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _latex_title(title: str) -> str:
    """Returns a title of a column of numbers, in several lines where it is much wider than they are."""
    lines = textwrap.wrap(title, _TITLE_LETTERS, break_long_words=False)
    escaped = r" \\ ".join(map(escape_latex, lines))
    return rf"\shortstack[r]{{{escaped}}}" if len(lines) > 1 else escaped


def _latex_lines(texts: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """Returns a row's line, and under it that of its intervals if it has some."""
    parts = [
        text.partition(" [") if isinstance(cell, Estimate) else (text, "", "")
        for text, cell in zip(texts, cells, strict=True)
    ]
    lines = [" & ".join(escape_latex(value) for value, _, _ in parts) + r" \\"]
    if any(interval for _, _, interval in parts):
        below = [rf"{{\scriptsize [{escape_latex(interval)}}}" if interval else "" for _, _, interval in parts]
        lines.append(" & ".join(below) + r" \\")
    return lines


def escape_latex(text: str) -> str:
    """Returns text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _text(cell: Cell, form: str) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Estimate):
        value, low, high = (_text(number, form) for number in cell[:3])
        return value if NOTHING in (value, low) else f"{value} [{low}, {high}]"
    return number_text(cell, form)


def number_text(number: float, form: str) -> str:
    """Returns a number as a person reads it: a true minus, none before zero, a space before the percent sign."""
    if not math.isfinite(number):
        return NOTHING
    text = f"{number:{form}}"
    if text.startswith("-") and not text.strip("-0.%"):
        text = text[1:]
    return text.replace("%", " %").replace("-", "−")


def _values(cell: Cell, cells: int) -> list[Any]:
    values = list(cell) if isinstance(cell, Estimate) else [cell]
    return [
        "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
        for value in [*values, *[""] * (cells - len(values))]
    ]


def labels(headers: Sequence[dict[str, Any]]) -> list[str]:
    """Returns short names of runs, each another: model and framework; the run too where these say too little.

    Args:
      headers: with "model", "run" and "framework" (of `explanations.h5` or `evaluation.json`).
    """

    def different(names: list[str], longer: Callable[[int], str]) -> list[str]:
        return [longer(number) if names.count(name) > 1 else name for number, name in enumerate(names)]

    models = [MODEL_NAMES.get(header["model"], header["model"]) for header in headers]
    frameworks = [FRAMEWORK_NAMES.get(header["framework"], header["framework"]) for header in headers]
    names = [f"{model} ({framework})" for model, framework in zip(models, frameworks, strict=True)]
    names = different(names, lambda n: f"{models[n]} ({headers[n]['run']}, {frameworks[n]})")
    return different(names, lambda n: f"{names[n]} #{n + 1}")


def table_1(evaluations: Sequence[dict[str, Any]]) -> Table:
    """Returns Table 1 of evaluations (values of `evaluation.json`), two rows each: forward and reversed."""
    keys = ("f1_weighted", "f1_top_5_weighted", "top_1", "top_5")
    rows: list[tuple[Cell, ...]] = []
    for result, label in zip(evaluations, _by_data_set(evaluations), strict=True):
        for shown, name in (("forward", label), ("reversed", f"{label} reversed")):
            drops = [result["drop"][key] if shown == "reversed" else None for key in keys[:2]]
            rows.append((name, result["dataset"], *(result[shown][key] for key in keys), *drops))
    titles = ("F1 top 1", "F1 top 5", "Accuracy top 1", "Accuracy top 5")
    return Table(
        "table_1",
        "Table 1: scores forward and reversed",
        "F1 weighted by clips of each class. A drop is relative to the forward score.",
        (
            *(Column("Model"), Column("Data set")),
            *(Column(title, ".3f") for title in titles),
            *(Column("Drop, top 1", ".0%"), Column("Drop, top 5", ".0%")),
        ),
        tuple(rows),
    )


def _by_data_set(evaluations: Sequence[dict[str, Any]]) -> list[str]:
    """Returns labels of evaluations: one model may be evaluated on several data sets under one name."""
    found = [""] * len(evaluations)
    for dataset in {result["dataset"] for result in evaluations}:
        places = [number for number, result in enumerate(evaluations) if result["dataset"] == dataset]
        for number, label in zip(places, labels([evaluations[place] for place in places]), strict=True):
            found[number] = label
    return [found[number] for number in range(len(evaluations))]


def classes_tables(evaluations: Sequence[dict[str, Any]]) -> list[Table]:
    """Returns for each evaluation a row a class: scores, the drop, and what its reversed clips are taken for."""
    return [
        _classes_table(number, result, label)
        for number, (result, label) in enumerate(zip(evaluations, _by_data_set(evaluations), strict=True))
    ]


def _classes_table(number: int, result: dict[str, Any], label: str) -> Table:
    names = list(result["forward"]["per_class"])
    rows: list[tuple[Cell, ...]] = []
    for place, name in enumerate(names):
        before, after = (result[shown]["per_class"][name] for shown in ("forward", "reversed"))
        if before["clips"]:
            guesses = result["reversed"]["confusion"][place]
            most = max(range(len(guesses)), key=guesses.__getitem__)
            scores = (before["f1"], after["f1"], before["accuracy"], after["accuracy"])
            share = guesses[most] / before["clips"]
            rows.append((name, before["clips"], *scores, result["drop"]["per_class"].get(name), names[most], share))
    rows.sort(key=lambda row: (row[6] is None, -(row[6] or 0.0)))  # type: ignore[operator]
    best = max(names, key=lambda name: result["reversed"]["per_class"][name]["f1"])
    return Table(
        f"classes_{number + 1}",
        f"What reversal confuses: {label}, {result['dataset']}",
        "Largest drop of accuracy first. The last two columns: the class that most of the reversed clips are taken "
        f"for, and how many of them. Highest F1 after reversal: {best} "
        f"({result['reversed']['per_class'][best]['f1']:.3f}).",
        (
            *(Column("Class"), Column("Clips", "d"), Column("F1", ".3f"), Column("F1 reversed", ".3f")),
            *(Column("Accuracy", ".3f"), Column("Accuracy reversed", ".3f"), Column("Drop", ".0%")),
            *(Column("Reversed, taken for"), Column("Share", ".0%")),
        ),
        tuple(rows),
    )


def table_2() -> Table:
    """Returns Table 2: what the presets train with."""
    rows: list[tuple[Cell, ...]] = []
    for name, preset in configs.PRESETS.items():
        momentum = preset.momentum if preset.optimizer == "sgd" else None
        rows.append(
            (name, preset.model.dropout, preset.weight_decay, preset.optimizer.upper(), preset.epochs, momentum)
        )
    return Table(
        "table_2",
        "Table 2: hyperparameters",
        "The presets. The synthetic ones are not the paper's.",
        (
            *(Column("Preset"), Column("Dropout rate", "g"), Column("Weight decay", "g"), Column("Optimizer")),
            *(Column("Epochs", "d"), Column("Momentum", "g")),
        ),
        tuple(rows),
    )
