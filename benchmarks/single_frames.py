"""How much does one frame of planted events give away? A ridge classifier on the pixels of single frames, per pair.

    python benchmarks/single_frames.py --data=planted

"random" is a frame at a random time: 0.5 (a coin) means that no frame, taken by itself, tells a class from its
reversal. "event" is one of the frames of the event. "first" is the clip's first frame, which comes before the event:
where a class changes a distance or a size for good, as two pairs of the synthetic set do, the start of one class is
likelier than the start of its reversal.
"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags
from sklearn.linear_model import RidgeClassifierCV

from benchmarks import event_data
from common.clips import clip_store
from common.command_line import commands

_DATA = flags.DEFINE_enum("data", "planted", list(event_data.DATA), "Data set.")
_CLIPS = flags.DEFINE_string("clips", None, "Its clip store. Unset: the data set's own in data/.")


def frames_of_pair(store: clip_store.ClipStore, labels: list[int], which: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns one frame of every clip of two classes, float32 [n, H W 3] in 0…1, and the labels [n].

    Args:
      store: of the clips.
      labels: of the two classes.
      which: "first", "random" or "event".
    """
    rows = np.flatnonzero(np.isin(store.labels, labels))
    rng = np.random.default_rng(0)
    allowed = np.ones((len(rows), store.info.layout.frames), bool)
    if which == "first":
        allowed[:, 1:] = False
    elif which == "event":
        allowed = store.column("salient")[rows] != 0
    times = [rng.choice(np.flatnonzero(row)) for row in allowed]
    frames = [store.read([row])[0, time] for row, time in zip(rows.tolist(), times, strict=True)]
    return np.stack(frames).reshape(len(rows), -1).astype(np.float32) / 255, store.labels[rows]


def main(_: list[str]) -> None:
    """Prints a line per pair."""
    folder, pairs = event_data.DATA[_DATA.value]
    train, validation = (clip_store.ClipStore(_CLIPS.value or folder, split) for split in ("train", "validation"))
    for pair in pairs:
        labels = [train.info.class_names.index(name) for name in pair]
        scores = {}
        for which in ("first", "random", "event"):
            model = RidgeClassifierCV(alphas=np.logspace(0, 5, 6))
            model.fit(*frames_of_pair(train, labels, which))
            scores[which] = model.score(*frames_of_pair(validation, labels, which))
        count = int(np.isin(validation.labels, labels).sum())
        sys.stdout.write(
            f"{'  '.join(f'{which} {score:.2f}' for which, score in scores.items())}  "
            f"(a coin: 0.50 +- {0.5 / np.sqrt(count):.2f})  {pair[0]} / {pair[1]}\n"
        )


if __name__ == "__main__":
    commands.run(main)
