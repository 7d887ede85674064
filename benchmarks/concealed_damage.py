"""Counts how often damage that changes what a video shows is noted. Example: python benchmarks/concealed_damage.py.

A film of 30 frames of 96x128 px, moving waves under noise, is coded once with each codec. In each trial 30 bytes in a
row are replaced by others, somewhere in the middle three fifths of the file. A trial counts where the damage shows:
another number of frames decodes, or a frame differs by more than 2 levels of 255 on average. It is noted where
`read_frames` gives a note, or refuses the file.
"""

import pathlib
import sys
import tempfile
from collections.abc import Iterator

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from common.command_line import commands
from data_prep import decoded, encoding, videos

_TRIALS = flags.DEFINE_integer("trials", 40, "Trials for each codec.", lower_bound=1)

_BYTES = 30  # replaced in each trial
_VISIBLE = 2  # levels of 255
_CODECS: tuple[
    tuple[str, str, str, str, dict[str, str]], ...
] = (  # Name, suffix, FFmpeg's encoder, pixel format, options.
    ("FFV1", ".mkv", "ffv1", "yuv420p", {"level": "3", "slicecrc": "1"}),
    ("ProRes", ".mov", "prores_ks", "yuv422p10le", {}),
    ("MPEG-4", ".avi", "mpeg4", "yuv420p", {}),
    ("MPEG-2", ".mpg", "mpeg2video", "yuv420p", {}),
    ("Sorenson", ".flv", "flv", "yuv420p", {}),
    ("WMV 8", ".wmv", "wmv2", "yuv420p", {}),
    ("H.264, baseline (CAVLC)", ".mp4", "libx264", "yuv420p", {"profile": "baseline"}),
    ("MJPEG", ".mkv", "mjpeg", "yuvj420p", {}),
    ("H.264, high (CABAC)", ".mp4", "libx264", "yuv420p", {}),
    ("HEVC", ".mp4", "libx265", "yuv420p", {"x265-params": "log-level=none"}),
    ("VP9", ".webm", "libvpx-vp9", "yuv420p", {}),
    ("VP8", ".webm", "libvpx", "yuv420p", {}),
)


def main(argv: list[str]) -> None:
    """Prints a line for each codec."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        for name, suffix, codec, pixel_format, options in _CODECS:
            path = pathlib.Path(folder) / f"{codec}{suffix}"
            encoding.write_video(path, _film(), codec, pixel_format, rate=25, options=options)
            visible, noted = _try(path)
            sys.stdout.write(f"{name:24} noted {noted:3} of {visible:3} visible damages\n")


def _try(path: pathlib.Path) -> tuple[int, int]:
    """Damages a film again and again; returns in how many trials this is visible, and in how many of them noted."""
    data = path.read_bytes()
    whole = _read(path)
    if whole is None or whole.note:
        raise RuntimeError(f"A whole film must decode without a note. Received: {path.name}: {whole}")
    visible = noted = 0
    for trial in range(_TRIALS.value):
        rng = np.random.default_rng(trial)
        place = int(rng.integers(len(data) // 5, len(data) * 4 // 5))
        others = (byte ^ int(rng.integers(1, 256)) for byte in data[place : place + _BYTES])
        path.write_bytes(data[:place] + bytes(others) + data[place + _BYTES :])
        damaged = _read(path)
        if _differs(whole, damaged):
            visible += 1
            noted += damaged is None or bool(damaged.note)
    return visible, noted


def _read(path: pathlib.Path) -> decoded.Decoded | None:
    try:
        return videos.read_frames(path, range, np.copy)
    except decoded.UnreadableVideoError:
        return None


def _differs(whole: decoded.Decoded, damaged: decoded.Decoded | None) -> bool:
    if damaged is None or damaged.num_frames != whole.num_frames:
        return True
    return any(
        np.abs(damaged.frames[index].astype(int) - frame).mean() > _VISIBLE for index, frame in whole.frames.items()
    )


def _film() -> Iterator[np.ndarray]:
    y, x = np.mgrid[:96, :128]
    for n in range(30):
        waves = (np.sin((x + 3 * n) / 9) * np.cos((y - n) / 7), np.sin((x - 2 * n) / 5), np.cos((y + n) / 11))
        noise = np.random.default_rng(n).normal(0, 6, (*x.shape, 3))
        yield np.clip(127 + 100 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    commands.run(main)
