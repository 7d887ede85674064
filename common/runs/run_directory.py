"""A run directory: everything about one training run, in files that a person can open and either framework reads.

`config.json` (what was trained, on what, by which versions), `weights.safetensors` (best validation loss),
`checkpoint.safetensors` (the last state, to go on from), `log.jsonl` (one line per epoch), `train.log` (what the
training said, with the time to the microsecond), `events/` (TensorBoard),
`evaluation.json` (forward and reversed results), `explanations.h5` (masks and maps of clips), `evidence.json` (on the
explanations); where it was made from published weights, `imported.json` (from which).
"""

import contextlib
import dataclasses
import json
import logging as standard_logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
from absl import logging

from common import errors, files, locks, remote
from common.clips.clip_store import ClipStore, DatasetInfo
from common.models import canonical_weights, configs
from common.remote import Cache

SCHEMA_VERSION = 1


class _DataOfFirstVersions(TypedDict):
    dataset: files.Text
    class_names: list[files.Text]
    input_shape: tuple[files.Positive, files.Positive, files.Positive]
    resize: files.Text
    subsampling: files.Text


class _Data(_DataOfFirstVersions, total=False):
    digest: files.Text


class _Config(TypedDict):
    """`config.json`; the fields of `train` are read by `configs`."""

    schema_version: int
    train: dict[str, Any]
    data: _Data
    clips: str
    framework: files.Text
    versions: dict[files.Text, files.Text]


class _EpochOfFirstVersions(TypedDict):
    epoch: files.Positive
    step: files.Count
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_top_1: float
    learning_rate: float
    clips_per_second: float


