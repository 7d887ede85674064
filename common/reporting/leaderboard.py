"""The leaderboard: what `common/explaining/when_benchmark.py` gathered, as a page of the docs and tables in CSV.

Two tables a suite, a row a method and model: each metric as `when_scores` corrects it for chance, and what is selected.
In CSV a model has a row for each framework that asked it; on the page rows that read the same are one.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from common import errors, files, tables
from common.clips.clip_store import ClipStore
from common.explaining import attribution_file, when_benchmark, when_entries, when_scores
from common.reporting import paper_tables
from common.reporting.names import FRAMEWORK_NAMES
from common.tables import Cell, Column, Table

_HEAD = """# Which frames? A leaderboard

*`make when` writes this page from its results. What methods and metrics are is in [When](when.md).*

Clips that a model gets wrong are left out. Forwards are those of one clip; a gradient counts as two. Where both
frameworks asked a model and every number is the same as printed, they share a row.

First table of each suite: {caption}

Second table: {selection_caption}
"""


def write(results: pathlib.Path, page: pathlib.Path) -> None:
    """Writes the page, and beside the results SUITE.csv and SUITE_selected.csv for each suite.

    Args:
      results: folder that `when_benchmark.gather` wrote to.
      page: Markdown file to write.

    Raises:
      errors.UserError: where there is no result.
    """
    suites = sorted({path.parent.parent for path in results.glob("*/*/plan.json")})
    if not suites:
        raise errors.UserError(f"Results must be there before their page. Received: {results} without any")
    parts = [_HEAD.format(caption=when_scores.CAPTION, selection_caption=when_scores.SELECTION_CAPTION)]
    for suite in suites:
        parts.append(f"## {suite.name}\n")
        for table in suite_tables(suite):
            files.write_text(results / f"{table.name}.csv", tables.write_csv(table))
            parts.append(tables.write_markdown(_frameworks_together(table)))
    files.write_text(page, "\n".join(parts))


def suite_tables(suite: pathlib.Path) -> list[Table]:
    """Returns the tables of a suite's results, by method, then by model.

    Args:
      suite: folder of a suite in that of the results.
    """
    folders = sorted(path.parent for path in suite.glob("*/plan.json"))
    plans = [when_benchmark.read_plan(folder) for folder in folders]
    rows, selections = [], []
    for name in when_entries.ENTRIES:
        for folder, plan, label in zip(folders, plans, paper_tables.labels(plans), strict=True):
            path = folder / f"{name}.npz"
            if path.exists():
                scores = when_scores.score(attribution_file.read(path), _store(plan))
                row = (name.replace("_", " "), label)
                rows.append((*row, *when_scores.cells(scores)))
                selections.append((*row, *when_scores.selection_cells(scores)))
    return [
        Table(_with_model(when_scores.columns("answer")), rows, name=suite.name),
        Table(_with_model(when_scores.selection_columns("answer")), selections, name=f"{suite.name}_selected"),
    ]


def _frameworks_together(table: Table) -> Table:
    """Returns a table in which rows that read the same but for the framework are one, which names both."""
    alike: dict[tuple[str, ...], tuple[Sequence[Cell], list[str]]] = {}  # As read -> a row of it, frameworks.
    for row, (answer, model, *cells) in zip(table.rows, table.text_rows(), strict=True):
        framework = next(name for name in FRAMEWORK_NAMES.values() if name in model)
        before, _, after = model.rpartition(framework)
        alike.setdefault((answer, before, after, *cells), (row, []))[1].append(framework)
    together = [
        (row[0], f"{before}{', '.join(sorted(frameworks))}{after}", *row[2:])
        for (_, before, after, *_), (row, frameworks) in alike.items()
    ]
    return dataclasses.replace(table, rows=together)


def _with_model(columns: list[Column]) -> list[Column]:
    first, *others = columns
    return [first, Column("model"), *others]


def _store(plan: dict[str, Any]) -> ClipStore:
    return ClipStore(plan["suite"], plan["split"])
