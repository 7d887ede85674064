"""The clip store: a folder of HDF5 shards and `dataset.json`, written once and read by both frameworks.

`dataset.json` says how the clips were made and what each shard holds; it is written last, so a folder that has it is
finished. Everything it says is checked against the shards when a split is opened.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from common import errors, files
from common.clips.shards import SCHEMA_VERSION, Layout, ShardReader

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One line of `dataset.json`: a shard's file name, split, number of clips and SHA-256 (hex)."""

    file: str
    split: str
    clips: int
    sha256: str


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
    """

    dataset: str
    class_names: tuple[str, ...]
    layout: Layout
    resize: str
    subsampling: str
    counts: dict[str, dict[str, int]]
    tool: dict[str, str]
    decoder: dict[str, str]
    shards: tuple[Shard, ...]

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
    values = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(info)}
    files.write_json(directory / "dataset.json", values, ensure_ascii=False)


def read_dataset_json(directory: pathlib.Path) -> DatasetInfo:
    """Returns what `dataset.json` says; refuses another schema version and contradictions."""
    path = directory / "dataset.json"
    values = files.read_json(path, "A clip store's dataset.json", SCHEMA_VERSION)
    del values["schema_version"]
    try:
        layout = dict(values.pop("layout"))
        mask_shape = layout.pop("object_mask_shape")
        counts = {
            str(split): {str(name): int(number) for name, number in classes.items()}
            for split, classes in values.pop("counts").items()
        }
        info = DatasetInfo(
            counts=counts,
            layout=Layout(**layout, object_mask_shape=tuple(mask_shape) if mask_shape else None),
            class_names=tuple(values.pop("class_names")),
            shards=tuple(_shard(**line) for line in values.pop("shards")),
            **values,
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise errors.UserError(f"dataset.json must have the fields of DatasetInfo. Received: {path}: {error}") from None
    for shard in info.shards:
        if pathlib.PurePath(str(shard.file)).name != shard.file or shard.split not in SPLITS:
            raise errors.UserError(
                f"A shard must be a file name and a split. Received: {shard.file!r}, {shard.split!r}"
            )
    return info


def _shard(clips: object, sha256: object, **line: str) -> Shard:
    if not isinstance(clips, int) or not isinstance(sha256, str):
        raise errors.UserError(f"A shard must have a number of clips and a SHA-256. Received: {clips!r}, {sha256!r}")
    return Shard(**line, clips=clips, sha256=sha256)


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
        shards = [shard for shard in self.info.shards if shard.split == split]
        if not shards:
            raise errors.UserError(
                f"Split must be one of {', '.join(self.info.splits())}. Received: {split!r} for {self.directory}"
            )
        self.split = split
        self._shards = [ShardReader(self.directory / shard.file, self.info.layout) for shard in shards]
        for shard, reader in zip(shards, self._shards, strict=True):
            if len(reader) != shard.clips:
                raise errors.UserError(
                    f"dataset.json promises {shard.clips} clips in {shard.file}. Received: {len(reader)}"
                )
        self._starts = np.cumsum([0] + [len(reader) for reader in self._shards])
        self.labels = self.column("label")
        self.video_ids: tuple[str, ...] = tuple(self.column("video_id"))
        classes = len(self.info.class_names)
        if len(self) and not (-1 <= self.labels.min() and self.labels.max() < classes):
            raise errors.UserError(
                f"Labels must be -1…{classes - 1}. "
                f"Received: {self.labels.min()}…{self.labels.max()} in {self.directory}"
            )

    def __len__(self) -> int:
        return int(self._starts[-1])

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
