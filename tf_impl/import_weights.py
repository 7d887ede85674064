"""Import published I3D weights with TensorFlow: `python tf_impl/import_weights.py --weights=FILE --run=RUN`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.command_line import commands, import_flags
from common.runs import importing

flags.adopt_module_key_flags(import_flags)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Makes a run directory of what the flags name, and prints what became of it."""
    settings = import_flags.settings()
    # Only now: --help and wrong flags need no framework.
    from tf_impl import training, weight_files

    imported = importing.import_run(settings, training.Trainer.framework, training.versions(), weight_files.read)
    sys.stdout.write(importing.report(settings, imported) + "\n")


def run() -> None:
    """Console script `import-weights-tf`."""
    commands.run(main)


if __name__ == "__main__":
    run()
