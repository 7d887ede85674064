"""A small clip store, and explanations and evaluations of it, for tests of the report."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from common.clips import clip_store, tiny_store_for_tests
from common.clips.clip_store import ClipStore, DatasetInfo
from common.explaining import evidence_file, explanation_statistics, explanations, masks
from common.explaining.explanations import Explanations
from common.models import configs
from common.reporting.comparison import Run
from common.runs.run_directory import RunConfig, RunDirectory, data_record

SHAPE = (8, 32, 32)  # T, H, W


def write_store(directory: pathlib.Path, class_names: tuple[str, ...], num_clips: int = 6) -> ClipStore:
    """Writes a store of ground truth whose clips are of the classes in turn, and returns its validation split."""
    tiny_store_for_tests.write_tiny_store(
        directory,
        clips={"validation": num_clips},
        shape=SHAPE,
        num_classes=len(class_names),
        object_mask_shape=(4, 4),
    )
    info = clip_store.read_dataset_json(directory)
    counts = {split: dict(zip(class_names, known.values(), strict=True)) for split, known in info.counts.items()}
    clip_store.write_dataset_json(directory, dataclasses.replace(info, class_names=class_names, counts=counts))
    return ClipStore(directory, "validation")


def explain(
    store: ClipStore, run: str, model: str, framework: str = "torch", wrong: tuple[int, ...] = ()
) -> Explanations:
    """Returns made-up explanations of a store.

    Clip i has the scores OS = 0.9 - i / 100, FS = 0.1 + i / 100 and RS = 0.5, and a soft mask that is 0.9 in three
    frames from frame 1 + i modulo 4 and 0.05 elsewhere. Heat lies at the upper left, in the second coarse frame twice
    as high as in the first.

    Args:
      store: the clips.
      run: name of the run.
      model: "i3d" or "conv_lstm".
      framework: "torch" or "tf".
      wrong: clips whose guess is the class after the true one.
    """
    count, num_classes = len(store), len(store.info.class_names)
    clip = np.arange(count)
    prediction = np.where(np.isin(clip, wrong), (store.labels + 1) % num_classes, store.labels)
    original = 0.9 - clip / 100
    probabilities = np.full((count, num_classes), 0.01)
    probabilities[clip, prediction] = original
    start = 1 + clip % 4
    places = np.arange(SHAPE[0])
    on = (places >= start[:, None]) & (places < start[:, None] + 3)
    mask = np.where(on, 0.9, 0.05)
    heat = np.zeros((count, 2, 2, 2))
    heat[:, 0, 0, 0], heat[:, 1, 0, 0], heat[:, :, 1, 1] = 1, 2, 0.5
    columns: dict[str, Any] = {
        "video_id": np.array(store.video_ids, dtype=object),
        "label": store.labels,
        "prediction": prediction,
        "target": prediction,
        "probabilities": probabilities,
        "mask": mask,
        "mask_snapped": masks.snap(mask),
        "loss": np.linspace(1, 0.2, 300)[None].repeat(count, axis=0),
        "final_loss": np.full(count, 0.2),
        "oracle_interval": np.stack([start, start + 3], axis=1),
        "oracle_loss": np.full(count, 0.16),
        "OS": original,
        "FS": 0.1 + clip / 100,
        "RS": np.full(count, 0.5),
        "FS_snapped": 0.1 + clip / 100,
        "RS_snapped": np.full(count, 0.5),
        "S": 0.1 + clip / 100,
        "CS": np.where(prediction == store.labels, np.nan, 0.01),
        "gradcam": heat,
    }
    for name, column in explanations.COLUMNS.items():
        columns[name] = columns[name].astype(column.dtype)
    header = {
        "schema_version": explanations.SCHEMA_VERSION,
        "run": run,
        "weights_sha256": "0" * 64,
        "model": model,
        "dataset": store.info.dataset,
        "clips": str(store.directory),
        "split": store.split,
        "class_names": list(store.info.class_names),
        "clip_shape": list(SHAPE),
        "mask": dataclasses.asdict(masks.MaskConfig()),
        "gradcam": {"endpoint": "", "weights": "frame", "score": "logit", "time": "repeat"},
        "target": "guess",
        "precision": "float32",
        "framework": framework,
        "versions": {},
    }
    return Explanations(header, columns)


def make_run(store: ClipStore, label: str, model: str, framework: str = "torch") -> Run:
    """Returns made-up explanations of a store (see `explain`), with their statistics."""
    explained = explain(store, "mine", model, framework)
    return Run(label, explained, explanation_statistics.clip_statistics(explained, store), label)


def write_run(directory: pathlib.Path, info: DatasetInfo, preset: str = "i3d_kth", epochs: int = 3) -> pathlib.Path:
    """Writes a run of a preset that was trained for some epochs, and returns its folder.

    In epoch n the training loss is 4 / n and its accuracy n / 10; the validation loss is 6 / n, and its accuracy 0.25
    but in the second epoch, where it is 0.5.
    """
    run = RunDirectory(directory)
    run.create(RunConfig(configs.PRESETS[preset], data_record(info), "clips", "torch", {}))
    for epoch in range(1, epochs + 1):
        losses = {"train_loss": 4 / epoch, "validation_loss": 6 / epoch}
        scores = {"train_accuracy": epoch / 10, "validation_top_1": 0.5 if epoch == 2 else 0.25}
        run.append_log(
            {"epoch": epoch, "step": epoch, "learning_rate": 1e-3, "clips_per_second": 1.0, **losses, **scores}
        )
    return directory


def evaluation(class_names: tuple[str, str, str], **changes: Any) -> dict[str, Any]:
    """Returns an evaluation of ten clips a class.

    Forward eight of each ten are right and the other two are taken for the next class. Reversed, the first class is
    taken for the second, the second for the first, and the third keeps its eight.
    """
    scores = {
        "forward": (0.8, [[8, 2, 0], [0, 8, 2], [2, 0, 8]]),
        "reversed": (0.2, [[0, 10, 0], [9, 0, 1], [2, 0, 8]]),
    }
    passes = {
        shown: {
            **dict.fromkeys(("top_1", "top_5", "f1_weighted", "f1_top_5_weighted"), score),
            "per_class": {
                name: {"clips": 10, "accuracy": row[place] / 10, "f1": row[place] / 10}
                for place, (name, row) in enumerate(zip(class_names, confusion, strict=True))
            },
            "confusion": confusion,
        }
        for shown, (score, confusion) in scores.items()
    }
    drop = dict.fromkeys(("top_1", "top_5", "f1_weighted", "f1_top_5_weighted"), 0.75)
    drops = dict(zip(class_names, (1.0, 1.0, 0.0), strict=True))
    values = {"schema_version": 1, "run": "mine", "model": "i3d", "dataset": "tiny", "framework": "torch"}
    return {**values, **passes, "drop": {**drop, "per_class": drops}, **changes}


def gathered(**changes: Any) -> dict[str, Any]:
    """Returns evidence of two clips."""
    curve = {order: {"mean": [1.0, 0.5, 0.0], "areas": [0.4, 0.6]} for order in evidence_file.ORDERS}
    return {
        "schema_version": evidence_file.SCHEMA_VERSION,
        "run": "mine",
        "model": "i3d",
        "framework": "torch",
        "video_ids": ["a", "b"],
        "curves": {what: {kind: curve for kind in evidence_file.KINDS} for what in ("deletion", "insertion")},
        "randomization": [{"layers": 1, "from": "Logits", "gradcam": [0.5, None], "mask": []}],
        "restarts": {"starts": 3, "mask": [1.0, 0.5], "loss": [1.0, 1.1]},
        **changes,
    }
