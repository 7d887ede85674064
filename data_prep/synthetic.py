"""Makes the synthetic data set: real video files, annotations as Something-something-V2's, and ground truth.

    OUT/videos/ID.mp4        12 frames/s, a few seconds (`synthetic_scenes` draws what they show)
    OUT/labels.json          class -> label; as distributed with Something-something-V2
    OUT/{train,validation}.json  records of id, label, template and placeholders; as distributed
    OUT/test.json            records of an id only; as distributed
    OUT/ground_truth.h5      of every video, test too: label, when the event happens, where the moving thing is
    OUT/synthetic.json       what the files were made from

How the videos are made and coded is in `drawn_videos`.
"""

import functools
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from common import errors, files
from data_prep import drawn_videos, ground_truth, plans, synthetic_scenes

CLASSES = synthetic_scenes.CLASSES
REVERSE_PAIRS = synthetic_scenes.REVERSE_PAIRS
WAVING = synthetic_scenes.WAVING
HOLDING = synthetic_scenes.HOLDING

SPLITS = plans.SPLITS
DEFAULT_CLIPS_PER_CLASS = {"train": 300, "validation": 20, "test": 10}  # Enough for the synthetic presets to learn.
VERSION = 1  # Of the scenes and their coding: another version's files are not mixed with ours.


def make_synthetic(
    out: pathlib.Path, seed: int = 0, clips_per_class: Mapping[str, int] | None = None, workers: int = 2
) -> None:
    """Makes the data set, or what is missing of it.

    A video depends on the seed, its split and its number alone. Interrupted at any moment and started again, or asked
    for more clips than before, it keeps the videos that are there.

    Args:
      out: folder to write to.
      seed: of all randomness, at least 0.
      clips_per_class: split -> number of videos of each of the twelve classes; `DEFAULT_CLIPS_PER_CLASS` if None.
      workers: number of processes.

    Raises:
      errors.UserError: if an argument is out of range, or `out` holds videos of another seed or version.
      launching.WorkerDiedError: when a process dies.
    """
    counts = dict(DEFAULT_CLIPS_PER_CLASS if clips_per_class is None else clips_per_class)
    if seed < 0:
        raise errors.UserError(f"seed must be at least 0. Received: {seed}")
    drawn_videos.check_clips_per_class(counts)
    wanted = [(split, i) for split in SPLITS for i in range(counts.get(split, 0) * len(CLASSES))]
    draw = functools.partial(_draw_video, seed)
    made = drawn_videos.make(out, "synthetic", {"version": VERSION, "seed": seed}, draw, wanted, workers)
    if made:
        _write_annotations(pathlib.Path(out), [one.record for one in made])
        ground_truth.write(pathlib.Path(out) / "ground_truth.h5", [one.truth for one in made])


def _draw_video(seed: int, split: str, number: int) -> drawn_videos.Drawing:
    """Draws a video of the data set of a seed; the classes take turns."""
    template, scene = _draw_scene(seed, split, number)
    frames, mask = synthetic_scenes.render(scene)
    video_id = drawn_videos.video_id(split, number)
    label = synthetic_scenes.TEMPLATES.index(template)
    truth = ground_truth.Truth(video_id, label, scene.salient, mask)
    return drawn_videos.Drawing(frames, truth, {"id": video_id, **_describe(template, scene)})


def _draw_scene(seed: int, split: str, number: int) -> tuple[str, synthetic_scenes.Scene]:
    """Draws what a video shows: its template and its scene."""
    template = synthetic_scenes.TEMPLATES[number % len(CLASSES)]
    rng = np.random.default_rng((seed, zlib.crc32(split.encode()), number))
    return template, synthetic_scenes.draw_scene(template, rng)


def _describe(template: str, scene: synthetic_scenes.Scene) -> dict[str, Any]:
    """Returns the label, template and placeholders of a scene, as Something-something writes them."""
    evidence_first = sorted(scene.things, key=lambda thing: not thing.moves)
    placeholders = [thing.words for thing in evidence_first[: template.count("[something]")]]
    label = template.lower()
    for words in placeholders:
        label = label.replace("[something]", words, 1)
    return {"label": label, "template": template, "placeholders": placeholders}


def _write_annotations(out: pathlib.Path, records: list[dict[str, Any]]) -> None:
    files.write_json(out / "labels.json", {name: str(label) for label, name in enumerate(CLASSES)})
    for split in SPLITS:
        own = [record for record in records if record["id"].startswith(f"{split}-")]
        files.write_json(out / f"{split}.json", [{"id": r["id"]} for r in own] if split == "test" else own)
