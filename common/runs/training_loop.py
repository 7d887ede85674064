"""The training loop, once for both frameworks: epochs, schedule, validation, log, checkpoints, resuming.

What a framework adds is a `Trainer`: one step, one prediction, and its state as canonical arrays. All that decides
what a step computes (order of the clips, dropout's seed, learning rate) is a function of the config and the step's
number, so a run that was stopped anywhere and resumed ends with the same weights as one that was not.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tqdm
from absl import logging
from numpy.typing import ArrayLike

from common import errors, files, remote, text
from common import progress as progress_bar
from common.clips import augmentation, batches
from common.clips.clip_store import ClipStore
from common.models import architectures, canonical_weights, configs
from common.remote import Cache
from common.runs import checkpoint, contention, metrics, prediction, starting_weights, stop_signals, tensorboard
from common.runs.checkpoint import Progress
from common.runs.processes import ALONE, Processes, any_of, check_same, wait
from common.runs.run_directory import RunConfig, RunDirectory, check_data, data_record
from common.runs.schedules import PlateauSchedule

_STEPS_BETWEEN_READINGS = 10  # Losses stay on the device that long, so a GPU never waits for the log.


class Trainer(Protocol):
    """A model, its optimiser, and their state, implemented by each framework."""

    framework: str

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""

    def train_step(
        self, frames: np.ndarray, labels: np.ndarray, learning_rate: float, seed: int, total: int = 0
    ) -> tuple[Any, Any]:
        """Takes one step; returns mean loss and number of right guesses, as anything that `float` takes.

        Both are of the whole batch where several processes share it.

        Args:
          frames: uint8 [N, T, H, W, 3].
          labels: int64 [N].
          learning_rate: of this step.
          seed: of this step's dropout, below 2^63.
          total: clips of the batch, in all processes; 0: those that are given.
        """

    def predict(self, frames: np.ndarray) -> ArrayLike:
        """Returns logits [N, K] of clips uint8 [N, T, H, W, 3], in inference mode; see `prediction.predict`."""

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the canonical weights, in the precision they are held in."""

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Returns `slot/weight name` -> array in canonical layout, and `steps`, an int64 scalar."""

    def load(self, weights: dict[str, np.ndarray], optimizer_state: dict[str, np.ndarray]) -> None:
        """Takes over what `weights` and `optimizer_state` returned."""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Where and how to train; nothing here changes a number.

    Attributes:
      clips: folder or URL of the clip store.
      run: run directory.
      resume: go on from the checkpoint in `run`, if there is one.
      init: run directory or file of weights to start from (see `starting_weights`); None: all weights are drawn. Only
        its place: the weights' digest is in the config. A run that is resumed does not need it.
      num_threads: threads that read clips.
      checkpoint_minutes: time between checkpoints inside an epoch; each epoch ends with one anyway.
      max_steps: stop with a checkpoint after this many steps in all; 0 for no limit.
      cache: where clips at a URL are kept.
    """

    clips: files.Place
    run: pathlib.Path
    resume: bool = False
    init: pathlib.Path | None = None
    num_threads: int = 2
    checkpoint_minutes: float = 10.0
    max_steps: int = 0
    cache: Cache = remote.DEFAULT

    def __post_init__(self) -> None:
        if not self.checkpoint_minutes >= 0:
            raise errors.UserError(f"checkpoint_minutes must be at least 0. Received: {self.checkpoint_minutes:g}")


