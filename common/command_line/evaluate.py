"""What `evaluate.py` does in both builds."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from common.reporting import event_images
from common.runs import evaluation_file, evaluation_loop
from common.runs.evaluation_loop import EvaluateSettings
from common.runs.run_directory import RunDirectory


def evaluate(
    settings: EvaluateSettings,
    evaluate_models: Callable[[EvaluateSettings], Iterable[dict[str, Any] | None]],
    brief: bool = False,
) -> None:
    """Evaluates models, writes each one's file as soon as it is done, and prints Table 1.

    Confusion matrices are shown in TensorBoard if the run's own file was written. Whatever goes wrong, Table 1 of what
    was evaluated is printed.

    Args:
      settings: what to evaluate.
      evaluate_models: the build's, see `evaluation_loop.evaluate`.
      brief: print no table of classes.

    Raises:
      OSError: the first, where files could not be written; the models after it are evaluated nevertheless.
    """
    results: list[dict[str, Any]] = []
    failures: list[OSError] = []
    try:
        for source, path, result in zip(settings.models, settings.paths, evaluate_models(settings), strict=True):
            if result is None:  # Another process has it.
                continue
            results.append(result)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                evaluation_file.write(path, result)
                if path.parent == source:  # A run directory; a foreign model has no events.
                    event_images.write_evaluation(RunDirectory(path.parent).events, result)
            except OSError as error:
                failures.append(error)
    finally:
        if results:
            sys.stdout.write(evaluation_loop.table_1(results, brief) + "\n")
    if failures:
        raise failures[0]
