"""The clip store: a folder of HDF5 shards and `dataset.json`, written once and read by both frameworks.

`dataset.json` says how the clips were made and what each shard holds; it is written last, so a folder that has it is
finished. Everything it says is checked against the shards when a split is opened.
"""

import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Integer, Shaped, UInt8

from common import errors, files, hdf5, remote, text
from common.clips import shards, split_index
from common.clips.shards import SCHEMA_VERSION, Layout, ShardReader
from common.clips.split_index import SplitIndex
from common.remote import Cache

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One line of `dataset.json`: a shard's file name, split, number of clips and SHA-256 (hex)."""

    file: files.Text
    split: str
    clips: files.Count
    sha256: files.Digest

    def __post_init__(self) -> None:
        errors.check_choice("split", self.split, SPLITS)
        _check_file_name("A shard", self.file)


@dataclasses.dataclass(frozen=True)
class Index:
    """The file of a split's index (`split_index`) in `dataset.json`: its name, SHA-256 (hex) and size."""

    file: files.Text
    sha256: files.Digest
    bytes: files.Positive

    def __post_init__(self) -> None:
        _check_file_name("An index", self.file)


def _check_file_name(what: str, name: str) -> None:
    if pathlib.PurePath(name).name != name or "\0" in name or len(name.encode()) > 255:
        raise errors.UserError(f"{what} must be a file name without a folder. Received: {name!r:.300}")