def train(
    config: configs.TrainConfig,
    settings: TrainSettings,
    make_trainer: Callable[[configs.TrainConfig], Trainer],
    processes: Processes = ALONE,
) -> None:
    """Trains a model, from the start or from the run's checkpoint, to `config.epochs`.

    Args:
      config: model and training; `num_classes` and `input_shape` are those of the clips.
      settings: where to train, and how.
      make_trainer: builds the framework's trainer, with initial weights drawn from the config.
      processes: that train as one. Each reads its share of every batch, and the run's checkpoint; the first writes.

    Raises:
      errors.UserError: for clips without labels, a run that exists without `resume` or that another process trains,
        weights to start from that do not fit, processes that are to train different things, or a loss that is not
        finite.
      OSError: where the run cannot be written; its checkpoint stays as it was.
    """
    run = RunDirectory(settings.run)
    resumed = settings.resume and run.checkpoint.exists()
    stores = {split: _labelled_store(settings, split) for split in ("train", "validation")}
    in_any_order = sum(store.cached_bytes for store in stores.values())
    settings.cache.check_holds(in_any_order, "all clips that are trained on, since they are read in any order")
    source = starting_weights.read(settings.init) if settings.init else None
    if source:
        config = dataclasses.replace(config, init=source.digest)
    elif resumed:
        config = dataclasses.replace(config, init=run.read_config().train.init)
    elif config.init:
        raise errors.UserError(f"The weights to start from must be given. Received: only their digest, {config.init}")
    _check_batch_norm(config, len(stores["train"]))
    _check_run(run, config, stores["train"], settings)
    _check_processes(processes, config, settings, stores["train"], resumed)
    trainer = make_trainer(config)
    fitted = None
    if source and not resumed:
        fitted = starting_weights.fit(source, config, stores["train"].info.class_names, trainer.weights())
    wait(processes)  # All have looked at the run before the first one changes it.
    writes = processes.rank == 0
    with run.training() if writes else contextlib.nullcontext():
        if writes:  # Another training may have been here in the meantime.
            _check_run(run, config, stores["train"], settings)
            if resumed != (settings.resume and run.checkpoint.exists()):
                raise errors.UserError(
                    f"A folder must be written by one run at a time. Received: {run.path}, where another training has "
                    "begun a run in the meantime; --resume goes on with it"
                )
        loop = _Loop(config, settings, run, stores, trainer, processes)
        if resumed:
            loop.restore()
        else:
            if source and fitted and writes:
                logging.info("%s", starting_weights.report(source, config, fitted))
            if config.freeze and not source and writes:
                logging.warning("Without --init, --freeze=%s keeps weights as they were drawn.", config.freeze)
            loop.begin(fitted.weights if fitted else None)
        if writes:
            sizes = ", ".join(f"{text.counted(len(store), 'clip')} of {split}" for split, store in stores.items())
            logging.info("%s (%s): %s, in %s", run.name, config.model.model, sizes, settings.clips)
        loop.run_epochs()


