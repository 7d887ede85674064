"""How much slower than decoding alone is the making of clips? Example: python benchmarks/decoding.py.

Encodes its own videos in the manner of both data sets (4 s of VP9 with 240 lines at 12 and at 30 frames/s, as
Something-something-V2; 20 s of MPEG-4 with 160x120 px at 25 frames/s, as KTH), then times, one after the other in every
round, on as many processes of one thread each:

  decode   PyAV decodes every frame and drops it; nothing is counted, converted or resized
  clip     `videos.read_frames` with the preset's subsampling and resize: what `prepare.py` does to get a clip
  store    `shard_jobs.make_shard`: the same, coded as JPEG (quality 95) and written to a shard

and prints videos/s (the best round) and ratios to `decode` (the median of the rounds' own). Goal: clip >= 0.75.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import av
import numpy as np
from absl import flags

from common.clips import shards
from common.command_line import commands
from data_prep import decoders, encoding, plans, sampling, shard_jobs, videos

_VIDEOS = flags.DEFINE_integer("videos", 6, "Videos per process and kind.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each kind.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 2, "Processes, of one thread each.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of video, and the clip that is made of it.

    Attributes:
      name: printed.
      suffix: of the files.
      codec: FFmpeg's name of the encoder.
      size: height and width, px.
      rate: frames per second.
      seconds: length.
      bit_rate: bits per second.
      clip: T, H, W.
    """

    name: str
    suffix: str
    codec: str
    size: tuple[int, int]
    rate: int
    seconds: int
    bit_rate: int
    clip: tuple[int, int, int]


KINDS = (
    Kind("VP9 240p, 4 s, 12 fps", "webm", "libvpx-vp9", (240, 426), 12, 4, 400_000, (16, 224, 224)),
    Kind("VP9 240p, 4 s, 30 fps", "webm", "libvpx-vp9", (240, 426), 30, 4, 400_000, (16, 224, 224)),
    Kind("MPEG-4 160x120, 20 s, 25 fps", "avi", "mpeg4", (120, 160), 25, 20, 400_000, (32, 120, 160)),
)


def film(kind: Kind, seed: int) -> list[np.ndarray]:
    """Returns the frames of a video: a smooth texture that drifts, with some noise as of a camera."""
    rng = np.random.default_rng(seed)
    height, width = kind.size
    coarse = rng.integers(0, 256, (height // 8 + 20, width // 8 + 20, 3), np.uint8)
    canvas = sampling.resize(coarse, coarse.shape[0] * 8, coarse.shape[1] * 8)
    frames = []
    for index in range(kind.rate * kind.seconds):
        shift = int(60 + 50 * np.sin(index / kind.rate))
        noise = rng.integers(0, 8, (height, width, 3), np.uint8)
        frames.append(canvas[shift : shift + height, shift : shift + width] // 2 + noise + 60)
    return frames


def decode(folder: pathlib.Path, names: list[str], kind: Kind) -> None:
    """Decodes every frame and drops it."""
    for name in names:
        with av.open(str(folder / name)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass


def clip(folder: pathlib.Path, names: list[str], kind: Kind) -> None:
    """Reads the frames of a clip."""
    num_frames, height, width = kind.clip
    for name in names:
        videos.read_frames(
            folder / name,
            lambda number: sampling.subsample(number, num_frames).tolist(),
            lambda frame: sampling.resize(frame, height, width),
        )


def store(folder: pathlib.Path, names: list[str], kind: Kind) -> None:
    """Makes a shard of clips."""
    settings = shard_jobs.Settings("folder", ("class",), shards.Layout(*kind.clip), "linspace", "stretch", {})
    items = tuple(plans.Item(name, name, 0) for name in names)
    shard_jobs.make_shard(shard_jobs.Job(folder / f"{names[0]}.h5", "train", items, settings, folder), lambda: None)


def compare(kind: Kind, folder: pathlib.Path, pool: concurrent.futures.ProcessPoolExecutor) -> str:
    """Encodes the videos of a kind, times all ways on them, and returns a line of the table."""
    parts = [[f"{process}-{n}.{kind.suffix}" for n in range(_VIDEOS.value)] for process in range(_PROCESSES.value)]
    names = sum(parts, [])
    for seed, name in enumerate(names):
        encoding.write_video(
            folder / name,
            film(kind, seed),
            kind.codec,
            rate=kind.rate,
            bit_rate=kind.bit_rate,
            options={"cpu-used": "5", "deadline": "realtime"} if "vp9" in kind.codec else {},
        )

    def seconds(way: Callable[[pathlib.Path, list[str], Kind], None]) -> float:
        start = time.perf_counter()
        for future in [pool.submit(way, folder, part, kind) for part in parts]:
            future.result()
        return time.perf_counter() - start

    ways = (decode, clip, store)
    for way in ways:  # Warm: processes started, files in memory.
        seconds(way)
    rounds = [[seconds(way) for way in ways] for _ in range(_ROUNDS.value)]
    rates = [len(names) / min(times) for times in zip(*rounds, strict=True)]
    ratios = [statistics.median(times[0] / times[way] for times in rounds) for way in range(len(ways))]
    return (
        f"{kind.name:30}"
        + "".join(f"{rate:9.1f}" for rate in rates)
        + "".join(f"{ratio:13.2f}" for ratio in ratios[1:])
    )


def _keep_quiet() -> None:
    decoders.one_thread().__enter__()  # As long as the process is there.


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(_PROCESSES.value, context, initializer=_keep_quiet)
    sys.stdout.write(f"{_PROCESSES.value} processes; videos/s\n")
    sys.stdout.write(f"{'':30}{'decode':>9}{'clip':>9}{'store':>9}{'clip/decode':>13}{'store/decode':>13}\n")
    with pool:
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                sys.stdout.write(compare(kind, pathlib.Path(folder), pool) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    commands.run(main)
