"""How good are the learnt masks? Compares explanations files with the ground truth of their clips.

For each file: the share of correctly classified moving clips whose learnt mask is within 5 % of the oracle's Eq. 1 or
better, and of those whose snapped mask is within 5 % of the learnt one's; temporal IoU and average precision beside
random and centred masks of the same length; how far the mask moves "Holding something", which has no event, and how
far any perturbation of one interval could. With --reference, a file of the same clips in another precision or
framework, or searched in another way: in how many clips the snapped mask is the same, how far the scores move, how the
losses compare (as low: within 0.1 % or lower) and after how many steps. Example: python benchmarks/mask_quality.py
--explanations=runs/i3d_synthetic/explanations.h5
"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from common import errors, tables
from common.clips.clip_store import ClipStore
from common.command_line import commands
from common.explaining import explanation_statistics, explanations, masks
from common.explaining.explanations import Explanations
from common.tables import Cell, Column, Table

_EXPLANATIONS = flags.DEFINE_list("explanations", [], "Explanations files, separated by commas.")
_REFERENCE = flags.DEFINE_string("reference", None, "File of the same clips to compare each with.")
_CLIPS = flags.DEFINE_string("clips", None, "Folder of the clip store. Unset: the one of the first file.")

_WITHIN = 0.05
_AS_LOW = 0.001
_TINY = 1e-12  # A mask of zeros is like no other.
_STILL = "Holding something"


def quality(explained: Explanations, store: ClipStore) -> tuple[Cell, ...]:
    """Returns the cells of a file's row."""
    statistics = explanation_statistics.clip_statistics(explained, store)
    names = np.array(explained.header["class_names"])
    still = names[explained["label"]] == _STILL
    moving = (explained["label"] == explained["prediction"]) & ~still
    within = explained["final_loss"] <= (1 + _WITHIN) * explained["oracle_loss"]
    means = (
        float(np.nanmean(statistics[name][moving]))
        for name in (
            *("mask_length", "temporal_iou", "temporal_iou_random", "temporal_iou_centered"),
            *("average_precision", "average_precision_random", "average_precision_centered"),
        )
    )
    return (
        int(moving.sum()),
        float(within[moving].mean()),
        float((_snapped_losses(explained) <= (1 + _WITHIN) * explained["final_loss"])[moving].mean()),
        *means,
        _moved(explained, still),
        float(np.mean(explained["OS"][still] - _best_interval_scores(explained)[still])),
    )


def _snapped_losses(explained: Explanations) -> np.ndarray:
    """Returns Eq. 1 of the snapped masks [N]; NaN where the file has no score of theirs, for other kinds."""
    config = masks.MaskConfig(**explained.header["mask"])
    name = {"freeze": "FS_snapped", "reverse": "RS_snapped"}.get(config.kind)
    if not name:
        return np.full(len(explained), np.nan)
    return masks.mask_loss(explained[name].astype(np.float64), explained["mask_snapped"].astype(np.float64), config)


def _moved(explained: Explanations, chosen: np.ndarray) -> float:
    return float(np.abs(explained["OS"] - explained["S"])[chosen].mean()) if chosen.any() else float("nan")


def _best_interval_scores(explained: Explanations) -> np.ndarray:
    """Returns F_c under the best interval [N]: its Eq. 1 without the mask's own cost."""
    config = masks.MaskConfig(**explained.header["mask"])
    time = explained["mask"].shape[1]
    best = masks.interval_masks(explained["oracle_interval"], time)
    return masks.shortfall(explained["oracle_loss"] - masks.mask_cost(best, config), config.game)


def difference(explained: Explanations, reference: Explanations) -> tuple[Cell, ...]:
    """Returns the cells of a comparison with another file of the same clips."""
    missing = sorted(set(explained["video_id"]) - set(reference["video_id"]))
    if missing:
        raise errors.UserError(f"--reference must hold every clip of the others. Received: one without {missing[0]}")
    reference = reference.of_clips(explained["video_id"])
    same = (explained["mask_snapped"] == reference["mask_snapped"]).all(axis=1)
    norms = [np.linalg.norm(file["mask"], axis=1) for file in (explained, reference)]
    cosine = np.sum(explained["mask"] * reference["mask"], axis=1) / np.maximum(norms[0] * norms[1], _TINY)
    moves = (float(np.abs(explained[name] - reference[name]).mean()) for name in ("OS", "FS", "RS"))
    ratio = explained["final_loss"] / reference["final_loss"].astype(np.float64)
    losses = (float(ratio.mean()), float(ratio.max()), float((ratio <= 1 + _AS_LOW).mean()))
    steps = float(np.isfinite(explained["loss"]).sum(axis=1).mean())
    return f"{same.sum()} of {len(same)}", float(cosine.mean()), *moves, *losses, steps


def main(_: list[str]) -> None:
    """Prints the tables."""
    if not _EXPLANATIONS.value:
        raise errors.UserError("--explanations must name at least one file. Received: none")
    files = [explanations.read(pathlib.Path(name)) for name in _EXPLANATIONS.value]
    clips = _CLIPS.value or explanations.clips_folder(pathlib.Path(_EXPLANATIONS.value[0]), files[0])
    store = ClipStore(clips, files[0].header["split"])
    titles = (
        *("within 5 %", "snapped", "length", "IoU", "random", "centred", "AP", "random", "centred"),
        *("holding: |OS-S|", "OS-best interval"),
    )
    columns = (Column("correct, moving"), Column("clips", "d"), *(Column(title, ".3f") for title in titles))
    named = list(zip(_EXPLANATIONS.value, files, strict=True))
    sys.stdout.write(tables.write_text(Table(columns, [(name, *quality(file, store)) for name, file in named])) + "\n")
    if _REFERENCE.value:
        reference = explanations.read(pathlib.Path(_REFERENCE.value))
        moves = (Column("cosine", ".3f"), *(Column(title, ".4f") for title in ("|OS|", "|FS|", "|RS|")))
        losses = (Column("loss / its", ".4f"), Column("worst", ".4f"), Column("as low", ".3f"), Column("steps", ".1f"))
        columns = (Column("against the reference"), Column("same snapped mask"), *moves, *losses)
        compared = Table(columns, [(name, *difference(file, reference)) for name, file in named])
        sys.stdout.write("\n" + tables.write_text(compared) + "\n")


if __name__ == "__main__":
    commands.run(main)
