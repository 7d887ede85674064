"""Train a video classifier with PyTorch, e.g. `python torch_impl/train.py --preset=conv_lstm_planted`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.clips import clip_store
from common.command_line import commands, train_flags
from common.models import architectures

flags.adopt_module_key_flags(train_flags)  # So that --help lists them.


def main(_: list[str]) -> int:
    """Trains what the flags say; returns the exit code."""
    if train_flags.DESCRIBE.value:
        config = train_flags.train_config(train_flags.described_clips())
        sys.stdout.write(architectures.describe(config.model) + "\n")
        return 0
    settings = train_flags.settings()
    own_data = train_flags.own_data()
    if own_data and not pathlib.Path(settings.clips, "dataset.json").exists():
        from data_prep import building  # Loaded only where videos must be made.

        train_flags.train_config()  # Refuses wrong flags before that.
        code = building.prepare(building.PrepareConfig(own_data, pathlib.Path(settings.clips)))
        if code:
            return code
    # Only now: --help, --describe and wrong flags need no framework.
    from torch_impl import devices, training

    if train_flags.DETERMINISTIC.value:
        devices.make_deterministic()
    config = train_flags.train_config(clip_store.read_dataset_json(settings.clips))
    training.train(config, settings, train_flags.DEVICE.value)
    return 0


def run() -> None:
    """Console script `train-torch`."""
    commands.run(main)


if __name__ == "__main__":
    run()
