"""What `explain.py` does in both builds."""

import pathlib
import sys
from collections.abc import Callable

from common.clips.clip_store import ClipStore
from common.explaining import explanation_statistics
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations
from common.reporting import building, event_images
from common.reporting.building import ReportSettings
from common.runs.run_directory import RunDirectory


def explain(
    settings: ExplainSettings,
    explain_model: Callable[[ExplainSettings], tuple[Explanations, ClipStore]],
    brief: bool = False,
    report: pathlib.Path | None = None,
) -> None:
    """Explains clips, shows a few in TensorBoard if the run's own file was made, and prints the statistics in any case.

    With `report` the clips are also shown on a page, with the run's evaluation where there is one.

    Args:
      settings: what to explain.
      explain_model: the build's, see `explanation_loop.explain`.
      brief: print no tables of classes, and not what the columns mean.
      report: folder of the page.

    Raises:
      units.UnfinishedError: where a task of an array job leaves parts to others; nothing is shown.
    """
    was_there = settings.path.exists()
    explained, store = explain_model(settings)
    try:
        if not was_there and settings.path.parent == settings.model:  # A run directory; a foreign model has no events.
            event_images.write_explanations(RunDirectory(settings.path.parent).events, explained, store)
    finally:
        statistics = explanation_statistics.clip_statistics(explained, store)
        named = [(explained.header["run"], explained, statistics)]
        sys.stdout.write(explanation_statistics.table(named, brief) + "\n")
    if report:
        evaluation = settings.path.with_name("evaluation.json")
        evaluations = (evaluation,) if evaluation.exists() else ()
        page = building.build(
            ReportSettings(report, (settings.path,), evaluations, clips=store.directory, cache=settings.cache)
        )
        sys.stdout.write(f"\n{page}\n")
