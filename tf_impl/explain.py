"""Explain clips with TensorFlow: masks and Grad-CAM, e.g. `python tf_impl/explain.py --run=runs/i3d_synthetic`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import errors
from common.command_line import explain_flags
from common.explaining import explanation_statistics
from tf_impl import explanation

flags.adopt_module_key_flags(explain_flags)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Explains what the flags say and prints the statistics."""
    explained, store = explanation.explain(explain_flags.settings(), explain_flags.DEVICE.value)
    statistics = explanation_statistics.clip_statistics(explained, store)
    sys.stdout.write(explanation_statistics.table([(explained.header["run"], explained, statistics)]) + "\n")


def run() -> None:
    """Console script `explain-tf`."""
    errors.run(main)


if __name__ == "__main__":
    run()