class _Epoch(_EpochOfFirstVersions, total=False):
    """A line of `log.jsonl`."""

    processes: files.Positive


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What `config.json` says.

    Attributes:
      train: model and training.
      data: what the model expects of clips (see `data_record`).
      clips: folder or URL of the clip store it was trained on (see `files.stored_path`); empty where weights were
        imported.
      framework: "torch" or "tf".
      versions: name -> version of what ran.
    """

    train: configs.TrainConfig
    data: dict[str, Any]
    clips: str
    framework: str
    versions: dict[str, str]

    def is_of(self, info: DatasetInfo) -> bool:
        """Returns whether clips are those of the training; runs of earlier versions, which do not say, take any."""
        return self.data.get("digest", info.digest) == info.digest


class RunDirectory:
    """Paths and files of one run; nothing is created before `create`."""

    def __init__(self, path: pathlib.Path | str) -> None:
        self.path = pathlib.Path(path)
        self.weights = self.path / "weights.safetensors"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.log = self.path / "log.jsonl"
        self.events = self.path / "events"
        self._config = self.path / "config.json"

    @property
    def name(self) -> str:
        """Of the folder, however it is spelled ("." has one too); bytes that are no UTF-8 as escapes."""
        return os.fsencode(self.path.resolve().name).decode("utf-8", "backslashreplace")

    def exists(self) -> bool:
        """Returns whether a run was begun here."""
        return self._config.exists()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Makes the folder, holds it against a second training while this one goes on, and keeps what is logged.

        Raises:
          errors.UserError: where the folder cannot be made, or another process trains in it.
        """
        self._make()
        with locks.exclusive(self.path), _logged(self.path / "train.log"):
            yield

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(f"--run must be a folder that can be made. Received: {self.path}: {error}") from None

    def create(self, config: RunConfig) -> None:
        """Begins a run: makes the folder and writes `config.json`."""
        self._make()
        values = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(config)}
        files.write_json(self._config, {**values, "train": configs.to_dict(config.train)})

    def read_config(self) -> RunConfig:
        """Returns what `config.json` says; refuses a folder without it, and what is not as the format says."""
        rule = "A run directory must hold config.json (train.py makes runs, import_weights.py makes them of published"
        files.check_there(self._config, f"{rule} weights).")
        what = "A run's config.json"
        values = files.read_json(self._config, what, SCHEMA_VERSION)
        files.convert(values, _Config, what, self._config)
        train = configs.train_config_from_dict(values["train"], self._config, "$.train")
        return RunConfig(train, values["data"], values["clips"], values["framework"], values["versions"])

    def clips(self, config: RunConfig) -> files.Place:
        """Returns the folder or URL of the clip store that the run was trained on; refuses a run that has none."""
        if not config.clips:
            raise errors.UserError(
                f"--clips must name a clip store for a run that was not trained here. Received: none for {self.path}"
            )
        return files.found_path(config.clips, self.path)

    def append_log(self, line: dict[str, Any]) -> None:
        """Adds a line to `log.jsonl`."""
        files.append_text(self.log, json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Returns the lines of `log.jsonl`; a last line that a kill cut short is left out, another is refused."""
        if not self.log.exists():
            return []
        try:
            lines = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, ValueError) as error:
            raise errors.UserError(f"log.jsonl must be a readable text file. Received: {self.log}: {error}") from None
        log = []
        for number, line in enumerate(lines, start=1):
            what = f"Line {number} of a run's log.jsonl"
            log.append(files.convert(files.parse_json(line, what, self.log), _Epoch, what, self.log))
        return log

    def trim_log(self, epochs: int) -> None:
        """Keeps the lines of the first `epochs` epochs: what came after the checkpoint happens again.

        A line that is not there is only missed: training needs none.
        """
        log = {line["epoch"]: line for line in self.read_log()}
        kept = [log[epoch] for epoch in range(1, epochs + 1) if epoch in log]
        if len(kept) < epochs:
            logging.warning("%s lacks the lines of %d of %d epochs.", self.log, epochs - len(kept), epochs)
        files.write_text(self.log, "".join(json.dumps(line) + "\n" for line in kept))


class _LogFile(standard_logging.Handler):
    """Adds log lines, in absl's full form, to a file."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.setFormatter(logging.PythonFormatter())
        self._path = path

    def emit(self, record: standard_logging.LogRecord) -> None:
        # A disk that is full ends the training where it must be written.
        with contextlib.suppress(OSError):
            files.append_text(self._path, self.format(record) + "\n")


@contextlib.contextmanager
def _logged(path: pathlib.Path) -> Iterator[None]:
    """Keeps what absl logs in the block in a file, too."""
    handler = _LogFile(path)
    logging.get_absl_logger().addHandler(handler)
    try:
        yield
    finally:
        logging.get_absl_logger().removeHandler(handler)


def open_trained(
    run: RunDirectory, clips: files.Place | None, split: str, cache: Cache = remote.DEFAULT
) -> tuple[RunConfig, dict[str, np.ndarray], ClipStore]:
    """Opens a trained run to use it on clips; whatever does not fit together is refused.

    Args:
      run: with weights.
      clips: folder or URL of the clip store; None for the one that the run was trained on.
      split: of it.
      cache: where clips at a URL are kept.

    Returns:
      What the run's `config.json` says, its canonical weights, and the clips, as the model knows them (see
      `ClipStore.known_to`): those that have no label, or one that the model does not know, have the label -1.
    """
    stored = run.read_config()
    if not run.weights.exists():
        raise errors.UserError(
            f"A run must have weights (it has some from the end of its first epoch on). "
            f"Received: {run.path} without {run.weights.name}"
        )
    weights, model = canonical_weights.load(run.weights)
    if model != stored.train.model:
        raise errors.UserError(
            f"weights.safetensors must hold the model of config.json. Received: {configs.to_dict(model)} in {run.path}"
        )
    store = ClipStore(clips or run.clips(stored), split, cache)
    if clips is None and not stored.is_of(store.info):
        raise errors.UserError(
            "Clips must be those that the run was trained with, unless --clips names others. "
            f"Received: {store.directory}, whose shards or classes have changed"
        )
    known = store.known_to(tuple(stored.data["class_names"]))
    check_data(stored, known.info)
    return stored, weights, known


def data_record(info: DatasetInfo) -> dict[str, Any]:
    """Returns what a model must know of the clips it was made for: pixels that look the same mean the same."""
    return {
        "dataset": info.dataset,
        "class_names": list(info.class_names),
        "input_shape": list(info.layout.clip_shape[:3]),
        "resize": info.resize,
        "subsampling": info.subsampling,
        "digest": info.digest,
    }


def check_data(run: RunConfig, info: DatasetInfo) -> None:
    """Refuses clips that were prepared in another way, or have other classes, than those of the training."""
    record = data_record(info)
    for name in ("class_names", "input_shape", "resize", "subsampling"):
        if record[name] != run.data[name]:
            raise errors.UserError(
                f"Clips must have the {name} that the run was trained with, {_short(run.data[name])}. "
                f"Received: {_short(record[name])}"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(value)} in all)"