def step_seed(seed: int, step: int) -> int:
    """Returns the seed of step `step`'s dropout, 0…2^63-1."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def _labelled_store(settings: TrainSettings, split: str) -> ClipStore:
    store = ClipStore(settings.clips, split, settings.cache)
    if not len(store) or store.labels.min() < 0:
        raise errors.UserError(
            f"For training all clips of a split must be labelled. Received: {len(store)} clips, "
            f"{int((store.labels < 0).sum())} without a label, in split {split!r} of {settings.clips}"
        )
    return store


def _check_run(run: RunDirectory, config: configs.TrainConfig, store: ClipStore, settings: TrainSettings) -> None:
    layout, classes = store.info.layout, len(store.info.class_names)
    if config.model.num_classes != classes or tuple(config.model.input_shape) != layout.clip_shape[:3]:
        raise errors.UserError(
            f"The model must take the clips: {classes} classes, shape {layout.clip_shape[:3]}. "
            f"Received: {config.model.num_classes} classes, shape {tuple(config.model.input_shape)}"
        )
    if not run.exists():
        return
    if not settings.resume:
        raise errors.UserError(
            f"--run must be a new folder, or --resume must be given. Received: {run.path}, which holds a run"
        )
    stored = run.read_config()
    check_data(stored, store.info)
    if not stored.is_of(store.info):
        raise errors.UserError(
            "With --resume the clips must be those that the run began with. "
            f"Received: {store.directory}, whose shards or classes are others"
        )
    # More epochs are a way to go on; anything else would make it another run.
    if dataclasses.replace(stored.train, epochs=config.epochs) != config:
        theirs, ours = configs.to_dict(stored.train), configs.to_dict(config)
        changed = {name: (theirs[name], ours[name]) for name in ours if theirs[name] != ours[name]}
        raise errors.UserError(f"With --resume the config must be the run's own. Received (run, now): {changed}")


def _check_batch_norm(config: configs.TrainConfig, num_clips: int) -> None:
    """Refuses a last batch of one clip that gives a batch norm one value for each channel, which has no variance.

    Otherwise PyTorch would refuse it at the end of the first epoch, and TensorFlow would take its variance for 0.

    Raises:
      errors.UserError: also for an unknown endpoint to freeze.
    """
    last = num_clips % config.batch_size or config.batch_size
    frozen = {layer.name for layer in architectures.frozen_layers(config)}
    for layer in architectures.layers(config.model):
        is_normalized = layer.name not in frozen and any(name.endswith("/moving_variance") for name in layer.weights)
        if is_normalized and last * math.prod(layer.output_shape[:-1]) == 1:
            raise errors.UserError(
                f"In training batch norm must have more than one value for each channel. Received: --batch_size="
                f"{config.batch_size} for {text.counted(num_clips, 'clip')}, of which the last batch is one clip, "
                f"with one value at {layer.name}"
            )


def _check_processes(
    processes: Processes, config: configs.TrainConfig, settings: TrainSettings, store: ClipStore, resumed: bool
) -> None:
    """Refuses processes that would take different steps, which would hang or train on what nobody asked for."""
    if processes.count > config.batch_size:
        raise errors.UserError(
            f"--batch_size is of all processes, so it must be at least their number, {processes.count}. "
            f"Received: {config.batch_size}"
        )
    same = {
        "config": json.dumps(configs.to_dict(config)),
        "clips": store.info.digest,
        "--max_steps": settings.max_steps,
        "checkpoint to go on from": resumed,
    }
    check_same(processes, same)


class _Loop:
    """One run's training: its trainer, where it is, and what it writes."""

    def __init__(
        self,
        config: configs.TrainConfig,
        settings: TrainSettings,
        run: RunDirectory,
        stores: dict[str, ClipStore],
        trainer: Trainer,
        processes: Processes,
    ) -> None:
        self._processes, self._writes = processes, processes.rank == 0
        self._config, self._settings, self._run, self._trainer = config, settings, run, trainer
        self._stores = stores
        self._progress = Progress()
        self._schedule = PlateauSchedule(config.learning_rate, config.plateau_patience, config.plateau_factor)
        self._unread: list[tuple[int, int, Any, Any]] = []  # step, clips, loss, right guesses
        self._saved_at = time.monotonic()
        self._asked = ""  # The signal that this process has got, at any time.
        self._stopping = ""  # Why all processes stop here (`_agree`); empty: they go on.
        self._interrupted = False
        self._watch = contention.Watch(trainer.framework)

    def run_epochs(self) -> None:
        """Goes on from where `_progress` is, to the last epoch."""
        epochs, progress = self._config.epochs, self._progress
        if progress.epoch >= epochs:
            logging.info("%s has all its %d epochs; more: --resume --epochs=N", self._run.path, epochs)
            return
        total = len(self._batches(0)) * epochs
        bar = progress_bar.bar(total=total, initial=progress.step, unit="step", smoothing=0.1, disable=not self._writes)
        with bar, stop_signals.caught(self._ask), self._open_events() as events:
            while progress.epoch < epochs and not self._stopping:
                self._train_epoch(bar, events)
                if not self._stopping:
                    self._finish_epoch(bar, events)
                    self._agree()
        if self._stopping:
            logging.info("Stopped by %s at step %d; --resume goes on", self._stopping, progress.step)
            if self._interrupted:
                wait(self._processes)  # The first one has saved: a launcher that sees one end may kill the others.
                raise KeyboardInterrupt

    def begin(self, weights: dict[str, np.ndarray] | None) -> None:
        """Makes the run; where weights are given, canonical name -> array, the trainer starts from them."""
        if weights:
            self._trainer.load(weights, self._trainer.optimizer_state())
        if not self._writes:
            return
        record = data_record(self._stores["train"].info)
        clips = files.stored_path(self._settings.clips, self._run.path)
        framework, versions = self._trainer.framework, self._trainer.versions()
        self._run.create(RunConfig(self._config, record, clips, framework, versions))
        self._run.log.unlink(missing_ok=True)

    def restore(self) -> None:
        """Takes state and place from the run's checkpoint."""
        found = checkpoint.read(self._run.checkpoint, self._config, self._batches, self._state())
        check_same(self._processes, {"checkpoint": found.progress.step})  # A network disk may still show an older one.
        self._trainer.load(found.weights, found.optimizer_state)
        self._progress, self._schedule = found.progress, found.schedule
        if not self._writes:
            return
        self._run.trim_log(self._progress.epoch)
        stored = self._run.read_config()
        clips = files.stored_path(self._stores["train"].directory, self._run.path)
        now = dataclasses.replace(stored, train=self._config, clips=clips)
        if stored != now:  # More epochs than the run began with, or clips that were moved.
            self._run.create(now)

    def _open_events(self) -> contextlib.AbstractContextManager[Any]:
        """Opens the run's event files, where this is the process that writes."""
        if self._writes:
            return tensorboard.open_events(self._run.events, self._progress.step)
        return contextlib.nullcontext(_NoEvents())

    def _state(self) -> dict[str, np.ndarray]:
        """Returns the arrays of a checkpoint."""
        return checkpoint.arrays_of(self._trainer.weights(), self._trainer.optimizer_state())

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """Returns the clips of each batch of an epoch, int [n], in all processes."""
        store, config = self._stores["train"], self._config
        return batches.batch_indices(len(store), config.batch_size, shuffle_seed=(config.seed, epoch))

    def _train_epoch(self, bar: tqdm.tqdm, events: Any) -> None:
        progress, rate = self._progress, self._schedule.learning_rate
        bar.set_description(f"epoch {progress.epoch + 1}/{self._config.epochs}")
        order = self._batches(progress.epoch)[progress.step_in_epoch :]
        started = time.monotonic()
        change = augmentation.augmenter(self._config.augmentation, self._config.seed, progress.epoch)
        threads = self._settings.num_threads
        shares = [batch[self._processes.rank :: self._processes.count] for batch in order]
        read = batches.batches(self._stores["train"], shares, num_threads=threads, change=change)
        for batch, whole in zip(read, order, strict=True):
            seed = step_seed(self._config.seed, progress.step)
            loss, correct = self._trainer.train_step(batch.frames, batch.labels, rate, seed, len(whole))
            progress.step += 1
            progress.step_in_epoch += 1
            self._unread.append((progress.step, len(whole), loss, correct))
            if len(self._unread) == _STEPS_BETWEEN_READINGS:
                self._read_losses(bar, events)
            bar.update()
            self._watch.after_step()
            progress.seconds += time.monotonic() - started
            started = time.monotonic()
            if self._checkpoint_due():
                self._read_losses(bar, events)
                self._save()
            if self._stopping:
                return
        self._read_losses(bar, events)

    def _checkpoint_due(self) -> bool:
        limit = self._settings.max_steps
        if limit and self._progress.step >= limit:
            self._stopping = f"--max_steps={limit}"
        due = self._agree(time.monotonic() - self._saved_at > 60 * self._settings.checkpoint_minutes)
        return bool(self._stopping) or due

    def _agree(self, due: bool = False) -> bool:
        """Returns whether a checkpoint is due in one of the processes, and stops all if one was asked to.

        A signal reaches each process at its own time, or not at all: if one acted alone, the others would wait for it.
        """
        asked = self._asked
        any_asked, any_due = any_of(self._processes, bool(asked), due)
        if any_asked:
            self._stopping, self._interrupted = asked or "a signal to another process", True
        return any_due

    def _ask(self, name: str) -> None:
        self._asked = name

    def _read_losses(self, bar: tqdm.tqdm, events: Any) -> None:
        """Reads what the device computed since the last reading, and stops at a loss that is not finite."""
        progress = self._progress
        for step, clips, loss, correct in self._unread:
            value = float(loss)
            self._check_finite(value, "loss", step)
            progress.loss_sum += value * clips
            progress.correct += int(correct)
            progress.clips += clips
            events.add_scalar("train/step_loss", value, step)
        self._unread.clear()
        if progress.clips and progress.seconds:
            bar.set_postfix_str(
                f"loss {progress.loss_sum / progress.clips:.3f}, accuracy {progress.correct / progress.clips:.3f}, "
                f"{progress.clips / progress.seconds:.1f} clips/s"
            )

    def _check_finite(self, value: float | np.floating, name: str, step: int) -> None:
        if not np.isfinite(value):
            raise errors.UserError(
                f"The {name} must stay finite. Received: {value} at step {step}, learning rate "
                f"{self._schedule.learning_rate:g}; the last good state is in {self._run.checkpoint}"
            )

    def _finish_epoch(self, bar: tqdm.tqdm, events: Any) -> None:
        progress = self._progress
        loss, top_1 = self._validate()
        progress.epoch += 1
        line = {
            "epoch": progress.epoch,
            "step": progress.step,
            "train_loss": progress.loss_sum / progress.clips,
            "train_accuracy": progress.correct / progress.clips,
            "validation_loss": loss,
            "validation_top_1": top_1,
            "learning_rate": self._schedule.learning_rate,
            "clips_per_second": progress.clips / max(progress.seconds, 1e-9),
            "processes": self._processes.count,
        }
        best = self._schedule.update(loss)
        if best and self._writes:
            canonical_weights.save(self._run.weights, self._trainer.weights(), self._config.model)
        if self._writes:
            self._run.append_log(line)
        for name, value in line.items():
            events.add_scalar(f"epoch/{name}", value, progress.epoch)
        self._progress.start_epoch()
        self._save()
        bar.clear()
        if self._writes:
            logging.info("%s%s", ", ".join(f"{name} {value:.6g}" for name, value in line.items()), " (best)" * best)

    def _validate(self) -> tuple[float, float]:
        """Returns mean cross entropy (nats) and top-1 accuracy over the validation split."""
        store = self._stores["validation"]
        logits = prediction.predict(
            self._trainer.predict,
            store,
            batch_size=self._config.batch_size,
            num_threads=self._settings.num_threads,
            processes=self._processes,
        )
        loss = metrics.cross_entropy(logits, store.labels)
        self._check_finite(loss, "validation loss", self._progress.step)
        return loss, float(np.mean(logits.argmax(axis=1) == store.labels))

    def _save(self) -> None:
        arrays = self._state()
        # The last step's loss says nothing of its own update: look before a good checkpoint is replaced.
        for name, array in arrays.items():
            self._check_finite(np.abs(array).max(), name.removeprefix("weights/"), self._progress.step)
        if self._writes:
            checkpoint.write(self._run.checkpoint, arrays, self._progress, self._schedule)
        self._saved_at = time.monotonic()


class _NoEvents:
    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Drops a number."""
