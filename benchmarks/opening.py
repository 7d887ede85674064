"""What it costs to open a large clip store, with the index that prepare.py writes and without, as earlier versions did.

    python benchmarks/opening.py  # 200,000 clips in 782 shards; some minutes, most of them to make the store.

Each opening is in a process of its own, the two ways in turn, and the median of the rounds is printed: seconds to open,
by the clock and of the processor; seconds of the processor until one clip of every shard has been read; memory that the
process has then more than before, and open files. Frames are tiny: the cost of clips and shards is measured, no pixels.
"""

import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from common import files, progress
from common.clips import clip_store, shards
from common.command_line import commands
from common.tables import Column, Table, write_text

_CLIPS = flags.DEFINE_integer("clips", 200_000, "Clips in the store.", lower_bound=1)
_PER_SHARD = flags.DEFINE_integer("clips_per_shard", 256, "Clips a shard.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times that each way is measured.", lower_bound=1)

_LAYOUT = shards.Layout(16, 2, 2, encoding="raw")
_CLASSES = 174


class Cost(NamedTuple):
    """Of one process.

    Attributes:
      clock: seconds to open, by the clock.
      opening: seconds of the processor to open.
      opened: memory then, MiB more than before.
      reading: seconds of the processor to read a clip of every shard.
      read: memory then, MiB more than before.
      open_files: then, more than before.
    """

    clock: float
    opening: float
    opened: float
    reading: float
    read: float
    open_files: float


def make_store(folder: pathlib.Path) -> clip_store.DatasetInfo:
    """Makes a store whose clips are all one picture, under ids of their own."""
    folder.mkdir()
    frames = np.zeros(_LAYOUT.clip_shape, np.uint8)
    times = np.arange(_LAYOUT.frames)
    starts = range(0, _CLIPS.value, _PER_SHARD.value)
    made = []
    with progress.bar(total=_CLIPS.value, unit="clip", desc="making clips") as bar:
        for number, start in enumerate(starts):
            path = folder / clip_store.shard_name("train", number, len(starts))
            count = min(_PER_SHARD.value, _CLIPS.value - start)
            with shards.ShardWriter(path, _LAYOUT) as writer:
                for clip in range(start, start + count):
                    name = f"clip-{clip}"
                    writer.add(shards.Clip(frames, clip % _CLASSES, name, times, times / 12, len(times), 12.0))
                writer.finish({})
            made.append(clip_store.Shard(path.name, "train", count, files.sha256(path)))
            bar.update(count)
    names = tuple(f"class {number}" for number in range(_CLASSES))
    tool = {"name": "opening", "version": "1"}
    return clip_store.DatasetInfo("benchmark", names, _LAYOUT, "stretch", "linspace", {}, tool, tool, tuple(made))


def cost(folder: str) -> Cost:
    """Opens a store and reads the first clip of every shard, in a process that does nothing else."""

    def memory() -> float:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before, open_before, begin, cpu = memory(), open_files(), time.perf_counter(), time.process_time()
    store = clip_store.ClipStore(folder, "train")
    clock, opening, opened = time.perf_counter() - begin, time.process_time() - cpu, memory() - before
    cpu = time.process_time()
    store.read(range(0, len(store), store.info.shards[0].clips))
    reading = time.process_time() - cpu
    return Cost(clock, opening, opened, reading, memory() - before, open_files() - open_before)


def main(argv: list[str]) -> None:
    """Makes the store, measures, and prints the table."""
    del argv
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        info = make_store(root / "with an index")
        (root / "without").mkdir()
        for shard in info.shards:
            os.link(root / "with an index" / shard.file, root / "without" / shard.file)
        clip_store.write_dataset_json(root / "without", info)
        begin = time.perf_counter()
        info = clip_store.write_indexes(root / "with an index", info)
        made = time.perf_counter() - begin
        clip_store.write_dataset_json(root / "with an index", info)
        costs: dict[str, list[Cost]] = {"without": [], "with an index": []}
        for _round in range(_ROUNDS.value):
            for way, found in costs.items():
                with context.Pool(1) as pool:
                    found.append(pool.apply(cost, (str(root / way),)))
    rows = [(way, *(statistics.median(values) for values in zip(*found, strict=True))) for way, found in costs.items()]
    columns = (
        Column(f"{_CLIPS.value} clips, {len(info.shards)} shards"),
        Column("open, s", ".2f"),
        Column("of the processor", ".2f"),
        Column("then, MiB", ".0f"),
        Column("a clip of every shard", ".2f"),
        Column("then, MiB", ".0f"),
        Column("open files more", ".0f"),
    )
    sys.stdout.write(write_text(Table(columns, rows)) + "\n")
    sys.stdout.write(f"opening: {rows[0][2] / rows[1][2]:.1f}x of the processor; making the index: {made:.1f} s\n")


if __name__ == "__main__":
    commands.run(main)
