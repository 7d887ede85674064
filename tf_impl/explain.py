"""Explain clips with TensorFlow: masks and Grad-CAM, e.g. `python tf_impl/explain.py --run=runs/i3d_synthetic`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.command_line import commands, explain_flags

flags.adopt_module_key_flags(explain_flags)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Explains what the flags say and prints the statistics."""
    # Only now: --help and wrong flags need no framework.
    from common.command_line import explain
    from tf_impl import devices, explanation

    if explain_flags.DETERMINISTIC.value:
        devices.make_deterministic()
    explain.explain(
        explain_flags.settings(),
        lambda settings: explanation.explain(settings, explain_flags.DEVICE.value),
        explain_flags.BRIEF.value,
        explain_flags.report(),
    )


def run() -> None:
    """Console script `explain-tf`."""
    commands.run(main)


if __name__ == "__main__":
    run()
