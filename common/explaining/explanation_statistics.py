"""What the explanations of many clips say together, as section 5.2 of the paper compares the two models.

Per clip: the scores under the mask and their ratios, how long and how coherent the mask is, how far it is from the best
single interval, and the blobs of Grad-CAM ("coherent, centered blobs" or "multiple smaller areas"). Where the clip
store knows the truth, also: do the mask's frames hold the event, and does Grad-CAM's maximum lie on what moves (the
pointing game of Zhang et al. 2016, arXiv:1608.00507)? Each of these stands beside what an answer at random and one in
the middle would reach, for an event is long and seldom at the border.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from common import errors, tables
from common.clips.clip_store import ClipStore
from common.explaining import gradcam_maps, masks, methods_baselines, when_metrics
from common.explaining.explanations import Explanations, has_maps
from common.tables import Cell, Column, Table

Statistics = dict[str, np.ndarray]

HALF = 0.5  # Of the original score: a perturbation that leaves no more has an effect to speak of.

_SCORES = ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "CS")
_TEMPORAL = (
    *("temporal_iou", "temporal_iou_random", "temporal_iou_centered"),
    *("average_precision", "average_precision_random", "average_precision_centered"),
)
_BLOBS = ("blobs_per_frame", "blob_area", "center_distance")
_TIE = 1e-5  # Values this close to the maximum, relative to it, differ by rounding.
_POINTING = ("pointing_game", "pointing_game_random", "pointing_game_center")


def clip_statistics(explanations: Explanations, store: ClipStore | None = None) -> Statistics:
    """Returns the statistics of each clip.

    Args:
      explanations: of N clips.
      store: the split that was explained, or None; it is needed for the ground truth alone. Clips are found by
        `video_id`.

    Returns:
      Name -> float64 [N], NaN where a value is not defined.

      OS, FS, RS, FS_snapped, RS_snapped, CS: as in the explanations file.
      halved: 1 where the mask leaves half of OS or less with the kind it was learnt with (S), else 0.
      RS/FS; freeze_drop, reverse_drop: (OS - FS) / OS, (OS - RS) / OS.
      mask_length, runs: frames that are on in the snapped mask, and the coherent runs that they form.
      oracle_gap: loss of the learnt mask over that of the best single interval, less 1.
      blobs_per_frame, blob_area, center_distance: of Grad-CAM divided by its maximum in the clip (see
        `gradcam_maps.Blobs`); the mean over frames, over blobs (share of the frame), and over frames that are not zero.
        Without maps they are NaN, as is the pointing game.

      With ground truth, NaN where no frame is salient:
      temporal_iou: of the snapped mask and the salient frames. `_random`: expected of one interval of the mask's length
        at a random place; `_centered`: of that interval in the middle (the mean of both roundings).
      average_precision: of the frames ranked by the soft mask, equals in random order (see `when_metrics`). `_random`:
        expected of a random order; `_centered`: of a ranking by closeness to the middle.
      pointing_game: share of the salient frames with a visible object in which the maximum of the up-sampled Grad-CAM
        map lies on the object; an all-zero map misses. Where several pixels are the maximum (a map of 1x1 cells is the
        same everywhere), the share of them that does counts. A pixel counts for the cell of the object mask that its
        centre lies in. `_random`: mean share of the frame that the object covers; `_center`: share of the frame's one,
        two or four middle cells. Where the camera turns, every pixel is the object, and all three are 1 unless a map
        is zero.

    Raises:
      errors.UserError: for a store with ground truth that lacks a clip or has clips of another length.
    """
    truth = None
    if store is not None and store.info.layout.object_mask_shape is not None:
        truth = _GroundTruth(explanations, store)
    statistics = {name: explanations[name].astype(np.float64) for name in _SCORES}
    original, frozen, reversed_ = (statistics[name] for name in ("OS", "FS", "RS"))
    learnt, best = (explanations[name].astype(np.float64) for name in ("final_loss", "oracle_loss"))
    snapped = explanations["mask_snapped"].astype(np.int64)
    statistics |= {
        "halved": (explanations["S"] <= HALF * original).astype(np.float64),
        "RS/FS": _ratio(reversed_, frozen),
        "freeze_drop": _ratio(original - frozen, original),
        "reverse_drop": _ratio(original - reversed_, original),
        "mask_length": snapped.sum(axis=1).astype(np.float64),
        "runs": np.array([len(masks.coherent_runs(mask)) for mask in snapped], np.float64),
        "oracle_gap": _ratio(learnt - best, best),
    }
    rows = [_map_statistics(explanations, number, truth) for number in range(len(explanations))]
    names = [*_BLOBS]
    if truth:
        names += [*_TEMPORAL, *_POINTING]
        for number, row in enumerate(rows):
            row |= _temporal_statistics(explanations["mask"][number], snapped[number], truth.salient(number))
    return statistics | {name: np.array([row[name] for row in rows], np.float64) for name in names}


class _GroundTruth:
    """Salient frames and object masks of the explained clips."""

    def __init__(self, explanations: Explanations, store: ClipStore) -> None:
        places = {video_id: place for place, video_id in enumerate(store.video_ids)}
        missing = [video_id for video_id in explanations["video_id"] if video_id not in places]
        if missing:
            raise errors.UserError(
                "Explanations must come with the clips that were explained. "
                f"Received: {store.split} of {store.directory} without {len(missing)} of them, first {missing[0]!r}"
            )
        num_frames = explanations["mask"].shape[1]
        if store.info.layout.frames != num_frames:
            raise errors.UserError(
                f"Clips must have {num_frames} frames, as in the explanations. "
                f"Received: {store.info.layout.frames} frames in {store.directory}"
            )
        self._places = [places[video_id] for video_id in explanations["video_id"]]
        self._salient, self._object_masks = store.column("salient"), store.column("object_mask")

    def salient(self, number: int) -> np.ndarray:
        """Returns bool [T] of explained clip `number`."""
        return self._salient[self._places[number]] != 0

    def object_mask(self, number: int) -> np.ndarray:
        """Returns bool [T, h, w] of explained clip `number`."""
        return self._object_masks[self._places[number]] != 0


def _map_statistics(explanations: Explanations, number: int, truth: _GroundTruth | None) -> dict[str, float]:
    """Returns what the Grad-CAM map of one clip says; only this clip's map is ever held at full size."""
    if not has_maps(explanations.header):
        return dict.fromkeys((*_BLOBS, *_POINTING), float("nan"))
    coarse, time = explanations.maps
    maps = gradcam_maps.upsample(coarse[number : number + 1], tuple(explanations.header["clip_shape"]), time)
    blobs = gradcam_maps.blobs(gradcam_maps.normalize(maps)[0])
    found = {
        "blobs_per_frame": float(blobs.counts.mean()),
        "blob_area": _mean(blobs.areas),
        "center_distance": _mean(blobs.distances),
    }
    if truth:
        found |= _pointing_game(maps[0], truth.salient(number), truth.object_mask(number))
    return found