@dataclasses.dataclass(frozen=True)
class Division:
    """How clips were divided into splits, where their source did not.

    Attributes:
      validation_share: of the clips, in [0, 1).
      test_share: of the clips, in [0, 1).
      seed: of the order in which clips are drawn.
      group_by: regular expression with one group; clips from whose paths it takes the same text are in one split.
        "": each clip is drawn on its own.
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
      indexes: split -> its index; left out of the file where there is none, as in stores of earlier versions.
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
    indexes: dict[files.Text, Index] = dataclasses.field(default_factory=dict)

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


def write_indexes(directory: pathlib.Path, info: DatasetInfo) -> DatasetInfo:
    """Writes the index of every split, from its shards; returns the info with them, for `write_dataset_json`."""
    indexes = {}
    for split in info.splits():
        listed = [shard for shard in info.shards if shard.split == split]
        paths = [directory / shard.file for shard in listed]
        columns = [
            shards.read_columns(path, info.layout, shard.clips, ("label", "video_id"))
            for path, shard in zip(paths, listed, strict=True)
        ]
        labels, ids = (np.concatenate([column[name] for column in columns]) for name in ("label", "video_id"))
        path = directory / split_index.file_name(split)
        split_index.write(path, labels, ids.tolist(), [shard.stat().st_size for shard in paths])
        indexes[split] = Index(path.name, files.sha256(path), path.stat().st_size)
    return dataclasses.replace(info, indexes=indexes)


def write_dataset_json(directory: pathlib.Path, info: DatasetInfo) -> None:
    """Writes `dataset.json` whole or not at all. It is written last: a folder that has it is finished."""
    values = {"schema_version": info.schema_version, **dataclasses.asdict(info)}
    if info.division is None:
        del values["division"]
    if not info.indexes:
        del values["indexes"]
    if info.schema_version > 1:
        values["content_sha256"] = content_sha256(values)
    files.write_json(directory / "dataset.json", values, ensure_ascii=False)


def content_sha256(values: dict[str, Any]) -> str:
    """Returns the SHA-256, in hex, of all that `dataset.json` says but this: of JSON with sorted keys, in ASCII."""
    rest = {name: value for name, value in values.items() if name != "content_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_dataset_json(directory: files.Place) -> DatasetInfo:
    """Returns what `dataset.json` says.

    Args:
      directory: of the store, or its URL.

    Raises:
      errors.UserError: for another schema version, fields that are not those of `DatasetInfo`, and, but in files of
        schema version 1, which lack it, a wrong `content_sha256`.
    """
    what = "A clip store's dataset.json"
    path: files.Place
    if isinstance(directory, str):
        path = f"{directory}/dataset.json"
        values = files.parse_json(remote.read(path, files.MOST_BYTES + 1), what, path)
        files.check_schema_version(values, what, path, *shards.READABLE_VERSIONS)
    else:
        path = directory / "dataset.json"
        rule = "A clip store must hold dataset.json (data_prep/prepare.py makes clip stores, and writes it last)."
        files.check_there(path, rule)
        values = files.read_json(path, what, *shards.READABLE_VERSIONS)
    if values["schema_version"] > 1 and values.pop("content_sha256", None) != content_sha256(values):
        raise errors.UserError(
            f"{what} must have the content_sha256 of what it says. Received: another in {path}, which was changed"
        )
    return files.convert(values, DatasetInfo, what, path)


class ClipStore:
    """One split of a clip store: labels and ids in memory, clips on demand, from any number of threads.

    Attributes:
      directory: of the store, or its URL.
      info: what `dataset.json` says.
      split: "train", "validation" or "test".
      labels: int32 [N], -1 where unknown.
      video_ids: N strings.
    """

    def __init__(self, directory: files.Place, split: str, cache: Cache = remote.DEFAULT) -> None:
        """Opens a split. Its shards are opened and checked when they are first read, where it has an index, else now.

        Args:
          directory: of the store, or a URL (see `files.place`).
          split: "train", "validation" or "test".
          cache: where shards that lie at a URL are kept.

        Raises:
          errors.UserError: for a missing split or shard, and any shard or index that contradicts `dataset.json`; the
            methods that read shards raise it, too.
        """
        self.directory = files.place(directory) if isinstance(directory, str) else directory
        self.info = read_dataset_json(self.directory)
        self._listed = [shard for shard in self.info.shards if shard.split == split]
        if not self._listed:
            hint = " (prepare.py --validation_share=0.2 makes one)" if split == "validation" else ""
            raise errors.UserError(
                f"Split must be one of {', '.join(self.info.splits())}. Received: {split!r} for {self.directory}{hint}"
            )
        self.split = split
        self._remote = remote.Folder(self.directory, cache) if isinstance(self.directory, str) else None
        if self._remote:
            where = cache.path, cache.gigabytes
            logging.log_first_n(logging.INFO, "Clips at a URL are kept in %s, %g GB at most.", 1, *where)
        self._starts = np.cumsum([0] + [shard.clips for shard in self._listed])
        self._num_classes = len(self.info.class_names)
        self._sizes: list[int | None] = [None] * len(self._listed)  # In bytes.
        self._readers: list[ShardReader | None] = [None] * len(self._listed)
        self._columns: dict[str, np.ndarray] = {}  # Those that were asked for.
        index = self._read_index() if split in self.info.indexes else self._read_shards()
        self._sizes = index.shard_bytes.tolist()
        if self._remote:
            cache.check_holds(max(index.shard_bytes.tolist()), f"the largest shard of {self.directory}")
        self._ids = index.video_ids
        self.labels = self._columns["label"] = index.labels
        self.video_ids: tuple[str, ...] = tuple(index.video_ids)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _read_index(self) -> SplitIndex:
        """Returns what the index says; refuses a folder that lacks a shard."""
        if isinstance(self.directory, pathlib.Path):
            there = set(os.listdir(self.directory))
            gone = [shard.file for shard in self._listed if shard.file not in there]
            if gone:
                raise errors.UserError(
                    "A clip store must hold the shards of its dataset.json. "
                    f"Received: {self.directory} without {gone[0]}"
                )
        index = self.info.indexes[self.split]
        with self._held(index.file, index.sha256, index.bytes) as path:
            return split_index.read(
                path, index.sha256, clips=len(self), shards=len(self._listed), classes=self._num_classes
            )

    def _read_shards(self) -> SplitIndex:
        """Returns what an index would say: stores of earlier versions have none."""
        if isinstance(self.directory, pathlib.Path) and self.info.schema_version == 1:
            paths = [self.directory / shard.file for shard in self._listed]
            hdf5.try_text([path for path in paths if shards.version(path) == 1])
        labels, ids, sizes = [], [], []
        for number in range(len(self._listed)):
            with self._held_shard(number) as path:
                reader = self._checked(number, path)
                sizes.append(path.stat().st_size)
            labels.append(reader.columns["label"])
            ids.append(reader.columns["video_id"])
            reader.forget_columns(ids[-1])
            self._readers[number] = reader
        return SplitIndex(np.concatenate(labels), np.concatenate(ids), np.array(sizes))

    def _held(self, file: str, sha256: str, size: int | None) -> contextlib.AbstractContextManager[pathlib.Path]:
        """Returns a context in which a file of the store is at the path that it gives."""
        if self._remote:
            return self._remote.held(file, sha256, size)
        return contextlib.nullcontext(pathlib.Path(self.directory, file))

    def _held_shard(self, number: int) -> contextlib.AbstractContextManager[pathlib.Path]:
        shard = self._listed[number]
        return self._held(shard.file, shard.sha256, self._sizes[number])

    def _checked(self, number: int, path: pathlib.Path) -> ShardReader:
        """Returns the reader of a shard whose columns are as `dataset.json` says."""
        layout = self.info.layout
        reader = ShardReader(path, layout, self._listed[number].clips)
        hdf5.check_bounds(reader.columns, shards.table(layout), {"K": self._num_classes}, path)
        return reader

    def _reader(self, number: int, path: pathlib.Path) -> ShardReader:
        """Returns the reader of a shard, which is checked, also against the index, when it is first asked for."""
        reader = self._readers[number]
        if reader is None:
            reader = self._checked(number, path)
            rows = slice(self._starts[number], self._starts[number + 1])
            for name, known in (("label", self._columns["label"]), ("video_id", self._ids)):
                if not np.array_equal(reader.columns[name], known[rows]):
                    raise errors.UserError(
                        f"The index of a split must have the shards' {name}. Received: another than {path} has "
                        "(prepare.py makes it anew)"
                    )
            reader.forget_columns(self._ids[rows])
            self._readers[number] = reader
        return reader

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

    @property
    def cached_bytes(self) -> int:
        """Bytes of all shards, where they are read through a cache; 0 for a folder."""
        return sum(size or 0 for size in self._sizes) if self._remote else 0

    def column(self, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Returns a column over all clips (see `Clip` for names, shapes and units), reading all shards if need be."""
        errors.check_choice("The column", name, shards.table(self.info.layout))
        if name not in self._columns:
            parts = []
            for number, shard in enumerate(self._listed):
                with self._held_shard(number) as path:
                    self._reader(number, path)
                    parts.append(shards.read_columns(path, self.info.layout, shard.clips, (name,))[name])
            self._columns[name] = np.concatenate(parts)
        return self._columns[name]

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
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._held_shard(number) as path:
            self._reader(number, path).read(int(index - self._starts[number]), out)

    def read(self, indices: Sequence[int] | Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n T H W 3"]:
        """Returns the clips at `indices`."""
        out = np.empty((len(indices), *self.info.layout.clip_shape), np.uint8)
        for index, clip in zip(indices, out, strict=True):
            self.read_into(int(index), clip)
        return out
