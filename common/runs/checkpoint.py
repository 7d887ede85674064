"""A training's checkpoint: the state of its trainer, and the place in the run that the state belongs to.

A safetensors file of canonical arrays, `weights/NAME` and `optimizer/NAME`, whose header holds `Progress` and schedule.
It is read as strictly as what a run of this config and these clips can have written.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple, TypedDict

import numpy as np

from common import errors, files
from common.models import canonical_weights, configs
from common.runs.schedules import PlateauSchedule

FORMAT = "training-checkpoint-1"


@dataclasses.dataclass
class Progress:
    """Where a run is.

    Attributes:
      epoch: epochs that are finished; all but `step` is of the epoch after these.
      step_in_epoch: steps that were taken.
      step: steps in all epochs.
      loss_sum: of the clips (nats).
      correct: clips that were guessed right.
      clips: that were trained on.
      seconds: that this took.
    """

    epoch: files.Count = 0
    step_in_epoch: files.Count = 0
    step: files.Count = 0
    loss_sum: float = 0.0
    correct: files.Count = 0
    clips: files.Count = 0
    seconds: float = 0.0

    def start_epoch(self) -> None:
        """Sets what is of one epoch to 0."""
        self.step_in_epoch = self.correct = self.clips = 0
        self.loss_sum = self.seconds = 0.0


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      weights: canonical name -> array.
      optimizer_state: see `training_loop.Trainer.optimizer_state`.
      progress: where the run is.
      schedule: of the learning rate.
    """

    weights: dict[str, np.ndarray]
    optimizer_state: dict[str, np.ndarray]
    progress: Progress
    schedule: PlateauSchedule


class _Header(TypedDict):
    format: files.Text
    progress: Progress
    schedule: PlateauSchedule


def arrays_of(weights: dict[str, np.ndarray], optimizer_state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint by their names in the file."""
    return {
        **{f"weights/{name}": array for name, array in weights.items()},
        **{f"optimizer/{name}": array for name, array in optimizer_state.items()},
    }


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], progress: Progress, schedule: PlateauSchedule) -> None:
    """Writes a checkpoint, whole or not at all; `arrays` are those of `arrays_of`."""
    header = {"format": FORMAT, "progress": dataclasses.asdict(progress), "schedule": dataclasses.asdict(schedule)}
    canonical_weights.save_arrays(path, arrays, header)


def read(
    path: pathlib.Path,
    config: configs.TrainConfig,
    batches_of: Callable[[int], list[np.ndarray]],
    expected: dict[str, np.ndarray],
) -> Checkpoint:
    """Returns what a checkpoint holds.

    Args:
      path: of the file.
      config: of the run.
      batches_of: epoch -> the clips of each of its batches, int [n].
      expected: arrays of `arrays_of` with the names, shapes and dtypes that the trainer has.

    Raises:
      errors.UserError: for another format, a place that no run of this config and these clips can be at, and arrays
        that are not the trainer's by name, shape and dtype, or not finite.
    """
    arrays, header = canonical_weights.load_arrays(path)
    if header.get("format") != FORMAT:
        raise errors.UserError(
            f"A checkpoint must have the format {FORMAT}. Received: {header.get('format')!r:.100} in {path}"
        )
    found = files.convert(header, _Header, "The header of a checkpoint", path)
    progress, schedule = found["progress"], found["schedule"]
    _check_place(progress, schedule, config, batches_of(progress.epoch), path)
    _check_arrays(arrays, expected, progress.step, path)
    return Checkpoint(_with_prefix(arrays, "weights/"), _with_prefix(arrays, "optimizer/"), progress, schedule)


def _check_place(
    progress: Progress,
    schedule: PlateauSchedule,
    config: configs.TrainConfig,
    batches: list[np.ndarray],
    path: pathlib.Path,
) -> None:
    """Refuses a place that no run of this config and these batches can be at."""
    clips = sum(map(len, batches[: progress.step_in_epoch]))
    steps_before = progress.epoch * len(batches)
    rules = [
        (f"step_in_epoch 0…{len(batches)}", progress.step_in_epoch <= len(batches)),
        (
            f"step {progress.epoch} * {len(batches)} + step_in_epoch",
            progress.step == steps_before + progress.step_in_epoch,
        ),
        (f"clips {clips}, correct at most that", progress.correct <= progress.clips == clips),
        (
            f"patience {config.plateau_patience} and factor {config.plateau_factor}",
            (schedule.patience, schedule.factor) == (config.plateau_patience, config.plateau_factor),
        ),
        (f"epochs_without_gain below {schedule.patience}", schedule.epochs_without_gain < schedule.patience),
        (f"a learning rate of at most {config.learning_rate}", schedule.learning_rate <= config.learning_rate),
    ]
    for rule, kept in rules:
        if not kept:
            raise errors.UserError(f"A checkpoint must have {rule}. Received: {progress}, {schedule} in {path}")


def _check_arrays(
    arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray], step: int, path: pathlib.Path
) -> None:
    """Refuses arrays that differ from those expected in name, shape or dtype, or are of another step."""
    rule = "A checkpoint must have exactly the weights and the optimiser's state of its config"
    canonical_weights.check_names(arrays, {name: array.shape for name, array in expected.items()}, rule, path)
    for name, array in arrays.items():
        if array.dtype != expected[name].dtype:
            raise errors.UserError(f"{rule}. Received: {name} of {array.dtype} in {path}")
    canonical_weights.check_finite(arrays, path, "A checkpoint")
    if arrays["optimizer/steps"] != step:
        raise errors.UserError(f"A checkpoint must have {step} steps. Received: {arrays['optimizer/steps']} in {path}")


def _with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