def _temporal_statistics(mask: np.ndarray, snapped: np.ndarray, salient: np.ndarray) -> dict[str, float]:
    """Returns how well a mask [T] finds the salient frames, bool [T]."""
    if not salient.any():
        return dict.fromkeys(_TEMPORAL, float("nan"))
    time, on = len(salient), snapped != 0
    length, positives = int(on.sum()), int(salient.sum())
    by_place = when_metrics.interval_ious(salient, length)
    spare = time - length
    return {
        "temporal_iou": float((on & salient).sum() / (on | salient).sum()),
        "temporal_iou_random": float(by_place.mean()),
        "temporal_iou_centered": float(by_place[[spare // 2, (spare + 1) // 2]].mean()),
        "average_precision": when_metrics.average_precision(salient, mask),
        "average_precision_random": when_metrics.random_average_precision(positives, time),
        "average_precision_centered": when_metrics.average_precision(
            salient, methods_baselines.closeness_to_middle(time)
        ),
    }


def _pointing_game(maps: np.ndarray, salient: np.ndarray, object_mask: np.ndarray) -> dict[str, float]:
    """Returns how often the maximum of a map [T, H, W] lies on the object, bool [T, h, w], in salient frames."""
    frames = np.flatnonzero(salient & object_mask.any(axis=(1, 2)))
    if not len(frames):
        return dict.fromkeys(_POINTING, float("nan"))
    chosen, objects = maps[frames], object_mask[frames]
    highest = chosen.max(axis=(1, 2), keepdims=True)
    at_maximum = (chosen >= highest * (1 - _TIE)) & (highest > 0)
    cells = [
        (2 * np.arange(size) + 1) * count // (2 * size)
        for size, count in zip(chosen.shape[1:], objects.shape[1:], strict=True)
    ]
    on_object = objects[:, cells[0]][:, :, cells[1]]  # As fine as the map.
    hits = (at_maximum & on_object).sum(axis=(1, 2)) / np.maximum(at_maximum.sum(axis=(1, 2)), 1)
    rows, columns = ([(size - 1) // 2, size // 2] for size in objects.shape[1:])
    return {
        "pointing_game": float(hits.mean()),
        "pointing_game_random": float(objects.mean()),
        "pointing_game_center": float(objects[:, rows][:, :, columns].mean()),
    }


def summary(statistics: Statistics, explanations: Explanations) -> dict[str, Any]:
    """Returns means over clips, ready for JSON.

    A mean of ratios says nothing where a denominator may be almost 0, as FS is when a mask works: one clip decides.
    So RS/FS has no mean, but the ratio of the mean RS to the mean FS, and the median of the clips' ratios. FS itself,
    almost 0 in most clips and large in a few, has a median beside its mean.

    Args:
      statistics: of `clip_statistics`.
      explanations: which they are of.

    Returns:
      "all" (all clips) and "correct" (those whose guess is their label), each with "clips", "statistics" (name ->
      "mean" and "clips", the number for which it is defined; FS: "median", too; RS/FS: "ratio_of_means", "median" and
      "clips") and "per_class" (class name -> "clips" and "statistics"). A clip's class is its label, or its target
      where the label is unknown. What no clip defines is None.
    """
    labels = explanations["label"]
    classes = np.where(labels >= 0, labels, explanations["target"])
    names = explanations.header["class_names"]

    def over(chosen: np.ndarray) -> dict[str, Any]:
        present = np.unique(classes[chosen])
        per_class = {names[k]: _means(statistics, chosen & (classes == k)) for k in present}
        return {**_means(statistics, chosen), "per_class": per_class}

    return {"all": over(np.full(len(labels), True)), "correct": over(_correct(explanations))}


def _correct(explanations: Explanations) -> np.ndarray:
    """Returns bool [N]; a clip of unknown class is not correct."""
    return (explanations["label"] >= 0) & (explanations["label"] == explanations["prediction"])


def _means(statistics: Statistics, chosen: np.ndarray) -> dict[str, Any]:
    found: dict[str, dict[str, float | int | None]] = {}
    for name, values in statistics.items():
        defined = values[chosen & np.isfinite(values)]
        found[name] = {"mean": _or_none(_mean(defined)), "clips": len(defined)}
    reversed_, frozen = (_mean(statistics[name][chosen]) for name in ("RS", "FS"))
    ratios = statistics["RS/FS"][chosen & np.isfinite(statistics["RS/FS"])]
    found["FS"]["median"] = _median(statistics["FS"][chosen])
    found["RS/FS"] = {
        "ratio_of_means": reversed_ / frozen if frozen > 0 else None,
        "median": _median(ratios),
        "clips": len(ratios),
    }
    return {"clips": int(chosen.sum()), "statistics": found}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator, NaN where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are finite, NaN where none is."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


_LEGEND = """OS          score of the explained class on the clip
FS, RS      its score with the mask's frames frozen, or reversed (game preserve: all frames but these)
RS/FS       ratio of the means: near 1, reversing takes as much as freezing, so the order of frames counts
mask length frames that the mask takes; runs: in how many pieces
oracle gap  the mask's loss against that of the best single interval: below 0 %, the mask is the better one"""
_TRUTH_LEGEND = """
IoU         frames in both mask and event, as a share of those in either
AP          average precision of the mask's values: 1 where all frames of the event come before all others
pointing    share of frames whose hottest pixel in Grad-CAM lies on what moves"""


def table(named: Sequence[tuple[str, Explanations, Statistics]], brief: bool = False) -> str:
    """Returns runs side by side, as text: means, medians, ground truth, one row per run; then each run's classes.

    RS/FS is the ratio of means (see `summary`); "correct" is a number of clips, not defined where no label is known.
    The second table has medians over clips, and the share of clips whose score the mask halves.

    Args:
      named: (name of the run, its explanations, their `clip_statistics`).
      brief: leave out classes, and the lines at the end that say what the columns mean.
    """
    rows: list[tuple[Cell, ...]] = []
    medians: list[tuple[Cell, ...]] = []
    truths: list[tuple[Cell, ...]] = []
    by_class = []
    for name, explanations, statistics in named:
        means = summary(statistics, explanations)["all"]
        found = means["statistics"]
        rows.append(
            (
                *(name, explanations.header["mask"]["game"], means["clips"]),
                int(_correct(explanations).sum()) if (explanations["label"] >= 0).any() else None,
                *(found[key]["mean"] for key in ("OS", "FS", "RS")),
                found["RS/FS"]["ratio_of_means"],
                *(found[key]["mean"] for key in ("mask_length", "runs", "oracle_gap")),
            )
        )
        medians.append((name, found["FS"]["median"], found["RS/FS"]["median"], found["halved"]["mean"]))
        if "temporal_iou" in statistics:
            truths.append((name, *(found[key]["mean"] for key in (*_TEMPORAL, *_POINTING))))
        if not brief:
            by_class.append(_class_table(name, means))
    all_clips = Table(
        (
            *(Column("Run"), Column("game"), Column("clips", "d"), Column("correct", "d")),
            *(Column(key, ".3f") for key in ("OS", "FS", "RS")),
            *(Column("RS/FS", ".2f"), Column("mask length", ".1f"), Column("runs", ".2f"), Column("oracle gap", ".1%")),
        ),
        rows,
    )
    columns = (
        Column("Median over clips"),
        Column("FS", ".3f"),
        Column("RS/FS", ".2f"),
        Column("score halved in", ".0%"),
    )
    of_clips = Table(columns, medians)
    titles = ("temporal IoU", "random", "centred", "AP", "random", "centred", "pointing", "random", "centre")
    ground_truth = Table((Column("Against ground truth"), *(Column(title, ".3f") for title in titles)), truths)
    shown = [all_clips, of_clips, *([ground_truth] if truths else []), *by_class]
    legend = [] if brief else [_LEGEND + _TRUTH_LEGEND * bool(truths)]
    return "\n\n".join([*map(tables.write_text, shown), *legend])


def _class_table(name: str, means: dict[str, Any]) -> Table:
    columns = {
        "OS": Column("OS", ".3f"),
        "FS": Column("FS", ".3f"),
        "RS": Column("RS", ".3f"),
        "mask_length": Column("mask length", ".1f"),
        "temporal_iou": Column("temporal IoU", ".3f"),
    }
    known = {key: column for key, column in columns.items() if key in means["statistics"]}
    rows = [
        (f"  {label}", found["clips"], *(found["statistics"][key]["mean"] for key in known))
        for label, found in means["per_class"].items()
    ]
    return Table((Column(f"{name}: per class"), Column("clips", "d"), *known.values()), rows)
