"""Videos and stores that several tests are made of."""

import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from common.launching import Launch
from data_prep import building, decoded, encoding, videos


def folder_config(tmp_path: pathlib.Path, sizes: dict[str, int], **settings: Any) -> building.PrepareConfig:
    """Makes videos (path -> number of frames; 0: an empty file) and a config for a store of one clip a shard."""
    for name, num_frames in sizes.items():
        film(tmp_path / "videos" / name, num_frames)
    defaults = {"frames": 3, "height": 8, "width": 12, "clips_per_shard": 1, "launch": Launch()}
    return building.PrepareConfig("folder", tmp_path / "clips", tmp_path / "videos", **{**defaults, **settings})


def film(path: pathlib.Path, num_frames: int) -> None:
    """Writes a video of 10 frames/s whose frame n is grey, 10 + 4 n; an empty file for no frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if num_frames:
        frames = (np.full((16, 16, 3), 10 + 4 * n, np.uint8) for n in range(num_frames))
        encoding.write_video(path, frames, "mjpeg", "yuvj420p")
    else:
        path.touch()


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns name -> bytes of all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(path: pathlib.Path, indices: Collection[int]) -> decoded.Decoded:
    """Reads frames of a source, in its own size."""
    return videos.read_frames(path, lambda num_frames: indices, np.copy)


def near(found: decoded.Decoded, expected: dict[int, int]) -> bool:
    """Returns whether the frames read are those of the indices given, with those mean levels, but for 2."""
    levels = {index: round(float(frame.mean())) for index, frame in found.frames.items()}
    return levels.keys() == expected.keys() and all(abs(levels[n] - level) <= 2 for n, level in expected.items())
