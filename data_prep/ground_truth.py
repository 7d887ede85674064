"""ground_truth.h5 beside videos that were drawn: when and where the evidence for each video's class is.

video_id      UTF-8 string [N]
label         int32 [N], class index
event         int32 [N, 2], first and last frame of the evidence; -1, -1 where there is none
frame_offsets int64 [N + 1], where the frames of each video begin and end in what follows
salient       uint8 [frames], 1 where a frame carries evidence
object_mask   uint8 [frames, h, w], 1 where the moving thing is
sufficient    uint8 [frames, S], optional: 1 in the frames of each of S sets, of which any one suffices for the class
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from common import errors, files, hdf5, hdf5_output


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth of one video of n frames.

    Attributes:
      video_id: of the video.
      label: class index.
      salient: uint8 [n], 1 where a frame carries evidence for the class.
      object_mask: uint8 [n, h, w], 1 where the moving thing is.
      sufficient: uint8 [S, n], each row a set of frames that suffices for the class (zeros: none); None where the data
        set does not say.
    """

    video_id: str
    label: int
    salient: np.ndarray
    object_mask: np.ndarray
    sufficient: np.ndarray | None = None


def write(path: pathlib.Path, truths: Sequence[Truth]) -> None:
    """Writes the file whole or not at all: a row per video, the frames of all videos end to end.

    Args:
      path: of the file.
      truths: of at least one video; all with masks of one size, and all or none with as many sufficient sets.
    """
    offsets = np.cumsum([0, *(len(truth.salient) for truth in truths)], dtype=np.int64)
    longest, height, width = max(truth.object_mask.shape for truth in truths)
    with files.written_whole(path) as partial, hdf5_output.created(partial) as (file, _):
        file.create_dataset("video_id", data=[truth.video_id for truth in truths], dtype=h5py.string_dtype())
        file["label"] = np.array([truth.label for truth in truths], np.int32)
        file["event"] = np.array([_event(truth.salient) for truth in truths], np.int32)
        file["frame_offsets"] = offsets
        file["salient"] = np.concatenate([truth.salient for truth in truths])
        shape, chunks = (int(offsets[-1]), height, width), (longest, height, width)
        masks = file.create_dataset("object_mask", shape, np.uint8, chunks=chunks, compression="gzip")
        for truth, begin in zip(truths, offsets, strict=False):
            masks[begin : begin + len(truth.object_mask)] = truth.object_mask
        sets = [truth.sufficient.T for truth in truths if truth.sufficient is not None]
        if sets:
            file["sufficient"] = np.concatenate(sets)


def _event(salient: np.ndarray) -> tuple[int, int]:
    frames = np.flatnonzero(salient)
    return (int(frames[0]), int(frames[-1])) if len(frames) else (-1, -1)


def opened(path: pathlib.Path) -> h5py.File:
    """Opens the file for reading, or refuses it."""
    try:
        return hdf5.open_for_reading(path)
    except OSError:
        raise errors.UserError(
            f"The ground truth must be an HDF5 file that prepare.py wrote. Received: {path}"
        ) from None


class GroundTruth:
    """Reader of ground_truth.h5. The file is opened at the first look, in each process anew."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = pathlib.Path(path)
        self._file: h5py.File | None = None
        self._process = 0
        self._rows: dict[str, int] = {}

    def salient(self, video_id: str) -> np.ndarray:
        """Returns which frames show the event: uint8 [n], all 0 where nothing happens."""
        return self._read("salient", video_id)

    def object_mask(self, video_id: str) -> np.ndarray:
        """Returns where the moving thing is: uint8 [n, h, w], 1 inside."""
        return self._read("object_mask", video_id)

    def sufficient(self, video_id: str) -> np.ndarray | None:
        """Returns sets of frames that suffice, uint8 [S, n] (zeros: none), or None where the file has no such."""
        file, _ = self._find(video_id)
        return self._read("sufficient", video_id).T if "sufficient" in file else None

    def event(self, video_id: str) -> tuple[int, int]:
        """Returns the first and the last frame of the event, or (-1, -1) where there is none."""
        file, row = self._find(video_id)
        first, last = file["event"][row]
        return int(first), int(last)

    def label(self, video_id: str) -> int:
        """Returns the class index."""
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
            self._file, self._process = opened(self._path), os.getpid()
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
