"""Makes a page of runs, e.g. `python common/report.py --explanations=a.h5,b.h5 --evaluations=evaluation.json`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.command_line import commands, report_flags
from common.reporting import building

flags.adopt_module_key_flags(report_flags)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Builds the report and prints where it is."""
    page = building.build(report_flags.settings())
    sys.stdout.write(f"{page}\n")


def run() -> None:
    """Console script `report-explanations`."""
    commands.run(main)


if __name__ == "__main__":
    run()
