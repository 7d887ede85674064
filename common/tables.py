"""Tables as values, and their text, CSV, Markdown and LaTeX.

A table is made once, of numbers; each writer decides how they look. Text for a terminal is ASCII, the page's is set as
in print: see `Signs`.
"""

import csv
import dataclasses
import io
import math
import textwrap
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # Control characters, parts of characters, separators of lines and paragraphs.
_TITLE_LETTERS = 16  # In a line of a title in LaTeX.


class Signs(NamedTuple):
    """What a writer of text sets in two places.

    Attributes:
      minus: before a negative number, and in an exponent.
      nothing: where a value is not defined.
    """

    minus: str
    nothing: str


TERMINAL = Signs("-", "-")
PAGE = Signs("−", "–")

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    PAGE.minus: "$-$",
    PAGE.nothing: "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[*"},  # After the end of a row they would be its options.
}
# What spreadsheets read as a formula, which could send what they hold elsewhere (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@")


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
      columns: the first names the row.
      rows: a cell a column; None where a value is not defined.
      forms: format specs of whole rows, for a table whose rows have different units; empty: those of the columns.
      name: of its files: lower case, digits and underscores. This and what follows are of no use on a terminal.
      title: short.
      caption: what the numbers are.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    forms: Sequence[str] = ()
    name: str = ""
    title: str = ""
    caption: str = ""

    def text_rows(self, signs: Signs = PAGE) -> list[list[str]]:
        """Returns every cell as a person reads it."""
        return [
            [
                _text(cell, self.forms[number] if self.forms else column.form, signs)
                for cell, column in zip(row, self.columns, strict=True)
            ]
            for number, row in enumerate(self.rows)
        ]

    def is_number(self, place: int) -> bool:
        """Returns whether a column holds numbers."""
        return any(isinstance(row[place], int | float | Estimate) for row in self.rows)


def write_text(table: Table, left: Collection[int] = (0,), signs: Signs = TERMINAL) -> str:
    """Returns a table as lines: titles, then one line per row, two blanks between columns, none at the end of a line.

    Args:
      table: the table.
      left: places of the columns that are aligned left; the others are aligned right.
      signs: of minus and of what is not defined.
    """
    rows = [[column.title for column in table.columns], *table.text_rows(signs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


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
        [csv_cell(value) for cells in row for value in cells] for row in (titles, *rows)
    )
    return out.getvalue()


def write_markdown(table: Table) -> str:
    """Returns a table as Markdown; columns of numbers are aligned right."""
    titles = [column.title for column in table.columns]
    rule = ["--:" if table.is_number(place) else "---" for place in range(len(titles))]
    rows = [titles, rule, *table.text_rows()]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows) + "\n"


def csv_cell(value: Any) -> Any:
    """Returns a value for a cell of a CSV file: text as one line, after a `'` where it would be run as a formula."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_latex(table: Table) -> str:
    """Returns a table as LaTeX for the packages booktabs and graphicx.

    An estimate's interval stands under it, in small letters. A table that is wider than the line, or so high that its
    page has no room for the caption, is scaled down.
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
            r"\resizebox*{!}{\ifdim\totalheight>.85\textheight .85\textheight\else \totalheight\fi}{"
            r"\resizebox{\ifdim\width>\linewidth \linewidth\else \width\fi}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(titles) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}}",
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
    """Returns text with LaTeX's special characters escaped, as one line."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def one_line(text: str) -> str:
    """Returns text with a blank for each character that is not to be seen, such as a newline or a terminal's codes."""
    return "".join(" " if unicodedata.category(character) in _UNSEEN else character for character in text)


def _text(cell: Cell, form: str, signs: Signs) -> str:
    if cell is None:
        return signs.nothing
    if isinstance(cell, str):
        return one_line(cell)
    if isinstance(cell, Estimate):
        value, low, high = (number_text(number, form, signs) for number in cell[:3])
        known = math.isfinite(cell.value) and math.isfinite(cell.low)
        return f"{value} [{low}, {high}]" if known else value
    return number_text(cell, form, signs)


def number_text(number: float, form: str, signs: Signs = PAGE) -> str:
    """Returns a number as a person reads it: no minus before zero, and a space before the percent sign.

    Args:
      number: the number; NaN and infinities are not defined.
      form: format spec.
      signs: of minus and of what is not defined.
    """
    if not math.isfinite(number):
        return signs.nothing
    text = f"{number:{form}}"
    if text.startswith("-") and not text.strip("-0.%"):
        text = text[1:]
    return text.replace("%", " %").replace("-", signs.minus)


def _values(cell: Cell, cells: int) -> list[Any]:
    values = list(cell) if isinstance(cell, Estimate) else [cell]
    return [
        "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
        for value in [*values, *[""] * (cells - len(values))]
    ]
