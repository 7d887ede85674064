"""Checks a finished clip store as strictly as can be: checksums, counts, shapes, offsets, and every frame.

A shard whose SHA-256 is not the one in `dataset.json` is damaged. It is reported in one line and not opened, since one
wrong bit can keep the HDF5 library busy for ever. The shards after it are checked.
"""

import collections
import concurrent.futures
import pathlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from common import errors, files, text
from common.clips import clip_store, shards, split_index
from data_prep import plans

# What h5py, OpenCV and NumPy raise for a damaged shard whose SHA-256 is right.
_DAMAGE = (
    *(errors.UserError, ArithmeticError, AttributeError, LookupError, MemoryError, OSError),
    *(RuntimeError, TypeError, ValueError, cv2.error),
)


def problems(directory: pathlib.Path, advance: Callable[[int], object] = lambda clips: None) -> Iterator[str]:
    """Yields what is wrong with a clip store, a line each that any terminal can print; nothing where it is whole.

    Args:
      directory: of the store.
      advance: called with the number of clips that were just decoded.
    """
    yield from map(text.printable, _problems(directory, advance))


def _problems(directory: pathlib.Path, advance: Callable[[int], object]) -> Iterator[str]:
    try:
        plans.check_file(directory / "dataset.json")
        info = clip_store.read_dataset_json(directory)
    except _DAMAGE as error:
        yield f"dataset.json: {_said(error)}"
        return
    yield from _other_files(directory, info)
    labels: dict[str, list[int]] = {split: [] for split in info.splits()}
    ids: dict[str, list[str]] = {split: [] for split in info.splits()}
    unread = set()  # Splits with a shard that could not be read: their totals cannot be right.
    for shard in info.shards:
        try:
            reader = _open(directory / shard.file, shard, info.layout)
            yield from (f"{shard.file}: {problem}" for problem in _columns(reader, info))
            yield from (f"{shard.file}: {problem}" for problem in _frames(reader, info.layout, advance))
            labels[shard.split] += reader.columns["label"].tolist()
            ids[shard.split] += reader.columns["video_id"].tolist()
        except _DAMAGE as error:
            unread.add(shard.split)
            yield f"{shard.file}: {_said(error)}"
    for split in info.splits():
        if split not in unread:
            yield from _totals(split, collections.Counter(labels[split]), info)
            if split in info.indexes:
                yield from _index(directory, split, info, labels[split], ids[split])
        try:
            plans.check_ids(split, ids[split])
        except errors.UserError as error:
            yield str(error)


def _open(path: pathlib.Path, shard: clip_store.Shard, layout: shards.Layout) -> shards.ShardReader:
    """Returns the reader of a shard that is as `dataset.json` says."""
    if not path.is_file():
        raise errors.UserError("listed in dataset.json but not there")
    if files.sha256(path) != shard.sha256:
        raise errors.UserError("its SHA-256 is not the one in dataset.json")
    reader = shards.ShardReader(path, layout)
    if len(reader) != shard.clips:
        raise errors.UserError(f"{len(reader)} clips, {shard.clips} in dataset.json")
    return reader


def _index(
    directory: pathlib.Path, split: str, info: clip_store.DatasetInfo, labels: list[int], ids: list[str]
) -> Iterator[str]:
    """Yields what is wrong with the index of a split whose shards could be read."""
    listed, index = [shard for shard in info.shards if shard.split == split], info.indexes[split]
    sizes = [(directory / shard.file).stat().st_size for shard in listed]
    try:
        if (directory / index.file).stat().st_size != index.bytes:
            raise errors.UserError("its size is not the one in dataset.json")
        found = split_index.read(
            directory / index.file,
            index.sha256,
            clips=len(labels),
            shards=len(sizes),
            classes=len(info.class_names),
        )
    except _DAMAGE as error:
        yield f"{index.file}: {_said(error)}"
        return
    is_same = found.labels.tolist() == labels and list(found.video_ids) == ids and found.shard_bytes.tolist() == sizes
    if not is_same:
        yield f"{index.file}: it has other labels, ids or sizes than the shards"


def _said(error: BaseException) -> str:
    """Returns what an error says, on one line; of other errors than ours also what they are."""
    said = " ".join(str(error).split())
    return said if isinstance(error, errors.UserError) else f"{type(error).__name__}: {said}"


def _other_files(directory: pathlib.Path, info: clip_store.DatasetInfo) -> Iterator[str]:
    listed = collections.Counter(shard.file for shard in info.shards)
    listed.update(index.file for index in info.indexes.values())
    yield from (f"{name}: listed {count} times in dataset.json" for name, count in listed.items() if count > 1)
    for path in sorted(directory.iterdir()):
        if path.suffix == ".tmp":
            yield f"{path.name}: left over from an interrupted run"
        elif path.suffix in (".h5", ".index") and path.name not in listed:
            yield f"{path.name}: not listed in dataset.json"


def _columns(reader: shards.ShardReader, info: clip_store.DatasetInfo) -> Iterator[str]:
    """Yields which values of a shard's columns cannot be."""
    columns = reader.columns
    frame, num = columns["source_frame"], columns["source_frames"]
    faults = {
        "source_frame falls or spans more than source_frames": (np.diff(frame, axis=1) < 0).any(axis=1)
        | (frame[:, -1] - frame[:, 0] >= num),
    }
    for name, column in shards.table(info.layout).items():
        beyond, rule = column.beyond(columns[name], {"K": len(info.class_names)})
        faults[f"{name} is not {rule}"] = beyond.any(axis=tuple(range(1, beyond.ndim)))
    for rule, broken in faults.items():
        yield from (f"clip {columns['video_id'][row]!r}: {rule}" for row in np.flatnonzero(broken))


def _frames(reader: shards.ShardReader, layout: shards.Layout, advance: Callable[[int], object]) -> Iterator[str]:
    """Decodes every frame, in as many threads as there are processors."""

    def read(row: int) -> str | None:
        try:
            reader.read(row, np.empty(layout.clip_shape, np.uint8))
        except _DAMAGE as error:
            return _said(error)
        return None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for problem in pool.map(read, range(len(reader))):
            advance(1)
            if problem:
                yield problem


def _totals(split: str, labels: collections.Counter[int], info: clip_store.DatasetInfo) -> Iterator[str]:
    promised = info.counts.get(split, {})
    for label, name in enumerate(info.class_names):
        if labels[label] != promised.get(name, 0):
            yield f"{split}: {labels[label]} clips of {name!r}, {promised.get(name, 0)} in dataset.json"
