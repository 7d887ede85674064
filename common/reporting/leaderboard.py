"""The leaderboard: what `common/explaining/when_benchmark.py` gathered, as a page of the docs and tables in CSV.

A table a suite, a row a method and model; each metric as `when_scores` corrects it for chance.
"""

import pathlib
from typing import Any

from common import errors, files, tables
from common.clips.clip_store import ClipStore
from common.explaining import attribution_file, when_benchmark, when_scores
from common.reporting import paper_tables
from common.tables import Column, Table

_HEAD = """# Which frames? A leaderboard

*`make when` writes this page from its results. What methods and metrics are is in [When](when.md).*

Clips that a model gets wrong are left out. {caption} Forwards are those of one clip; a gradient counts as two.
"""


def write(results: pathlib.Path, page: pathlib.Path) -> None:
    """Writes the page, and beside the results SUITE.csv for each suite.

    Args:
      results: folder that `when_benchmark.gather` wrote to.
      page: Markdown file to write.

    Raises:
      errors.UserError: where there is no result.
    """
    suites = sorted({path.parent.parent for path in results.glob("*/*/plan.json")})
    if not suites:
        raise errors.UserError(f"Results must be there before their page. Received: {results} without any")
    parts = [_HEAD.format(caption=when_scores.CAPTION)]
    for suite in suites:
        table = suite_table(suite)
        files.write_text(results / f"{suite.name}.csv", tables.write_csv(table))
        parts.append(f"## {suite.name}\n\n{tables.write_markdown(table)}")
    files.write_text(page, "\n".join(parts))


def suite_table(suite: pathlib.Path) -> Table:
    """Returns the table of a suite's results, by method, then by model.

    Args:
      suite: folder of a suite in that of the results.
    """
    folders = sorted(path.parent for path in suite.glob("*/plan.json"))
    plans = [when_benchmark.read_plan(folder) for folder in folders]
    labels = paper_tables.labels(plans)
    rows = []
    for name in when_benchmark.ENTRIES:
        for folder, plan, label in zip(folders, plans, labels, strict=True):
            path = folder / f"{name}.npz"
            if path.exists():
                scores = when_scores.score(attribution_file.read(path), _store(plan))
                rows.append((name.replace("_", " "), label, *when_scores.cells(scores)))
    first, *others = when_scores.columns("answer")
    return Table((first, Column("model"), *others), rows)


def _store(plan: dict[str, Any]) -> ClipStore:
    return ClipStore(plan["suite"], plan["split"])
