"""What `evaluate.py` does in both builds."""

import sys
from collections.abc import Callable
from typing import Any

from common.reporting import event_images
from common.runs import evaluation_loop
from common.runs.evaluation_loop import EvaluateSettings
from common.runs.run_directory import RunDirectory


def evaluate(settings: EvaluateSettings, evaluate_runs: Callable[[EvaluateSettings], list[dict[str, Any]]]) -> None:
    """Evaluates runs, shows their confusion matrices in TensorBoard, and prints Table 1.

    Args:
      settings: what to evaluate.
      evaluate_runs: the build's, see `evaluation_loop.evaluate`.
    """
    results = evaluate_runs(settings)
    for run, result in zip(settings.runs, results, strict=True):
        event_images.write_evaluation(RunDirectory(run).events, result)
    sys.stdout.write(evaluation_loop.table_1(results) + "\n")
