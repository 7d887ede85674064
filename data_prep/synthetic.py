"""Makes the synthetic data set: real video files, annotations as Something-something-V2's, and ground truth.

    OUT/videos/ID.mp4        12 frames/s, a few seconds (`synthetic_scenes` draws what they show)
    OUT/labels.json          class -> label; as distributed with Something-something-V2
    OUT/{train,validation}.json  records of id, label, template and placeholders; as distributed
    OUT/test.json            records of an id only; as distributed
    OUT/ground_truth.h5      of every video, test too: label, when the event happens, where the moving thing is
    OUT/synthetic.json       what the files were made from

Every frame is coded by itself with a fixed quantiser. A codec that predicts frames from earlier ones leaves traces of
the direction of time in single frames; here a reversed scene decodes to exactly the reversed frames.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import av
import h5py
import numpy as np

from common import errors, hdf5_output, progress
from data_prep import synthetic_scenes
from data_prep import workers as processes

CLASSES = synthetic_scenes.CLASSES
REVERSE_PAIRS = synthetic_scenes.REVERSE_PAIRS
WAVING = synthetic_scenes.WAVING
HOLDING = synthetic_scenes.HOLDING

SPLITS = ("train", "validation", "test")
FRAMES_PER_SECOND = 12  # As Something-something-V2.
DEFAULT_CLIPS_PER_CLASS = {"train": 300, "validation": 20, "test": 10}  # Enough for the synthetic presets to learn.
VERSION = 1  # Of the scenes and their coding: another version's files are not mixed with ours.

_VIDEOS_PER_JOB = 24
_ENCODER_OPTIONS = {"preset": "ultrafast", "qp": "24", "g": "1"}  # Every frame a key frame, no rate control.


@dataclasses.dataclass(frozen=True)
class _Truth:
    """Ground truth of one video, and its annotation.

    Attributes:
      record: the annotation as train.json has it.
      label: index into `CLASSES`.
      salient: uint8 [n], 1 in the frames of the event.
      packed_mask: uint8 [n, MASK_SIZE * MASK_SIZE / 8], the object mask, eight cells a byte.
    """

    record: dict[str, Any]
    label: int
    salient: np.ndarray
    packed_mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Job:
    """Videos (split, number in the split) to make in a folder, of the data set of a seed."""

    folder: pathlib.Path
    seed: int
    videos: list[tuple[str, int]]


class GroundTruth:
    """Reader of ground_truth.h5. The file is opened at the first look, in each process anew."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = pathlib.Path(path)
        self._file: h5py.File | None = None
        self._process = 0
        self._rows: dict[str, int] = {}

    def salient(self, video_id: str) -> np.ndarray:
        """Returns which frames show the event: uint8 [n], all 0 in "Holding something"."""
        return self._read("salient", video_id)

    def object_mask(self, video_id: str) -> np.ndarray:
        """Returns where the moving thing is: uint8 [n, h, w], 1 inside; see `synthetic_scenes.render`."""
        return self._read("object_mask", video_id)

    def event(self, video_id: str) -> tuple[int, int]:
        """Returns the first and the last frame of the event, or (-1, -1) where there is none."""
        file, row = self._find(video_id)
        first, last = file["event"][row]
        return int(first), int(last)

    def label(self, video_id: str) -> int:
        """Returns the class, an index into `CLASSES`."""
        file, row = self._find(video_id)
        return int(file["label"][row])

    def video_ids(self) -> list[str]:
        """Returns the ids of all videos in the file's order."""
        self._open()
        return list(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _open(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():  # A handle does not survive a fork.
            self._file, self._process = _opened(self._path), os.getpid()
            ids = self._file["video_id"].asstr()[:]
            self._rows = {str(video_id): row for row, video_id in enumerate(ids)}
        return self._file

    def _find(self, video_id: str) -> tuple[h5py.File, int]:
        file = self._open()
        if video_id not in self._rows:
            raise errors.UserError(f"{self._path} must hold the video id. Received: {video_id!r}")
        return file, self._rows[video_id]

    def _read(self, name: str, video_id: str) -> np.ndarray:
        file, row = self._find(video_id)
        begin, end = file["frame_offsets"][row : row + 2]
        return file[name][begin:end]


def _opened(path: pathlib.Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError:
        raise errors.UserError(
            f"The ground truth must be an HDF5 file that make_synthetic wrote. Received: {path}"
        ) from None


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
      workers.WorkerDiedError: when a process dies.
    """
    counts = dict(DEFAULT_CLIPS_PER_CLASS if clips_per_class is None else clips_per_class)
    _check(seed, counts, workers)
    out = pathlib.Path(out)
    _claim(out, seed)
    (out / "videos").mkdir(exist_ok=True)
    wanted = [(split, i) for split in SPLITS for i in range(counts.get(split, 0) * len(CLASSES))]
    if _is_complete(out, wanted):
        return
    jobs = [_Job(out / "videos", seed, wanted[i : i + _VIDEOS_PER_JOB]) for i in range(0, len(wanted), _VIDEOS_PER_JOB)]
    truths: dict[str, _Truth] = {}
    with progress.bar(total=len(wanted), desc="making videos", unit="video", disable=None) as bar:
        for made in processes.run_jobs(_make_videos, jobs, workers, bar.update):
            truths.update((truth.record["id"], truth) for truth in made)
    in_order = [truths[_video_id(*video)] for video in wanted]
    _write_annotations(out, [truth.record for truth in in_order])
    _write_ground_truth(out / "ground_truth.h5", in_order)


def _check(seed: int, counts: Mapping[str, int], workers: int) -> None:
    if seed < 0:
        raise errors.UserError(f"seed must be at least 0. Received: {seed}")
    if workers < 1:
        raise errors.UserError(f"workers must be at least 1. Received: {workers}")
    if not set(counts) <= set(SPLITS) or min(counts.values(), default=0) < 0 or not any(counts.values()):
        raise errors.UserError(
            f"clips_per_class must give a number of clips, not all 0, to some of {', '.join(SPLITS)}. "
            f"Received: {counts}"
        )


def _claim(out: pathlib.Path, seed: int) -> None:
    """Notes what the files in `out` are made from; refuses a folder whose files are made from something else."""
    made_from = {"version": VERSION, "seed": seed}
    note = out / "synthetic.json"
    if note.is_file():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != made_from:
            raise errors.UserError(f"{out} must hold synthetic videos of {made_from} or nothing. Received: {found}")
    elif out.exists() and (not out.is_dir() or any(path.suffix != ".partial" for path in out.iterdir())):
        raise errors.UserError(f"The folder of synthetic videos must be empty or new. Received: {out}")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(note, made_from)


def _is_complete(out: pathlib.Path, wanted: list[tuple[str, int]]) -> bool:
    """Returns whether nothing is left to do. The ground truth is written last and lists what was made."""
    ids = [_video_id(*video) for video in wanted]
    truth = out / "ground_truth.h5"
    if not truth.is_file() or not all((out / "videos" / f"{video_id}.mp4").exists() for video_id in ids):
        return False
    with _opened(truth) as file:
        return list(file["video_id"].asstr()[:]) == ids


def _make_videos(job: _Job, tick: processes.Tick) -> list[_Truth]:
    truths = []
    for video in job.videos:
        truths.append(_make_video(job.folder, job.seed, video))
        tick()
    return truths


def _make_video(folder: pathlib.Path, seed: int, video: tuple[str, int]) -> _Truth:
    """Makes one video file, unless it is there, and returns its ground truth.

    Args:
      folder: where to.
      seed: of the data set.
      video: split and number in the split; the classes take turns.
    """
    template, scene = _draw_video(seed, *video)
    frames, mask = synthetic_scenes.render(scene)
    record = {"id": _video_id(*video), **_describe(template, scene)}
    path = folder / f"{record['id']}.mp4"
    if not path.exists():
        _encode(path, frames)
    label = synthetic_scenes.TEMPLATES.index(template)
    return _Truth(record, label, scene.salient, np.packbits(mask.reshape(len(mask), -1), axis=1))


def _video_id(split: str, number: int) -> str:
    return f"{split}-{number:05d}"


def _draw_video(seed: int, split: str, number: int) -> tuple[str, synthetic_scenes.Scene]:
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


def _encode(path: pathlib.Path, frames: np.ndarray) -> None:
    """Writes uint8 [n, H, W, 3] as a video file, whole or not at all."""
    coded = io.BytesIO()  # PyAV prints a traceback where a file cannot be written, and takes names for URLs.
    with av.open(coded, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=_ENCODER_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # The same bytes on any number of cores.
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    with _completed(path) as partial:
        partial.write_bytes(coded.getbuffer())


def _write_annotations(out: pathlib.Path, records: list[dict[str, Any]]) -> None:
    _write_json(out / "labels.json", {name: str(label) for label, name in enumerate(CLASSES)})
    for split in SPLITS:
        own = [record for record in records if record["id"].startswith(f"{split}-")]
        _write_json(out / f"{split}.json", [{"id": r["id"]} for r in own] if split == "test" else own)


def _write_ground_truth(path: pathlib.Path, truths: list[_Truth]) -> None:
    """Writes ground_truth.h5: a row per video, the frames of all videos end to end."""
    offsets = np.cumsum([0, *(len(truth.salient) for truth in truths)], dtype=np.int64)
    side = synthetic_scenes.MASK_SIZE
    with _completed(path) as partial, hdf5_output.created(partial) as (file, _):
        ids = [truth.record["id"] for truth in truths]
        file.create_dataset("video_id", data=ids, dtype=h5py.string_dtype())
        file["label"] = np.array([truth.label for truth in truths], np.int32)
        file["event"] = np.array([_event(truth.salient) for truth in truths], np.int32)
        file["frame_offsets"] = offsets
        file["salient"] = np.concatenate([truth.salient for truth in truths])
        shape, chunks = (int(offsets[-1]), side, side), (synthetic_scenes.FRAMES[1], side, side)
        masks = file.create_dataset("object_mask", shape, np.uint8, chunks=chunks, compression="gzip")
        for truth, begin in zip(truths, offsets, strict=False):
            mask = np.unpackbits(truth.packed_mask, axis=1, count=side * side)
            masks[begin : begin + len(mask)] = mask.reshape(-1, side, side)


def _event(salient: np.ndarray) -> tuple[int, int]:
    frames = np.flatnonzero(salient)
    return (int(frames[0]), int(frames[-1])) if len(frames) else (-1, -1)


def _write_json(path: pathlib.Path, value: Any) -> None:
    with _completed(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _completed(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name to write to; the file takes its own name when it is complete, and is gone where that fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
