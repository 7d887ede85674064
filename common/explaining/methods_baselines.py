"""Answers to "which frames?" that no model gave: what any method must beat."""

import zlib

import numpy as np
from jaxtyping import Float64, UInt8


def random_answers(frames: UInt8[np.ndarray, "N T H W C"], seed: int = 0) -> Float64[np.ndarray, "N T"]:
    """Returns numbers in 0…1 drawn for each clip from the seed and its pixels, whatever clips are beside it."""
    streams = [np.random.default_rng([seed, zlib.crc32(clip.tobytes())]) for clip in frames]
    return np.stack([stream.random(frames.shape[1]) for stream in streams])


def closeness_to_middle(time: int) -> Float64[np.ndarray, " {time}"]:
    """Returns minus the distance of each of T frames from the middle of time, in frames."""
    return -np.abs(np.arange(time) - (time - 1) / 2)


def frame_differences(frames: UInt8[np.ndarray, "N T H W C"]) -> Float64[np.ndarray, "N T"]:
    """Returns how far the pixels of each frame lie from those of the frame before, on average, 0…255.

    Frame 0 has none before it and gets 0, as it cannot freeze.
    """
    change = np.zeros(frames.shape[:2])
    for clip, row in zip(frames, change, strict=True):
        row[1:] = np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return change
