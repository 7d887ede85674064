"""Scores any tool's answer to "which frames?", e.g. `python common/score_when.py --attributions=a.npz --suite=DIR`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import tables
from common.command_line import commands, score_when_flags
from common.explaining import when_scores

flags.adopt_module_key_flags(score_when_flags)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Scores what the flags say, prints the tables and writes them; if one of the two fails, the other is done."""
    settings = score_when_flags.settings()
    found = when_scores.score_files(settings)
    try:
        blocks = [f"{tables.write_text(table)}\n\n{table.caption}" for table in found.tables]
        sys.stdout.write("\n\n".join(blocks) + "\n")
        sys.stdout.flush()
    finally:
        if settings.out:
            when_scores.write(settings.out, found)


def run() -> None:
    """Console script `score-when`."""
    commands.run(main)


if __name__ == "__main__":
    run()
