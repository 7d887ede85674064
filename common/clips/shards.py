"""One shard of a clip store: an HDF5 file of clips, written whole or not at all, and read by many threads.

A clip is uint8 [T, H, W, 3], RGB. Pixels lie in the file either as they are, one chunk per clip (`raw`), or as JPEG
frames laid end to end (`jpeg`). HDF5 says where; the bytes themselves are read with `pread`, so threads read and decode
at once, and no handle has to survive a fork or a pickle.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import h5py
import numpy as np

from common import errors, files, hdf5, hdf5_output

SCHEMA_VERSION = 2  # In version 1 text was of variable length (see `hdf5`), and the report an attribute.
READABLE_VERSIONS = (1, SCHEMA_VERSION)
ENCODINGS = ("jpeg", "raw")
MOST_PIXELS = 1 << 16  # On a side, and frames of a clip: JPEG's own limit.


@dataclasses.dataclass(frozen=True)
class Layout:
    """What every clip of a store has in common.

    Attributes:
      frames: T.
      height: H in px.
      width: W in px.
      encoding: "jpeg" or "raw".
      jpeg_quality: 1…100, of `jpeg`.
      object_mask_shape: (h, w) of the ground-truth masks where clips carry `salient` and `object_mask`, or None.
      sufficient_sets: S, number of sets of frames where clips carry `sufficient` and `needed`, or 0.
    """

    frames: int
    height: int
    width: int
    encoding: str = "jpeg"
    jpeg_quality: int = 95
    object_mask_shape: tuple[int, int] | None = None
    sufficient_sets: int = 0

    def __post_init__(self) -> None:
        sizes = (self.frames, self.height, self.width, *(self.object_mask_shape or ()))
        if not (1 <= min(sizes) and max(sizes) <= MOST_PIXELS):
            raise errors.UserError(
                f"A clip must have 1…{MOST_PIXELS} frames, and 1…{MOST_PIXELS} px on each side. "
                f"Received: frames={self.frames}, height={self.height}, width={self.width}, "
                f"object_mask_shape={self.object_mask_shape}"
            )
        if self.encoding not in ENCODINGS or not 1 <= self.jpeg_quality <= 100:
            raise errors.UserError(
                f"encoding must be one of {', '.join(ENCODINGS)} and jpeg_quality in 1…100. "
                f"Received: encoding={self.encoding!r}, jpeg_quality={self.jpeg_quality}"
            )

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3)."""
        return (self.frames, self.height, self.width, 3)


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip on its way into a store.

    Attributes:
      frames: uint8 [T, H, W, 3], RGB.
      label: class index, or -1 where it is unknown.
      video_id: unique in its split.
      source_frame: int32 [T], index of each frame in the source video.
      source_time: float64 [T], its presentation time in seconds.
      source_frames: number of frames of the source (or of the sequence cut from it).
      source_fps: frames per second of the source.
      salient: uint8 [T], 1 where the frame carries the evidence for the class; None if unknown.
      object_mask: uint8 [T, h, w], 1 where the moving object is; None if unknown.
      sufficient: uint8 [S, T], each row a set of frames that suffices for the class, or zeros; None if unknown.
    """

    frames: np.ndarray
    label: int
    video_id: str
    source_frame: np.ndarray
    source_time: np.ndarray
    source_frames: int
    source_fps: float
    salient: np.ndarray | None = None
    object_mask: np.ndarray | None = None
    sufficient: np.ndarray | None = None

    @property
    def needed(self) -> np.ndarray | None:
        """The frames that are in every set that suffices, uint8 [T]; None if unknown."""
        if self.sufficient is None:
            return None
        sets = self.sufficient[self.sufficient.any(axis=1)]
        return sets.min(axis=0, initial=1) if len(sets) else np.zeros_like(self.sufficient[0])


def table(layout: Layout) -> dict[str, hdf5.Column]:
    """Returns what every dataset of a shard must be but the pixels. N clips, K classes."""
    frames = layout.frames
    columns = {
        "label": hdf5.Column(np.int32, "N", low=-1, high=lambda sizes: sizes["K"] - 1),
        "video_id": hdf5.Column(hdf5.TEXT, "N"),
        "source_frame": hdf5.Column(np.int32, ("N", frames), low=0),
        "source_time": hdf5.Column(np.float64, ("N", frames), nan=True),
        "source_frames": hdf5.Column(np.int32, "N", low=1),
        "source_fps": hdf5.Column(np.float32, "N", nan=True),
    }
    if layout.object_mask_shape:
        columns["salient"] = hdf5.Column(np.uint8, ("N", frames), low=0, high=1)
        columns["object_mask"] = hdf5.Column(np.uint8, ("N", frames, *layout.object_mask_shape), low=0, high=1)
    if layout.sufficient_sets:
        columns["sufficient"] = hdf5.Column(np.uint8, ("N", layout.sufficient_sets, frames), low=0, high=1)
        columns["needed"] = hdf5.Column(np.uint8, ("N", frames), low=0, high=1)
    return columns


class ShardWriter:
    """A shard in the making. It appears under its name only when the block ends well, whole and with its report.

        with ShardWriter(path, layout) as writer:
            for clip in clips:
                writer.add(clip)
            writer.finish({"failures": failures})

    The same clips and the same report give the same bytes. Only JPEG bytes, or one raw clip, are held in memory.

    Args:
      path: final name; its folder exists.
      layout: of the store.

    Raises:
      RuntimeError: where the block ends without `finish`.
    """

    def __init__(self, path: pathlib.Path, layout: Layout) -> None:
        self._path, self._layout = path, layout
        self._columns: dict[str, list[Any]] = {name: [] for name in table(layout)}
        self._encoded: list[np.ndarray] = []
        self._finished = False

    def __enter__(self) -> "ShardWriter":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(files.written_whole(self._path, durable=True))
            self._file, self._check = stack.enter_context(hdf5_output.created(temporary))
            if self._layout.encoding == "raw":
                shape = self._layout.clip_shape
                chunks, most = (1, *shape), (None, *shape)
                # Kept: a data set that is opened anew for each clip is laid out otherwise in the file.
                self._raw = self._file.create_dataset("frames", (0, *shape), np.uint8, chunks=chunks, maxshape=most)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._open:  # What is raised in here tells `written_whole` to leave no file.
            if error is not None:
                raise error
            if not self._finished:
                raise RuntimeError(f"A shard must be finished with its report. Received: {self._path} without one")

    def add(self, clip: Clip) -> None:
        """Appends a clip.

        Raises:
          ValueError: where its arrays do not have the layout's shapes; the shard should be given up.
          OSError: where the disk is full.
        """
        _check_clip(clip, self._layout)
        if self._layout.encoding == "raw":
            self._raw.resize(len(self._raw) + 1, axis=0)
            self._raw[-1] = clip.frames
        else:
            self._encoded += [encode_jpeg(frame, self._layout.jpeg_quality) for frame in clip.frames]
        for name, values in self._columns.items():
            values.append(getattr(clip, name))
        self._check()

    def finish(self, report: dict[str, Any]) -> None:
        """Writes what was held back, and the report of the shard's making (JSON-able); nothing can be added after."""
        if self._layout.encoding == "jpeg":
            _write_jpeg(self._file, self._encoded, self._layout)
        for name, column in table(self._layout).items():
            if column.is_text:
                hdf5.write_text(self._file, name, self._columns[name])
            else:
                data = np.array(self._columns[name], column.dtype).reshape(-1, *column.shape[1:])
                self._file.create_dataset(name, data=data)
        self._file.attrs["schema_version"] = SCHEMA_VERSION
        hdf5.write_text(self._file, "report", json.dumps(report, sort_keys=True))
        self._finished = True


