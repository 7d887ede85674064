"""Makes the video files of a data set that draws its own: what is missing, in worker processes, always the same bytes.

    OUT/NAME.json            what the files were made from, written first
    OUT/videos/SPLIT-NUMBER.mp4  12 frames/s
    OUT/ground_truth.h5      of every video (`ground_truth`), written last: it lists what was made

Every frame is coded by itself with a fixed quantiser. A codec that predicts frames from earlier ones leaves traces of
the direction of time in single frames; here reversed frames decode to exactly the reversed frames, and equal frames to
equal frames.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import numpy as np

from common import errors, files, launching, progress
from common.launching import Launch, Tick
from data_prep import decoders, ground_truth, plans

FRAMES_PER_SECOND = 12  # As Something-something-V2.

_VIDEOS_PER_JOB = 24
_ENCODER_OPTIONS = {"preset": "ultrafast", "qp": "24", "g": "1"}  # Every frame a key frame, no rate control.


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """One video before it is coded.

    Attributes:
      frames: uint8 [n, H, W, 3], RGB.
      truth: of the video.
      record: its annotation, what JSON can hold; empty where there is none.
    """

    frames: np.ndarray
    truth: ground_truth.Truth
    record: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """What is kept of a video that was made: its `Drawing` without the frames, but their SHA-256 (hex)."""

    truth: ground_truth.Truth
    record: dict[str, Any]
    sha256: str


Draw = Callable[[str, int], Drawing]  # Of a split and a number in the split.


@dataclasses.dataclass(frozen=True)
class _Job:
    """Videos (split, number in the split) to draw and to make in a folder."""

    folder: pathlib.Path
    draw: Draw
    videos: list[tuple[str, int]]


def video_id(split: str, number: int) -> str:
    """Returns the id of a video, which is also its file's stem."""
    return f"{split}-{number:05d}"


def make(
    out: pathlib.Path,
    name: str,
    made_from: dict[str, Any],
    draw: Draw,
    videos: Sequence[tuple[str, int]],
    workers: int,
) -> list[Made]:
    """Makes the videos that are missing. The caller then writes OUT/ground_truth.h5 of what this returns.

    Interrupted at any moment and started again, or asked for more videos than before, it keeps those that are there.

    Args:
      out: folder to write to.
      name: of the data set.
      made_from: all that a drawing depends on but split and number (JSON-able); a folder made from something else is
        refused.
      draw: draws a video; picklable.
      videos: split and number of each; at least one.
      workers: number of processes.

    Returns:
      A `Made` for each of the videos, in their order; none where all are there and the ground truth lists them.

    Raises:
      errors.UserError: for workers below 1, and a folder that holds anything else.
      launching.WorkerDiedError: when a process dies.
    """
    launch = Launch(workers)
    out = pathlib.Path(out)
    _claim(out, name, made_from)
    (out / "videos").mkdir(exist_ok=True)
    for folder in (out, out / "videos"):
        files.remove_leftovers(folder)
    if _is_complete(out, [video_id(*video) for video in videos]):
        return []
    jobs = [
        _Job(out / "videos", draw, list(videos[start : start + _VIDEOS_PER_JOB]))
        for start in range(0, len(videos), _VIDEOS_PER_JOB)
    ]
    made: dict[str, Made] = {}
    with progress.bar(total=len(videos), desc="making videos", unit="video", disable=None) as bar:
        for some in launching.run(_make_videos, jobs, launch, lambda videos: bar.update(int(videos))):
            made.update((one.truth.video_id, one) for one in some)
    return [made[video_id(*video)] for video in videos]


def check_clips_per_class(counts: Mapping[str, int]) -> None:
    """Refuses numbers of videos for anything but the splits, below 0, or all 0."""
    if not set(counts) <= set(plans.SPLITS) or min(counts.values(), default=0) < 0 or not any(counts.values()):
        raise errors.UserError(
            f"clips_per_class must give a number of clips, not all 0, to some of {', '.join(plans.SPLITS)}. "
            f"Received: {dict(counts)}"
        )


def _claim(out: pathlib.Path, name: str, made_from: dict[str, Any]) -> None:
    """Notes what the files in `out` are made from; refuses a folder whose files are made from something else."""
    note = out / f"{name}.json"
    if note.is_file():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != made_from:
            raise errors.UserError(f"{out} must hold {name} videos of {made_from} or nothing. Received: {found}")
    elif out.exists() and (not out.is_dir() or any(path.suffix != ".tmp" for path in out.iterdir())):
        raise errors.UserError(f"The folder of {name} videos must be empty or new. Received: {out}")
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(note, made_from)


def _is_complete(out: pathlib.Path, ids: list[str]) -> bool:
    """Returns whether nothing is left to do."""
    path = out / "ground_truth.h5"
    if not path.is_file() or not all((out / "videos" / f"{one}.mp4").exists() for one in ids):
        return False
    return ground_truth.GroundTruth(path).video_ids() == ids


def _make_videos(job: _Job, tick: Tick) -> list[Made]:
    made = []
    with decoders.one_thread():
        for video in job.videos:
            drawing = job.draw(*video)
            path = job.folder / f"{drawing.truth.video_id}.mp4"
            if not path.exists():
                encode(path, drawing.frames)
            made.append(Made(drawing.truth, drawing.record, sha256(drawing.frames)))
            tick(1)
    return made


def sha256(frames: np.ndarray) -> str:
    """Returns the SHA-256, in hex, of frames' pixels."""
    return hashlib.sha256(frames.tobytes()).hexdigest()


def encode(path: pathlib.Path, frames: np.ndarray) -> None:
    """Writes frames, uint8 [n, H, W, 3], as a video file, whole or not at all."""
    coded = io.BytesIO()  # PyAV prints a traceback where a file cannot be written, and takes names for URLs.
    with av.open(coded, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=_ENCODER_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # The same bytes on any number of cores.
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    with files.written_whole(path) as partial:
        partial.write_bytes(coded.getbuffer())
