"""The clip store: a folder of HDF5 shards and `dataset.json`, written once and read by both frameworks.

`dataset.json` says how the clips were made and what each shard holds; it is written last, so a folder that has it is
finished. Everything it says is checked against the shards when a split is opened.
"""

import copy
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from absl import logging
from jaxtyping import Integer, Shaped, UInt8

from common import errors, files, hdf5, text
from common.clips import shards
from common.clips.shards import SCHEMA_VERSION, Layout, ShardReader

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One line of `dataset.json`: a shard's file name, split, number of clips and SHA-256 (hex)."""

    file: files.Text
    split: str
    clips: files.Count
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

    def __post_init__(self) -> None:
        errors.check_choice("split", self.split, SPLITS)
        if pathlib.PurePath(self.file).name != self.file or "\0" in self.file or len(self.file.encode()) > 255:
            raise errors.UserError(f"A shard must be a file name without a folder. Received: {self.file!r:.300}")


@dataclasses.dataclass(frozen=True)
class Division:
    """How clips were divided into splits, where their source did not.

    Attributes:
      validation_share: of the clips, in [0, 1).
      test_share: of the clips, in [0, 1).
      seed: of the order in which clips are drawn.
      group_by: regular expression with one group; clips of which it takes the same text from the path are in one
        split. "": each clip is drawn on its own.
    """

    validation_share: float = 0.0
    test_share: float = 0.0
    seed: files.Count = 0
    group_by: files.Text = ""

    def __post_init__(self) -> None:
        shares = self.validation_share, self.test_share
        if not (min(shares) >= 0 and 0 < sum(shares) < 1):
            raise errors.UserError(
                "validation_share and test_share must be at least 0, and their sum between 0 and 1. "
                f"Received: {shares[0]:g} and {shares[1]:g}"
            )
        try:
            num_groups = re.compile(self.group_by).groups if self.group_by else 1
        except re.error as error:
            raise errors.UserError(
                f"group_by must be a regular expression. Received: {self.group_by!r}: {error}"
            ) from None
        if num_groups != 1:
            raise errors.UserError(
                f"group_by must have one group, in parentheses. Received: {num_groups} in {self.group_by!r}"
            )


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What `dataset.json` says.

    Attributes:
      dataset: name of the data set.
      class_names: in label order.
      layout: shape and encoding of the clips.
      resize: rule by which frames were resized ("stretch" or "center_crop").
      subsampling: rule by which frames were chosen ("linspace" or "released").
      counts: split -> class name -> clips; clips of unknown class are in no count.
      tool: name and version of what wrote the store.
      decoder: name and version of what decoded the videos.
      shards: all shards.
      schema_version: of `dataset.json` and its shards.
      division: how the clips were divided into splits; None where their source did that, and then left out of the file.
    """

    dataset: files.Text
    class_names: tuple[files.Text, ...]
    layout: Layout
    resize: files.Text
    subsampling: files.Text
    counts: dict[files.Text, dict[files.Text, files.Count]]
    tool: dict[files.Text, files.Text]
    decoder: dict[files.Text, files.Text]
    shards: tuple[Shard, ...]
    schema_version: int = SCHEMA_VERSION
    division: Division | None = None

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what the clips are: class names and shards, wherever they lie."""
        made_of = [list(self.class_names), [dataclasses.astuple(shard) for shard in self.shards]]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def splits(self) -> tuple[str, ...]:
        """Returns the splits that have shards, in the usual order."""
        return tuple(split for split in SPLITS if any(shard.split == split for shard in self.shards))


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of shard `index` (from 0) of `count`."""
    return f"{split}-{index:05d}-of-{count:05d}.h5"


def write_dataset_json(directory: pathlib.Path, info: DatasetInfo) -> None:
    """Writes `dataset.json` whole or not at all. It is written last: a folder that has it is finished."""
    values = {"schema_version": info.schema_version, **dataclasses.asdict(info)}
    if info.division is None:
        del values["division"]
    if info.schema_version > 1:
        values["content_sha256"] = content_sha256(values)
    files.write_json(directory / "dataset.json", values, ensure_ascii=False)


def content_sha256(values: dict[str, Any]) -> str:
    """Returns the SHA-256, in hex, of all that `dataset.json` says but this: of JSON with sorted keys, in ASCII."""
    rest = {name: value for name, value in values.items() if name != "content_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_dataset_json(directory: pathlib.Path) -> DatasetInfo:
    """Returns what `dataset.json` says.

    Raises:
      errors.UserError: for another schema version, fields that are not those of `DatasetInfo`, and, but in files of
        schema version 1, which lack it, a wrong `content_sha256`.
    """
    path, what = directory / "dataset.json", "A clip store's dataset.json"
    values = files.read_json(path, what, *shards.READABLE_VERSIONS)
    if values["schema_version"] > 1 and values.pop("content_sha256", None) != content_sha256(values):
        raise errors.UserError(
            f"{what} must have the content_sha256 of what it says. Received: another in {path}, which was changed"
        )
    return files.convert(values, DatasetInfo, what, path)


class ClipStore:
    """One split of a clip store: labels and ids in memory, clips on demand, from any number of threads.

    Attributes:
      info: what `dataset.json` says.
      labels: int32 [N], -1 where unknown.
      video_ids: N strings.
    """

    def __init__(self, directory: pathlib.Path | str, split: str) -> None:
        """Opens and checks every shard of a split.

        Args:
          directory: of the store.
          split: "train", "validation" or "test".

        Raises:
          errors.UserError: for a missing split, or any shard that contradicts `dataset.json`.
        """
        self.directory = pathlib.Path(directory)
        self.info = read_dataset_json(self.directory)
        listed = [shard for shard in self.info.shards if shard.split == split]
        if not listed:
            hint = " (prepare.py --validation_share=0.2 makes one)" if split == "validation" else ""
            raise errors.UserError(
                f"Split must be one of {', '.join(self.info.splits())}. Received: {split!r} for {self.directory}{hint}"
            )
        self.split = split
        paths = [self.directory / shard.file for shard in listed]
        if self.info.schema_version == 1:
            hdf5.try_text([path for path in paths if shards.version(path) == 1])
        self._shards = [
            ShardReader(path, self.info.layout, shard.clips) for path, shard in zip(paths, listed, strict=True)
        ]
        sizes = {"K": len(self.info.class_names)}
        for path, reader in zip(paths, self._shards, strict=True):
            hdf5.check_bounds(reader.columns, shards.table(self.info.layout), sizes, path)
        self._starts = np.cumsum([0] + [len(reader) for reader in self._shards])
        self.labels = self.column("label")
        self.video_ids: tuple[str, ...] = tuple(self.column("video_id"))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def known_to(self, class_names: tuple[str, ...]) -> "ClipStore":
        """Returns the same clips as a model of certain classes sees them.

        Args:
          class_names: of the model, in the order of its scores.

        Returns:
          The store itself, where it has these classes; otherwise one whose `info` has them, and whose `labels` are
          their indices: found by the class's name, -1 for clips whose class the model does not know.
        """
        if class_names == self.info.class_names:
            return self
        index = {name: label for label, name in enumerate(class_names)}
        labels = np.array([index.get(name, -1) for name in self.info.class_names] + [-1], np.int32)
        seen = copy.copy(self)
        seen.info = dataclasses.replace(self.info, class_names=class_names)
        seen.labels = labels[self.labels]  # -1 reads the last one.
        if self.info.class_names:
            known = text.counted(int((seen.labels >= 0).sum()), "clip")
            logging.info(
                "%s has other classes than the model: %s of %d have one of its.", self.directory, known, len(self)
            )
        return seen

    def column(self, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Returns a column over all clips (see `Clip` for names, shapes and units)."""
        if name not in self._shards[0].columns:
            raise errors.UserError(
                f"The column must be one of {', '.join(self._shards[0].columns)}. Received: {name!r}"
            )
        return np.concatenate([reader.columns[name] for reader in self._shards])

    def places(self, video_ids: Iterable[str]) -> list[int]:
        """Returns where clips of these ids stand; refuses an id that no clip has."""
        place = {video_id: number for number, video_id in enumerate(self.video_ids)}
        try:
            return [place[video_id] for video_id in video_ids]
        except KeyError as error:
            raise errors.UserError(
                f"Clips must be of the {self.split} split of {self.directory}. Received: {error}, which is not"
            ) from None

    def read_into(self, index: int, out: UInt8[np.ndarray, "T H W 3"]) -> None:
        """Reads clip `index` into `out`. Safe to call from several threads at once."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        self._shards[shard].read(int(index - self._starts[shard]), out)

    def read(self, indices: Sequence[int] | Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n T H W 3"]:
        """Returns the clips at `indices`."""
        out = np.empty((len(indices), *self.info.layout.clip_shape), np.uint8)
        for index, clip in zip(indices, out, strict=True):
            self.read_into(int(index), clip)
        return out
