"""Evaluate runs with PyTorch, forward and reversed, e.g. `python torch_impl/evaluate.py --run=runs/i3d_planted`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.command_line import commands, evaluate_flags

flags.adopt_module_key_flags(evaluate_flags)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Evaluates what the flags say and prints Table 1."""
    settings = evaluate_flags.settings()
    # Only now: --help and wrong flags need no framework.
    from common.command_line import evaluate
    from torch_impl import devices, evaluation

    if evaluate_flags.DETERMINISTIC.value:
        devices.make_deterministic()
    evaluate.evaluate(
        settings,
        lambda settings: evaluation.evaluate(settings, evaluate_flags.PRECISION.value, evaluate_flags.DEVICE.value),
        evaluate_flags.BRIEF.value,
    )


def run() -> None:
    """Console script `evaluate-torch`."""
    commands.run(main)


if __name__ == "__main__":
    run()
