"""Small clip stores for tests: bright squares on noise, whose class is the way they move."""

import pathlib
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from common import files
from common.clips import clip_store, shards


def write_tiny_store(
    directory: pathlib.Path,
    *,
    clips: dict[str, int],
    shape: tuple[int, int, int] = (8, 32, 32),
    num_classes: int = 3,
    clips_per_shard: int = 5,
    encoding: str = "raw",
    seed: int = 0,
    object_mask_shape: tuple[int, int] | None = None,
    sufficient_sets: int = 0,
    indexed: bool = False,
) -> clip_store.DatasetInfo:
    """Writes a whole store; clip i of a split has class i modulo `num_classes`.

    Args:
      directory: to make.
      clips: split -> number of clips.
      shape: T, H, W.
      num_classes: K; a class is a step of 0, 1, 2… px a frame to the right.
      clips_per_shard: at most.
      encoding: "raw" or "jpeg".
      seed: of noise and places.
      object_mask_shape: (h, w) of ground truth, or None for none.
      sufficient_sets: S of ground truth, or 0 for none.
      indexed: whether it has an index, as prepare's have.
    """
    directory.mkdir(parents=True, exist_ok=True)
    layout = shards.Layout(
        *shape, encoding=encoding, object_mask_shape=object_mask_shape, sufficient_sets=sufficient_sets
    )
    records, counts = [], {}
    for number, (split, total) in enumerate(clips.items()):
        made = [_clip(f"{split}{i}", i % num_classes, layout, (seed, number, i)) for i in range(total)]
        parts = [made[start : start + clips_per_shard] for start in range(0, total, clips_per_shard)] or [[]]
        for index, part in enumerate(parts):
            path = directory / clip_store.shard_name(split, index, len(parts))
            write_shard(path, part, layout)
            records.append(clip_store.Shard(path.name, split, len(part), files.sha256(path)))
        counts[split] = {f"class {k}": len(range(k, total, num_classes)) for k in range(num_classes)}
    names = tuple(f"class {k}" for k in range(num_classes))
    tool = {"name": "tiny", "version": "1"}
    info = clip_store.DatasetInfo(
        "tiny", names, layout, "stretch", "linspace", counts, tool, {"name": "none", "version": "0"}, tuple(records)
    )
    if indexed:
        info = clip_store.write_indexes(directory, info)
    clip_store.write_dataset_json(directory, info)
    return info


def write_shard(
    path: pathlib.Path, clips: Iterable[shards.Clip], layout: shards.Layout, report: dict[str, Any] | None = None
) -> None:
    """Writes one shard of clips that are all there; without a report, an empty one."""
    with shards.ShardWriter(path, layout) as writer:
        for clip in clips:
            writer.add(clip)
        writer.finish(report or {})


def make_version_1(path: pathlib.Path) -> None:
    """Gives a shard the text of variable length, and the attributes, that schema version 1 had."""
    with h5py.File(path, "r+") as file:
        video_ids, report = file["video_id"].asstr()[...], file["report"].asstr()[()]
        del file["video_id"], file["report"]
        file.create_dataset("video_id", data=video_ids, dtype=h5py.string_dtype("utf-8"))
        file.attrs.update(schema_version=1, report=report)


def _clip(video_id: str, label: int, layout: shards.Layout, seed: tuple[int, ...]) -> shards.Clip:
    stream = np.random.default_rng(seed)
    frames = stream.integers(0, 80, layout.clip_shape, dtype=np.uint8)
    top, left = stream.integers(0, layout.height // 2), stream.integers(0, layout.width)
    for time, frame in enumerate(frames):
        columns = (left + label * time + np.arange(layout.width // 4)) % layout.width
        frame[top : top + layout.height // 2, columns] = 255
    truth, sets = layout.object_mask_shape, layout.sufficient_sets
    return shards.Clip(
        frames,
        label,
        video_id,
        source_frame=np.arange(layout.frames, dtype=np.int32),
        source_time=np.arange(layout.frames) / 25,
        source_frames=layout.frames,
        source_fps=25.0,
        salient=np.ones(layout.frames, np.uint8) if truth else None,
        object_mask=np.ones((layout.frames, *truth), np.uint8) if truth else None,
        sufficient=np.ones((sets, layout.frames), np.uint8) if sets else None,
    )
