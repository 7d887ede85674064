"""Makes the videos and the ground truth of a suite of planted events (`planted_suites` draws what they show).

    OUT/videos/ID.mp4     24 frames, 12 frames/s
    OUT/ground_truth.h5   of every video: label, frames of the event, sets of frames that suffice, where something moves
    OUT/planted.json      what the files were made from

How the videos are made and coded is in `drawn_videos`. The test split of a suite is the same for every seed; its digest
is in `common/clips/suites.py` and is checked when the split is made.
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from common import errors
from common.clips import suites
from data_prep import drawn_videos, ground_truth, plans, planted_scenes, planted_suites

VERSION = 1  # Of the scenes and their coding: another version's files are not mixed with ours.
NUM_SETS = 2  # Sets of frames that suffice, at most.


def make(
    suite: str,
    out: pathlib.Path,
    seed: int = 0,
    clips_per_class: Mapping[str, int] | None = None,
    workers: int = 2,
) -> None:
    """Makes a suite, or what is missing of it.

    A video depends on the suite, its split and its number alone, and, but for the test split, on the seed. Interrupted
    at any moment and started again, or asked for more clips than before, it keeps the videos that are there.

    Args:
      suite: one of `suites.SUITES`.
      out: folder to write to.
      seed: of all randomness but the test split's, at least 0.
      clips_per_class: split -> number of videos of each class that the suite has clips of; the suite's own if None.
      workers: number of processes.

    Raises:
      errors.UserError: if an argument is out of range, `out` holds other videos, or the frozen test split comes out
        otherwise than it should.
      launching.WorkerDiedError: when a process dies.
    """
    if seed < 0:
        raise errors.UserError(f"seed must be at least 0. Received: {seed}")
    wanted = _videos(suite, clips_per_class)
    made_from = {"version": VERSION, "suite": suite, "seed": seed}
    made = drawn_videos.make(out, "planted", made_from, functools.partial(draw_video, suite, seed), wanted, workers)
    if not made:
        return
    if is_frozen(suite, clips_per_class):
        _check_digest(suite, digest(made))
    ground_truth.write(pathlib.Path(out) / "ground_truth.h5", [one.truth for one in made])


def draw_video(suite: str, seed: int, split: str, number: int) -> drawn_videos.Drawing:
    """Draws a video: its frames and its ground truth. The classes take turns.

    Args:
      suite: one of `suites.SUITES`.
      seed: of the suite; without effect on the test split.
      split: that it belongs to.
      number: in the split.
    """
    labels = planted_suites.find(suite).labels
    label = labels[number % len(labels)]
    scene, happening = planted_suites.draw(suite, label, planted_suites.generator(suite, split, seed, number))
    frames, object_mask = planted_scenes.render(scene)
    truth = ground_truth.Truth(
        drawn_videos.video_id(split, number), label, happening.salient, object_mask, happening.sufficient
    )
    return drawn_videos.Drawing(frames, truth)


def plan(suite: str, source: pathlib.Path, splits: tuple[str, ...] | None) -> plans.Plan:
    """Returns the clips of the videos that `make` made in a folder.

    Args:
      suite: one of `suites.SUITES`.
      source: folder.
      splits: None takes those that have a video.
    """
    truth = ground_truth.GroundTruth(source / "ground_truth.h5")
    items: dict[str, list[plans.Item]] = {}
    for video_id in truth.video_ids():
        split = video_id.partition("-")[0]
        if splits is None or split in splits:
            items.setdefault(split, []).append(plans.Item(video_id, f"{video_id}.mp4", truth.label(video_id)))
    absent = [split for split in splits or () if split not in items]
    if absent:
        raise errors.UserError(f"splits must be some that the suite {suite} has. Received: {', '.join(absent)}")
    return plans.Plan(suites.class_names(suite), {split: tuple(found) for split, found in items.items()}, {})


def count(suite: str, clips_per_class: Mapping[str, int] | None, splits: tuple[str, ...] | None) -> plans.Plan:
    """Returns what `plan` would, without making a video: the items have neither id nor path."""
    found = planted_suites.find(suite)
    counts = found.clips_per_class if clips_per_class is None else clips_per_class
    items = {
        split: tuple(plans.Item("", "", label) for label in found.labels) * counts[split]
        for split in plans.SPLITS
        if counts.get(split) and (splits is None or split in splits)
    }
    return plans.Plan(suites.class_names(suite), items, {})


def name(suite: str, clips_per_class: Mapping[str, int] | None, splits: tuple[str, ...] | None) -> str:
    """Returns the name of the data set: with the digest of its test split where that is the frozen one."""
    frozen = is_frozen(suite, clips_per_class) and (splits is None or "test" in splits)
    return suites.data_set(suite) if frozen else f"planted-{suite}"


def is_frozen(suite: str, clips_per_class: Mapping[str, int] | None) -> bool:
    """Returns whether these numbers of videos give the suite's frozen test split, whole and nothing else."""
    frozen = planted_suites.find(suite).clips_per_class["test"]
    return clips_per_class is None or clips_per_class.get("test", 0) == frozen


def digest(made: Sequence[drawn_videos.Made]) -> str:
    """Returns the SHA-256, in hex, of the test split's pixels before they are coded, its labels and its truths."""
    sha256 = hashlib.sha256()
    for one in made:
        if one.truth.video_id.startswith("test-"):
            sha256.update(f"{one.truth.video_id} {one.truth.label} {one.sha256}\n".encode())
            for values in (one.truth.salient, one.truth.sufficient, one.truth.object_mask):
                sha256.update(np.ascontiguousarray(values).tobytes())
    return sha256.hexdigest()


def _check_digest(suite: str, found: str) -> None:
    if not found.startswith(suites.DIGESTS[suite]):
        raise errors.UserError(
            f"The frozen test split of the suite {suite} must have the digest {suites.DIGESTS[suite]}. "
            f"Received: {found[:8]}, from NumPy {np.__version__}"
        )


def _videos(suite: str, clips_per_class: Mapping[str, int] | None) -> list[tuple[str, int]]:
    found = planted_suites.find(suite)
    counts = dict(found.clips_per_class if clips_per_class is None else clips_per_class)
    drawn_videos.check_clips_per_class(counts)
    return [(split, number) for split in plans.SPLITS for number in range(counts.get(split, 0) * len(found.labels))]
