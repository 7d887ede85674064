"""The unit of work: a list of clips and the settings they share, made into one shard file.

A job says all that its shard depends on, so it can run in any process of any machine that sees the videos, in any
order, and gives the same bytes. What happened on the way (clips that could not be made, oddities) and a fingerprint of
the job are stored in the shard, so a finished shard needs no other record to be continued from.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from common import errors, files
from common.clips import clip_store, shards
from data_prep import ground_truth, plans, sampling, videos


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all shards of a store share, and their bytes depend on.

    Attributes:
      dataset: name of the data set.
      class_names: in label order.
      layout: shape and encoding of the clips.
      subsampling: "linspace" or "released", see `sampling.subsample`.
      resize: "stretch" or "center_crop", see `sampling.resize`.
      versions: name -> version of everything that turns files into bytes.
    """

    dataset: str
    class_names: tuple[str, ...]
    layout: shards.Layout
    subsampling: str
    resize: str
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be made.

    Attributes:
      file: final path of the shard.
      split: that the clips belong to.
      items: the clips, those of one video next to each other.
      settings: of the store.
      source: folder that the items' paths start from.
      ground_truth: ground_truth.h5 of videos that were drawn, or None.
    """

    file: pathlib.Path
    split: str
    items: tuple[plans.Item, ...]
    settings: Settings
    source: pathlib.Path
    ground_truth: pathlib.Path | None = None

    @property
    def size(self) -> int:
        """Number of clips."""
        return len(self.items)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that the shard's bytes depend on, but the videos themselves and the place where they lie."""
        items = [dataclasses.astuple(item) for item in self.items]
        made_from = [self.file.name, self.split, dataclasses.asdict(self.settings), items]
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished shard holds.

    Attributes:
      shard: its line in `dataset.json`.
      labels: class index -> clips; -1 counts those of unknown class.
      failures: clips that could not be made, with the reason.
      notes: oddities of clips that were made.
    """

    shard: clip_store.Shard
    labels: dict[int, int]
    failures: tuple[plans.Remark, ...]
    notes: tuple[plans.Remark, ...]


def split_into_jobs(
    out: pathlib.Path,
    split: str,
    items: tuple[plans.Item, ...],
    clips_per_shard: int,
    settings: Settings,
    source: pathlib.Path,
    ground_truth: pathlib.Path | None,
) -> list[Job]:
    """Returns the jobs of one split, in order.

    Clips of one video stay in one shard, so that it is decoded once; a video with more clips than `clips_per_shard`
    gets a shard of its own.
    """
    parts: list[list[plans.Item]] = []
    for _, group in itertools.groupby(items, key=lambda item: item.path):
        clips = list(group)
        if not parts or len(parts[-1]) + len(clips) > clips_per_shard:
            parts.append([])
        parts[-1] += clips
    files = [out / clip_store.shard_name(split, index, len(parts)) for index in range(len(parts))]
    return [
        Job(file, split, tuple(part), settings, source, ground_truth) for file, part in zip(files, parts, strict=True)
    ]


def make_shard(job: Job, tick: Callable[[], object]) -> Result:
    """Makes one shard and returns what it holds.

    Args:
      job: what to make.
      tick: called after each clip, made or failed; may raise to stop, which leaves no file behind.

    Raises:
      decoded.ReadingStoppedError: where a video cannot be read for a reason that is not its own; no file is left.
      OSError: where the shard cannot be written.
    """
    truth = ground_truth.GroundTruth(job.ground_truth) if job.ground_truth else None
    labels: collections.Counter[int] = collections.Counter()
    failures: list[tuple[str, str, str]] = []
    notes: list[tuple[str, str, str]] = []
    with shards.ShardWriter(job.file, job.settings.layout) as writer:
        for path, group in itertools.groupby(job.items, key=lambda item: item.path):
            items = list(group)
            try:
                decoded = _decode(job, path, items)
            except videos.UnreadableVideoError as error:
                failures += [(item.video_id, path, str(error)) for item in items]
                for _ in items:
                    tick()
                continue
            for item in items:
                remark = _remark(item, decoded)
                if _length(item, decoded.num_frames) < 1:
                    failures.append((item.video_id, path, remark))
                else:
                    notes += [(item.video_id, path, remark)] if remark else []
                    labels[item.label] += 1
                    writer.add(_clip(job.settings, item, decoded, truth))
                tick()
        counts = {str(label): count for label, count in sorted(labels.items())}
        writer.finish({"fingerprint": job.fingerprint, "failures": failures, "notes": notes, "labels": counts})
    return read_result(job)


def read_result(job: Job, digest: str | None = None) -> Result:
    """Returns what the finished shard of a job holds.

    Args:
      job: whose shard exists.
      digest: SHA-256 that the shard is known to have; None computes it.

    Raises:
      errors.UserError: where the file is not a whole shard.
    """
    with _refusing_damage(job.file):
        report = shards.read_report(job.file)
        labels = {int(label): count for label, count in report["labels"].items()}
        shard = clip_store.Shard(job.file.name, job.split, sum(labels.values()), digest or files.sha256(job.file))
        failures, notes = (tuple(plans.Remark(*row) for row in report[name]) for name in ("failures", "notes"))
        return Result(shard, labels, failures, notes)


def read_fingerprint(path: pathlib.Path) -> str:
    """Returns the fingerprint of the job that made a shard; refuses a file that is not a whole shard."""
    with _refusing_damage(path):
        return shards.read_report(path)["fingerprint"]


@contextlib.contextmanager
def _refusing_damage(path: pathlib.Path) -> Iterator[None]:
    """Turns what h5py and Python raise for a damaged report into a line that says so."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"A shard must hold the report of its making. Received: {path}, which is damaged ({error}): delete it"
        ) from None


