"""How much does one frame of a synthetic clip give away? A ridge classifier on the pixels of single frames, per pair.

    python benchmarks/single_frames.py --clips=data/synthetic

"random" is a frame at a random time: 0.5 (a coin) means that no frame, taken by itself, tells a class from its
reversal. "first" is the clip's first frame, which comes before the event: where a class changes a distance or a size,
which are bounded, the start of one class is likelier than the start of its reversal.
"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags
from sklearn.linear_model import RidgeClassifierCV

from common.clips import clip_store
from common.command_line import commands
from data_prep import synthetic

_CLIPS = flags.DEFINE_string("clips", "data/synthetic", "Clip store of the synthetic set.")


def frames_of_pair(store: clip_store.ClipStore, labels: list[int], first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns one frame of every clip of two classes, float32 [n, H W 3] in 0…1, and the labels [n]."""
    rows = np.flatnonzero(np.isin(store.labels, labels))
    times = np.random.default_rng(0).integers(0, store.info.layout.frames, len(rows)) * (not first)
    frames = [store.read([row])[0, time] for row, time in zip(rows.tolist(), times, strict=True)]
    return np.stack(frames).reshape(len(rows), -1).astype(np.float32) / 255, store.labels[rows]


def main(_: list[str]) -> None:
    """Prints a line per pair."""
    train, validation = (clip_store.ClipStore(_CLIPS.value, split) for split in ("train", "validation"))
    for pair in synthetic.REVERSE_PAIRS:
        labels = [synthetic.CLASSES.index(name) for name in pair]
        scores = {}
        for name in ("first", "random"):
            model = RidgeClassifierCV(alphas=np.logspace(0, 5, 6))
            model.fit(*frames_of_pair(train, labels, name == "first"))
            scores[name] = model.score(*frames_of_pair(validation, labels, name == "first"))
        count = int(np.isin(validation.labels, labels).sum())
        sys.stdout.write(
            f"first {scores['first']:.2f}  random {scores['random']:.2f}  "
            f"(a coin: 0.50 +- {0.5 / np.sqrt(count):.2f})  {pair[0]} / {pair[1]}\n"
        )


if __name__ == "__main__":
    commands.run(main)
