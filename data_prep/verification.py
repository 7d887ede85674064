"""Checks a finished clip store as strictly as can be: checksums, counts, shapes, offsets, and every frame."""

import collections
import concurrent.futures
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from common import errors
from common.clips import clip_store, shards
from data_prep import plans


def problems(directory: pathlib.Path, advance: Callable[[int], object] = lambda clips: None) -> Iterator[str]:
    """Yields what is wrong with a clip store, a line each; nothing where it is whole.

    Args:
      directory: of the store.
      advance: called with the number of clips that were just decoded.
    """
    try:
        info = clip_store.read_dataset_json(directory)
    except errors.UserError as error:
        yield str(error)
        return
    yield from _other_files(directory, info)
    counts: dict[str, collections.Counter[int]] = {split: collections.Counter() for split in info.splits()}
    ids: dict[str, collections.Counter[str]] = {split: collections.Counter() for split in info.splits()}
    for shard in info.shards:
        path = directory / shard.file
        if not path.is_file():
            yield f"{shard.file}: listed in dataset.json but not there"
            continue
        if shards.sha256(path) != shard.sha256:
            yield f"{shard.file}: its SHA-256 is not the one in dataset.json"
            if info.schema_version == 1:
                continue  # Damaged text of variable length can make HDF5 loop for ever.
        try:
            reader = shards.ShardReader(path, info.layout)
        except errors.UserError as error:
            yield f"{shard.file}: {error}"
            continue
        if len(reader) != shard.clips:
            yield f"{shard.file}: {len(reader)} clips, {shard.clips} in dataset.json"
        yield from (f"{shard.file}: {problem}" for problem in _columns(reader, info))
        yield from (f"{shard.file}: {problem}" for problem in _frames(reader, info.layout, advance))
        counts[shard.split].update(reader.columns["label"].tolist())
        ids[shard.split].update(reader.columns["video_id"].tolist())
    for split in info.splits():
        yield from _totals(split, counts[split], ids[split], info)


def _other_files(directory: pathlib.Path, info: clip_store.DatasetInfo) -> Iterator[str]:
    listed = collections.Counter(shard.file for shard in info.shards)
    yield from (f"{name}: listed {count} times in dataset.json" for name, count in listed.items() if count > 1)
    for path in sorted(directory.iterdir()):
        if path.suffix == ".tmp":
            yield f"{path.name}: left over from an interrupted run"
        elif path.suffix == ".h5" and path.name not in listed:
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
        except errors.UserError as error:
            return str(error)
        return None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for problem in pool.map(read, range(len(reader))):
            advance(1)
            if problem:
                yield problem


def _totals(
    split: str, labels: collections.Counter[int], ids: collections.Counter[str], info: clip_store.DatasetInfo
) -> Iterator[str]:
    promised = info.counts.get(split, {})
    for label, name in enumerate(info.class_names):
        if labels[label] != promised.get(name, 0):
            yield f"{split}: {labels[label]} clips of {name!r}, {promised.get(name, 0)} in dataset.json"
    try:
        plans.check_ids(split, ids.elements())
    except errors.UserError as error:
        yield str(error)