def _decode(job: Job, path: str, items: list[plans.Item]) -> videos.Decoded:
    """Decodes one video once for all clips that are cut from it."""
    layout = job.settings.layout

    def choose(num_frames: int) -> set[int]:
        chosen = [_indices(job.settings, item, num_frames) for item in items if _length(item, num_frames) > 0]
        return set(np.concatenate(chosen).tolist()) if chosen else set()

    def transform(frame: np.ndarray) -> np.ndarray:
        return sampling.resize(frame, layout.height, layout.width, job.settings.resize)

    return videos.read_frames(job.source / path, choose, transform)


def _length(item: plans.Item, num_frames: int) -> int:
    """Returns how many frames of a clip's range exist, given how many the video has."""
    first, stop = item.frame_range or (0, num_frames)
    return max(min(stop, num_frames) - first, 0)


def _indices(settings: Settings, item: plans.Item, num_frames: int) -> np.ndarray:
    first = item.frame_range[0] if item.frame_range else 0
    return first + sampling.subsample(_length(item, num_frames), settings.layout.frames, settings.subsampling)


def _remark(item: plans.Item, decoded: videos.Decoded) -> str:
    """Returns what is odd about a clip; ranges count as in the annotations, from 1 to the last frame inclusive."""
    remarks = [decoded.note] if decoded.note else []
    if item.frame_range and item.frame_range[1] > decoded.num_frames:
        first, last = item.frame_range[0] + 1, item.frame_range[1]
        kept = f"cut to {first}-{decoded.num_frames}" if first <= decoded.num_frames else "lies past the end"
        remarks.append(f"range {first}-{last} {kept}: {decoded.num_frames} frames decode")
    return "; ".join(remarks)


def _clip(
    settings: Settings, item: plans.Item, decoded: videos.Decoded, truth: ground_truth.GroundTruth | None
) -> shards.Clip:
    indices = _indices(settings, item, decoded.num_frames)
    sufficient = truth.sufficient(item.video_id) if truth else None
    return shards.Clip(
        frames=np.stack([decoded.frames[index] for index in indices.tolist()]),
        label=item.label,
        video_id=item.video_id,
        source_frame=indices,
        source_time=np.array([decoded.times[index] for index in indices.tolist()]),
        source_frames=_length(item, decoded.num_frames),
        source_fps=decoded.fps,
        salient=truth.salient(item.video_id)[indices] if truth else None,
        object_mask=truth.object_mask(item.video_id)[indices] if truth else None,
        sufficient=None if sufficient is None else sufficient[:, indices],
    )
