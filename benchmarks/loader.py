"""How fast clips come out of the loader, beside a memory map of the same bytes and a plain loop of JPEG decoding.

    python benchmarks/loader.py --clips=64 --height=224 --width=224

Every row is measured in the same run, in turn, and the median of the rounds is printed: clips a second through
`common.clips.batches` with one and with two threads, and the ratio to the row's baseline.
"""

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import cv2
import numpy as np
from absl import flags

from common import files
from common.clips import batches, clip_store, shards
from common.command_line import commands

_CLIPS = flags.DEFINE_integer("clips", 64, "Clips in the store.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 16, "Frames a clip.", lower_bound=1)
_HEIGHT = flags.DEFINE_integer("height", 224, "px.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 224, "px.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", 16, "Clips a batch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that each row is measured.", lower_bound=1)


def natural_clip(layout: shards.Layout, seed: int) -> np.ndarray:
    """Returns uint8 [T, H, W, 3] with the 1/f spectrum of natural images, drifting slowly, with sensor noise."""
    stream = np.random.default_rng(seed)
    height, width = layout.height, layout.width
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    image = np.stack(
        [np.fft.irfft2(np.fft.rfft2(stream.normal(size=(height, width))) / frequency) for _ in range(3)], -1
    )
    grey = image.mean(-1, keepdims=True)
    image = grey + 0.3 * (image - grey)  # Natural colours are correlated.
    image = 127 + 45 * image / image.std()
    frames = np.stack([np.roll(image, t, axis=1) for t in range(layout.frames)])
    return np.clip(frames + stream.normal(scale=1.5, size=frames.shape), 0, 255).astype(np.uint8)


def make_store(directory: pathlib.Path, layout: shards.Layout, frames: list[np.ndarray]) -> clip_store.ClipStore:
    """Writes clips as one shard and opens it."""
    directory.mkdir()
    times = np.arange(layout.frames)
    name = clip_store.shard_name("train", 0, 1)
    with shards.ShardWriter(directory / name, layout) as writer:
        for index, pixels in enumerate(frames):
            writer.add(shards.Clip(pixels, 0, str(index), times, times / 25, layout.frames, 25.0))
        writer.finish({})
    shard = clip_store.Shard(name, "train", len(frames), files.sha256(directory / name))
    info = clip_store.DatasetInfo(
        "benchmark", ("a",), layout, "stretch", "linspace", {}, {"name": "loader"}, {"name": "none"}, (shard,)
    )
    clip_store.write_dataset_json(directory, info)
    return clip_store.ClipStore(directory, "train")


def through_loader(store: clip_store.ClipStore, num_threads: int) -> None:
    """Reads the whole store once."""
    order = batches.batch_indices(len(store), _BATCH.value, shuffle_seed=(0, 0))
    for _ in batches.batches(store, order, num_threads=num_threads):
        pass


def plain_decoding(encoded: list[np.ndarray], layout: shards.Layout) -> None:
    """Decodes all frames in memory one after the other: what one thread can do at most."""
    for start in range(0, len(encoded), layout.frames):
        clip = np.empty(layout.clip_shape, np.uint8)
        for frame, data in zip(clip, encoded[start : start + layout.frames], strict=True):
            frame[...] = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)  # type: ignore[assignment]  # Never None: we encoded it.


def memory_map(path: pathlib.Path, clips: int, layout: shards.Layout) -> None:
    """Copies all clips, in batches, out of a memory map of the bare bytes."""
    mapped = np.memmap(path, np.uint8, "r", shape=(clips, *layout.clip_shape))
    for indices in batches.batch_indices(clips, _BATCH.value, shuffle_seed=(0, 0)):
        mapped[indices]


def median_rates(rows: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Returns clips a second of each row: the median of rounds in which the rows take turns."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(_ROUNDS.value + 1):
        for name, work in rows.items():
            begin = time.perf_counter()
            work()
            if number:  # The first round warms up.
                times[name].append(time.perf_counter() - begin)
    return {name: _CLIPS.value / statistics.median(values) for name, values in times.items()}


def main(_: list[str]) -> None:
    """Measures and prints the table."""
    cv2.setNumThreads(1)
    shape = (_FRAMES.value, _HEIGHT.value, _WIDTH.value)
    frames = [natural_clip(shards.Layout(*shape), seed) for seed in range(_CLIPS.value)]
    rows: dict[str, Callable[[], None]] = {}
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        np.stack(frames).tofile(root / "bare")
        layout = shards.Layout(*shape, encoding="raw")
        rows["raw: memory map of the same bytes"] = partial(memory_map, root / "bare", len(frames), layout)
        store = make_store(root / "raw", layout, frames)
        for threads in (1, 2):
            rows[f"raw: loader, {threads} thread(s)"] = partial(through_loader, store, threads)
        pairs += [(f"raw: loader, {t} thread(s)", "raw: memory map of the same bytes") for t in (1, 2)]
        for quality in (95, 90):
            layout = shards.Layout(*shape, encoding="jpeg", jpeg_quality=quality)
            store = make_store(root / f"q{quality}", layout, frames)
            encoded = [shards.encode_jpeg(frame, quality) for clip in frames for frame in clip]
            name = f"JPEG q{quality}"
            rows[f"{name}: plain decoding, 1 thread"] = partial(plain_decoding, encoded, layout)
            for threads in (1, 2):
                rows[f"{name}: loader, {threads} thread(s)"] = partial(through_loader, store, threads)
            pairs += [(f"{name}: loader, {t} thread(s)", f"{name}: plain decoding, 1 thread") for t in (1, 2)]
            pairs.append((f"{name}: loader, 2 thread(s)", f"{name}: loader, 1 thread(s)"))
        rates = median_rates(rows)
    for name, rate in rates.items():
        sys.stdout.write(f"{name:<36} {rate:8.1f} clips/s\n")
    for name, base in pairs:
        sys.stdout.write(f"{rates[name] / rates[base]:.2f}x  {name}  over  {base}\n")


if __name__ == "__main__":
    commands.run(main)
