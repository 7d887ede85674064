"""Clips of videos that are in no store: read as `prepare` reads them, and put into a store of their own for one call.

What a model must be shown is its `ClipFormat`; frames are chosen and resized by the same rules as in a clip store.
"""

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from common import errors, files
from common.clips import clip_store, shards
from common.runs.clip_format import ClipFormat
from data_prep import decoded, images, names, plans, sampling, videos

SPLIT = "test"
_TOOL = {"name": "loose_clips", "version": "1"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A video on disk.

    Attributes:
      video_id: unique among those of one call, and fit to be a file name.
      path: of the file, or of a folder of frames.
      named: whether the user named it, and not a folder that it lies in.
    """

    video_id: str
    path: pathlib.Path
    named: bool = True


def find(paths: Sequence[pathlib.Path]) -> list[Source]:
    """Returns the videos that files and folders name, each once.

    Of a folder these are the videos in it, not those in folders below; one that holds frames instead is a video itself,
    and one that holds folders of frames holds as many videos.

    Raises:
      errors.UserError: for a name of nothing, and a folder without videos.
    """
    found: dict[pathlib.Path, tuple[pathlib.Path, bool]] = {}  # By its full name: as the user wrote it, and `named`.
    for path in paths:
        if not path.is_file() and not path.is_dir():  # To read a pipe could wait for ever.
            came = "which is neither" if path.exists() else "which is not there"
            raise errors.UserError(f"--video must name files or folders. Received: {path}, {came}")
        inside = _videos_in(path) if path.is_dir() else []
        if path.is_dir() and not inside and not images.holds_frames(path):
            raise errors.UserError(f"--video must name videos or folders of them. Received: {path} without any")
        for entry in inside or [path]:
            full = pathlib.Path(os.path.abspath(entry))
            written, named = found.get(full, (entry, False))
            found[full] = written, named or not inside
    counts = collections.Counter(full.stem for full in found)
    unique = names.clip_ids([full.stem if counts[full.stem] == 1 else str(full) for full in found])
    return [Source(video_id, path, named) for video_id, (path, named) in zip(unique, found.values(), strict=True)]


def _videos_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the videos in a folder: files, or folders of frames where it holds neither files nor frames itself."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    inside = [entry for entry in entries if entry.is_file() and plans.is_video(entry)]
    if inside or images.holds_frames(folder):
        return inside
    return [entry for entry in entries if entry.is_dir() and images.holds_frames(entry)]


def read(source: Source, form: ClipFormat) -> shards.Clip:
    """Returns a video as a clip.

    Args:
      source: of the video.
      form: what the model takes.

    Raises:
      errors.UserError: where it cannot be read, or has less than two frames.
    """
    time, height, width = form.shape

    def choose(num_frames: int) -> list[int]:
        return sampling.subsample(num_frames, time, form.subsampling).tolist()

    def transform(frame: np.ndarray) -> np.ndarray:
        return sampling.resize(frame, height, width, form.resize)

    try:
        video = videos.read_frames(source.path, choose, transform)
    except (decoded.UnreadableVideoError, decoded.ReadingStoppedError) as error:
        raise errors.UserError(f"A video must be readable. Received: {source.path}: {error}") from None
    if video.note:
        logging.warning("%s: %s", source.path, video.note)
    if video.num_frames < 2:
        raise errors.UserError(f"A video must have at least 2 frames. Received: {source.path} with {video.num_frames}")
    chosen = choose(video.num_frames)
    return _clip(
        source.video_id,
        np.stack([video.frames[index] for index in chosen]),
        chosen,
        [video.times[index] for index in chosen],
        video.num_frames,
        video.fps,
    )


def of_array(frames: np.ndarray, form: ClipFormat, name: str = "clip") -> shards.Clip:
    """Returns frames that are in memory as a clip: chosen and resized as those of a video are.

    Args:
      frames: uint8 [frames, h, w, 3], RGB, at least 2.
      form: what the model takes.
      name: of the clip.

    Raises:
      errors.UserError: for any other array.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) < 2 or not frames.size:
        raise errors.UserError(
            f"A clip must be uint8 [frames, h, w, 3], at least 2 frames. Received: {frames.dtype} {frames.shape}"
        )
    time, height, width = form.shape
    chosen = sampling.subsample(len(frames), time, form.subsampling).tolist()
    resized = np.stack([sampling.resize(frames[index], height, width, form.resize) for index in chosen])
    return _clip(name, resized, chosen, [math.nan] * time, len(frames), math.nan)


def write_store(directory: pathlib.Path, clips: Sequence[shards.Clip], form: ClipFormat) -> None:
    """Writes a whole clip store of these clips, whose split is `SPLIT` and whose classes are not known.

    Args:
      directory: to make.
      clips: at least one, with ids that differ.
      form: of all of them.
    """
    directory.mkdir(parents=True)
    layout = shards.Layout(*form.shape, encoding="raw")
    path = directory / clip_store.shard_name(SPLIT, 0, 1)
    with shards.ShardWriter(path, layout) as writer:
        for clip in clips:
            writer.add(clip)
        writer.finish({})
    shard = clip_store.Shard(path.name, SPLIT, len(clips), files.sha256(path))
    info = clip_store.DatasetInfo(
        dataset="videos",
        class_names=form.class_names,
        layout=layout,
        resize=form.resize,
        subsampling=form.subsampling,
        counts={SPLIT: dict.fromkeys(form.class_names, 0)},
        tool=_TOOL,
        decoder=videos.decoder_versions(),
        shards=(shard,),
    )
    clip_store.write_dataset_json(directory, info)


def _clip(
    name: str, frames: np.ndarray, chosen: Sequence[int], times: Sequence[float], num_frames: int, fps: float
) -> shards.Clip:
    return shards.Clip(
        frames,
        label=-1,
        video_id=name,
        source_frame=np.array(chosen, np.int32),
        source_time=np.array(times),
        source_frames=num_frames,
        source_fps=fps,
    )