def _write_jpeg(file: h5py.File, encoded: list[np.ndarray], layout: Layout) -> None:
    ends = np.cumsum([image.size for image in encoded], dtype=np.int64)
    frames = file.create_dataset("frames", (int(ends[-1]) if encoded else 0,), np.uint8)
    for image, end in zip(encoded, ends, strict=True):  # One by one: no second copy of a shard in memory.
        frames[end - image.size : end] = image
    ends = ends.reshape(-1, layout.frames)
    starts = np.concatenate([[0], ends[:-1, -1]])[: len(ends), None] if len(ends) else ends[:, :1]
    file["frame_offsets"] = np.concatenate([starts, ends], axis=1)


def _check_clip(clip: Clip, layout: Layout) -> None:
    shapes: dict[str, tuple[int, ...]] = {"frames": layout.clip_shape}
    for name, column in table(layout).items():
        if len(column.shape) > 1:
            shapes[name] = tuple(map(int, column.shape[1:]))
    for name, shape in shapes.items():
        value = getattr(clip, name)
        if value is None or np.shape(value) != shape:
            raise ValueError(f"{name} of clip {clip.video_id!r} must have shape {shape}. Received: {np.shape(value)}")
    if clip.frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8. Received: {clip.frames.dtype}")


def encode_jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    """Returns the JPEG bytes (uint8 [bytes]) of an RGB frame, uint8 [H, W, 3]."""
    _, data = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    return data.reshape(-1)


