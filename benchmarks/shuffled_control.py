"""Is time needed? The control experiment of planted events: the same training on clips with shuffled frames.

    python benchmarks/shuffled_control.py --preset=i3d_planted

Every clip's frames are put in an order of its own, once and for all (train and validation), and the preset is trained
on them exactly as on the clips themselves. "Pair accuracy" asks, of clips in the ordered classes, how often the
logit of the class beats that of its reversal: 0.5 is a coin. If it stays near 0.5, no single frame, nor any bag of
frames, tells a class from its reversal, and a model that does better has used the order.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from benchmarks import event_data
from common import files
from common.clips import clip_store, shards
from common.command_line import commands
from common.models import canonical_weights, configs
from common.runs import prediction, training_loop
from data_prep import building
from torch_impl import evaluation, training

_PRESET = flags.DEFINE_enum(
    "preset",
    "i3d_planted",
    [f"{model}_{data}" for data in event_data.DATA for model in ("i3d", "conv_lstm")],
    "What to train.",
)
_CLIPS = flags.DEFINE_string("clips", None, "Clip store. Unset: the preset's own in data/; made if it is not there.")
_OUT = flags.DEFINE_string("out", "runs/shuffled_control", "Folder for the shuffled clips and the run.")


def shuffle_store(source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the clips of a store, each with its frames in a fixed random order, without coding them again."""
    info = clip_store.read_dataset_json(source)
    layout = dataclasses.replace(info.layout, encoding="raw", object_mask_shape=None, sufficient_sets=0)
    target.mkdir(parents=True, exist_ok=True)
    records = []
    for number, split in enumerate(("train", "validation")):
        name = clip_store.shard_name(split, 0, 1)
        store = clip_store.ClipStore(source, split)
        with shards.ShardWriter(target / name, layout) as writer:
            for clip in _shuffled(store, number):
                writer.add(clip)
            writer.finish({})
        records.append(clip_store.Shard(name, split, len(store), files.sha256(target / name)))
    clip_store.write_dataset_json(target, dataclasses.replace(info, layout=layout, shards=tuple(records)))


def _shuffled(store: clip_store.ClipStore, number: int) -> Iterator[shards.Clip]:
    columns = {name: store.column(name) for name in ("source_frame", "source_time", "source_frames", "source_fps")}
    for index, (label, video_id) in enumerate(zip(store.labels, store.video_ids, strict=True)):
        order = np.random.default_rng((0, number, index)).permutation(store.info.layout.frames)
        yield shards.Clip(
            store.read([index])[0][order],
            int(label),
            video_id,
            columns["source_frame"][index][order],
            columns["source_time"][index][order],
            int(columns["source_frames"][index]),
            float(columns["source_fps"][index]),
        )


def pair_accuracy(
    logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> tuple[float, int]:
    """Returns how often a class beats its reversal, and over how many clips.

    Args:
      logits: float [N, K].
      labels: int [N]; clips of classes without a reversal are left out.
      class_names: in label order.
      pairs: of names of classes that are each other's reversal.
    """
    partner: dict[int, int] = {}
    for first, second in pairs:
        a, b = class_names.index(first), class_names.index(second)
        partner |= {a: b, b: a}
    ordered = [index for index, label in enumerate(labels) if int(label) in partner]
    wins = [logits[index, labels[index]] > logits[index, partner[int(labels[index])]] for index in ordered]
    return float(np.mean(wins)), len(wins)


def main(_: list[str]) -> None:
    """Trains on shuffled clips and prints pair accuracies."""
    data = _PRESET.value.rpartition("_")[2]
    default, pairs = event_data.DATA[data]
    clips, out = pathlib.Path(_CLIPS.value or default), pathlib.Path(_OUT.value) / data
    if not (clips / "dataset.json").exists():
        building.prepare(building.PrepareConfig(data, clips))
    if not (out / "clips" / "dataset.json").exists():
        shuffle_store(clips, out / "clips")
    info = clip_store.read_dataset_json(clips)
    preset = configs.PRESETS[_PRESET.value]
    model = dataclasses.replace(preset.model, num_classes=len(info.class_names), input_shape=info.layout.clip_shape[:3])
    run = out / _PRESET.value
    config = dataclasses.replace(preset, model=model)
    training.train(config, training_loop.TrainSettings(out / "clips", run, resume=True), "cpu")
    weights = canonical_weights.load(run / "weights.safetensors")[0]
    store = clip_store.ClipStore(out / "clips", "validation")
    logits = prediction.predict(evaluation.predictor(model, weights, device="cpu"), store, batch_size=16)
    accuracy, count = pair_accuracy(logits, store.labels, info.class_names, pairs)
    top_1 = np.mean(logits.argmax(1) == store.labels)
    sys.stdout.write(
        f"{_PRESET.value}, frames shuffled: pair accuracy {accuracy:.3f} over {count} clips "
        f"(a coin: 0.5 +- {0.5 / np.sqrt(count):.3f}), top-1 over all classes {top_1:.3f}\n"
    )


if __name__ == "__main__":
    commands.run(main)
