"""Checks that a clip store is whole; prints one line per problem. Example: python data_prep/verify.py /tmp/clips."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])


from common import progress, text
from common.command_line import commands
from data_prep import plans, verification


def main(argv: list[str]) -> int:
    """Checks the store in the folder argv[1]; returns 0 if it is whole, else 1."""
    directory = pathlib.Path(argv[1])
    plans.check_folder(directory, "CLIPS")
    number = 0
    with progress.bar(unit="clip", desc="checking clips") as bar:
        for problem in verification.problems(directory, bar.update):
            number += 1
            bar.write(problem, file=sys.stdout)
    sys.stdout.write(f"{text.printable(str(directory))}: {text.counted(number, 'problem') if number else 'whole'}\n")
    return 1 if number else 0


def run() -> None:
    """Console script."""
    commands.run(main, positional="CLIPS")


if __name__ == "__main__":
    run()