def read_report(path: pathlib.Path) -> dict[str, Any]:
    """Returns the report that was stored with a shard; refuses a file that is not a whole shard."""
    with _opened(path) as file:
        if hdf5.integer_attribute(file, "schema_version") == 1:
            report = hdf5.text_attribute(file, "report")
        else:
            report = hdf5.read(file, {"report": hdf5.Column(hdf5.TEXT, ())}, {})["report"].item()
    if report is None:
        raise errors.UserError(f"A shard must hold the report of its making. Received: {path} without one")
    return files.parse_json(report, "The report of a shard", path)


def version(path: pathlib.Path) -> int:
    """Returns the schema version of a shard; refuses a file without one that is readable."""
    with _opened(path) as file:
        return hdf5.integer_attribute(file, "schema_version") or 0


def read_columns(path: pathlib.Path, layout: Layout, clips: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns some of a shard's columns, by name; their values are not checked (see `hdf5.check_bounds`).

    Args:
      path: of the file.
      layout: of the store.
      clips: N.
      names: keys of `table`.
    """
    known = table(layout)
    with _opened(path) as file:
        return hdf5.read(file, {name: known[name] for name in names}, {"N": clips})


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[h5py.File]:
    with hdf5.opened(path, "A shard") as file:
        found = hdf5.integer_attribute(file, "schema_version")
        if found not in READABLE_VERSIONS:
            known = " or ".join(map(str, READABLE_VERSIONS))
            raise errors.UserError(f"A shard must have schema version {known}. Received: {found} in {path}")
        yield file


class ShardReader:
    """One checked shard: its columns in memory, its pixels read when asked for.

    Whether values are in their bounds, `hdf5.check_bounds` says, with the number of classes.

    Args:
      path: of the file.
      layout: of the store.
      clips: N, where it is known.

    Attributes:
      path: of the file.
      columns: name -> array [N, ...] of every dataset but the pixels.
    """

    def __init__(self, path: pathlib.Path, layout: Layout, clips: int | None = None) -> None:
        self.path = path
        self._layout = layout
        sizes = {} if clips is None else {"N": clips}
        with _opened(path) as file:
            self.columns = hdf5.read(file, table(layout), sizes)
            read_ranges = _raw_ranges if layout.encoding == "raw" else _jpeg_ranges
            self._ranges = read_ranges(file, layout, sizes)
            beyond = self._ranges.size and self._ranges.max() > path.stat().st_size
        if beyond:
            raise errors.UserError(f"Frames must lie inside the file. Received: {path}, where some do not")

    def __len__(self) -> int:
        return len(self._ranges)

    def forget_columns(self, video_ids: np.ndarray) -> None:
        """Lets go of all columns; the ids, which messages name, are taken from an equal array that is there anyway."""
        self.columns = {"video_id": video_ids}

    def read(self, row: int, out: np.ndarray) -> None:
        """Reads one clip.

        Args:
          row: of the clip in this shard.
          out: uint8 [T, H, W, 3], C-contiguous; receives RGB.
        """
        ends = self._ranges[row]
        target = out if self._layout.encoding == "raw" else np.empty(ends[-1] - ends[0], np.uint8)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            done, flat = 0, target.reshape(-1)
            while done < flat.size:  # One call may return less than was asked for.
                got = os.preadv(descriptor, [flat[done:].data], int(ends[0]) + done)
                if got == 0:
                    raise errors.UserError(f"A shard must not shrink while it is read. Received: {self.path}")
                done += got
        finally:
            os.close(descriptor)
        if self._layout.encoding == "jpeg":
            for number, frame in enumerate(out):
                self._decode(target[ends[number] - ends[0] : ends[number + 1] - ends[0]], frame, row)

    def _decode(self, data: np.ndarray, frame: np.ndarray, row: int) -> None:
        size = _jpeg_size(data.tobytes())
        # The size is looked at first: a few bytes may claim to be a picture of gigabytes.
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if size == frame.shape[:2] else None
        if image is None or image.shape != frame.shape:
            came = f"{size[1]}x{size[0]} px" if size and size != frame.shape[:2] else "no image"
            raise errors.UserError(
                f"Frames must be JPEG images of {frame.shape[1]}x{frame.shape[0]} px. "
                f"Received: {came} in clip {self.columns['video_id'][row]!r} of {self.path}"
            )
        frame[...] = image


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns the height and width, in px, that JPEG data says it has; None for what is no JPEG."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # A frame header, not tables.
            return int.from_bytes(data[place + 5 : place + 7], "big"), int.from_bytes(
                data[place + 7 : place + 9], "big"
            )
        place += 2 + length
    return None


def _raw_ranges(file: h5py.File, layout: Layout, sizes: dict[str, int]) -> np.ndarray:
    """Returns int64 [N, 2]: where each clip's bytes begin and end in the file."""
    shape = (sizes["N"], *layout.clip_shape)
    frames = hdf5.dataset(file, "frames")
    if frames.dtype != np.uint8 or frames.shape != shape or frames.chunks != (1, *layout.clip_shape):
        raise errors.UserError(
            f"Raw frames must be uint8 [{', '.join(map(str, shape))}], one chunk per clip. "
            f"Received: {frames.dtype} {list(frames.shape)}, chunks {frames.chunks} in {file.filename}"
        )
    size = math.prod(layout.clip_shape)
    starts = np.full(len(frames), -1, np.int64)
    left = iter(range(len(frames)))

    def note(chunk: Any) -> None:
        next(left)  # A damaged index may lead round in a circle: what is raised in here ends it.
        if chunk.filter_mask == 0 and chunk.size == size:
            starts[chunk.chunk_offset[0]] = chunk.byte_offset

    if len(frames):
        frames.id.chunk_iter(note)
    if frames.compression or frames.shuffle or frames.fletcher32 or np.any(starts < 0):
        raise errors.UserError(f"Raw frames must be stored whole and without filters. Received: {file.filename}")
    return np.stack([starts, starts + size], axis=1)


def _jpeg_ranges(file: h5py.File, layout: Layout, sizes: dict[str, int]) -> np.ndarray:
    """Returns int64 [N, T + 1]: where each frame's bytes begin in the file, and where the last one ends."""
    frames = hdf5.dataset(file, "frames")
    offsets = hdf5.Column(np.int64, ("N", layout.frames + 1))
    values = hdf5.read(file, {"frame_offsets": offsets}, sizes)["frame_offsets"]
    begin = frames.id.get_offset() or 0
    if frames.dtype != np.uint8 or frames.ndim != 1 or frames.chunks or frames.size and not begin:
        raise errors.UserError(
            "JPEG frames must be one contiguous uint8 [bytes]. "
            f"Received: {frames.dtype} {list(frames.shape)} in {file.filename}"
        )
    if values.size and (values.min() < 0 or values.max() > frames.shape[0] or np.any(np.diff(values) < 0)):
        raise errors.UserError(
            f"frame_offsets must rise from 0 to {frames.shape[0]}, the bytes there are. "
            f"Received: {values.min()}…{values.max()} in {file.filename}"
        )
    return values + begin
