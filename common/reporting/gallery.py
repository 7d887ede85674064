"""The clips of the report as files that a page reads from disk: pictures, and numbers as scripts.

A page that is opened from a folder may neither `fetch` nor read a picture's pixels, but it may run a script and draw a
picture. So of each clip the frames are one picture, and masks, perturbations and Grad-CAM maps are numbers in a
script, which the page runs when the clip is shown; it composes the views itself.

`index.js` sets `window.REPORT` to what all clips have in common and one line per clip; `NNNN.js` calls
`REPORT.receive(number, …)`; `NNNN.png` or `.jpg` holds the frames, row after row, `columns` in a row.
"""

import base64
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.clips import shards
from common.clips.clip_store import ClipStore
from common.explaining import explanations, masks, perturbations, spread
from common.explaining.masks import MaskConfig
from common.reporting import comparison, drawing, figure_files, names, words
from common.reporting.comparison import Run

VIEWS = ("freeze", "reverse", "shuffle")  # Perturbations that the page shows of every run, besides the learnt one's.
_EXACT_PIXELS = 64 * 64  # Frames up to this size are kept without loss.
_LOSS_POINTS = 101  # Of the loss trace, first and last among them.
_DIGITS = 3  # Of masks and weights.
_LOSS_DIGITS = 4  # Of the trace.
_SIGNIFICANT = 9  # Digits of other numbers: all of float32, so that they are rounded once, where they are shown.
_CLIP_NUMBERS = ("OS", "FS", "RS", "RS/FS", "oracle_gap", "CS")


def choose_clips(runs: Sequence[Run], store: ClipStore, most: int) -> list[int]:
    """Returns which explained clips are shown, as places in the store, ascending: all, or `most` spread over classes.

    Args:
      runs: explained runs.
      store: the split.
      most: largest number of clips.
    """
    explained = {video_id for run in runs for video_id in run.explanations["video_id"]}
    places = np.array([place for place, video_id in enumerate(store.video_ids) if video_id in explained])
    return places[spread.over_classes(np.asarray(store.labels)[places], most)].tolist()


def index(
    runs: Sequence[Run], store: ClipStore, places: Sequence[int], figures: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Returns `window.REPORT`: common facts, and of each clip what lists, filters and orders need.

    Args:
      runs: explained runs.
      store: the split.
      places: of the clips in the store.
      figures: video id -> anchor of the clip's figures in the page, where it has some.
    """
    layout = store.info.layout
    salient = store.column("salient") if layout.object_mask_shape else None
    pairs, beside = comparison.twins(runs), comparison.partners(runs)
    return {
        "start": clearest(runs, store, places),
        "frames": layout.frames,
        "height": layout.height,
        "width": layout.width,
        "columns": columns(layout.frames),
        "picture": _picture_type(layout.height, layout.width),
        "classes": list(store.info.class_names),
        "views": views(runs),
        "maps": has_maps(runs),
        "colors": _heat_colors(),
        "runs": [
            {
                "label": run.name if number in beside else run.label,
                "partner": beside[number],
                "game": run.game,
                "maps": explanations.has_maps(run.explanations.header),
                "time": run.explanations.maps[1],
                "twin": pairs[number],
                "framework": names.FRAMEWORK_NAMES[run.explanations.header["framework"]],
            }
            for number, run in enumerate(runs)
        ],
        "clips": [
            {
                "id": store.video_ids[place],
                "label": int(store.labels[place]),
                "figure": (figures or {}).get(store.video_ids[place]),
                "event": None if salient is None else "".join("1" if on else "0" for on in salient[place]),
                "truth": words.truth_words(store, place),
                "runs": [_clip_numbers(runs, number, pairs, store.video_ids[place]) for number in range(len(runs))],
            }
            for place in places
        ],
    }


def clearest(runs: Sequence[Run], store: ClipStore, places: Sequence[int]) -> int:
    """Returns the number, among the clips shown, of the one that shows best what a mask is: the page opens with it.

    Of the clips that no run is known to guess wrong it has the largest drop of the score with the fewest frames masked:
    the mean over runs of (OS - S) · (1 - share of frames that are on); where masks preserve, S takes the place of the
    drop. Where every clip is wrong it is the first.
    """
    best, most = 0, 0.0
    for number, place in enumerate(places):
        video_id = store.video_ids[place]
        rows = [(run, run.rows[video_id]) for run in runs if video_id in run.rows]
        label = store.labels[place]
        if label >= 0 and any(run.explanations["prediction"][row] != label for run, row in rows):
            continue
        facts = [words.clip_facts(run, row) for run, row in rows]
        effects = [fact.perturbed if fact.game == "preserve" else fact.original - fact.perturbed for fact in facts]
        clear = float(np.mean([effect * (1 - fact.mask.mean()) for effect, fact in zip(effects, facts, strict=True)]))
        if clear > most:
            best, most = number, clear
    return best


def models(runs: Sequence[Run]) -> list[tuple[int, str]]:
    """Returns number and name of the runs that stand for themselves: all but those that are shown beside another."""
    beside = comparison.partners(runs)
    return [
        (number, run.name if number in beside else run.label)
        for number, run in enumerate(runs)
        if beside[number] is None
    ]


def views(runs: Sequence[Run]) -> list[str]:
    """Returns the perturbations that are shown: the paper's, shuffle, and those that the masks were learnt with."""
    return list(dict.fromkeys([*VIEWS, *(run.kind for run in runs)]))


def has_maps(runs: Sequence[Run]) -> bool:
    """Returns whether any run has Grad-CAM maps to show."""
    return any(explanations.has_maps(run.explanations.header) for run in runs)


def columns(frames: int) -> int:
    """Returns how many frames stand side by side in a clip's picture."""
    return math.ceil(math.sqrt(frames))


def write_clip(directory: pathlib.Path, number: int, runs: Sequence[Run], store: ClipStore, place: int) -> None:
    """Writes picture and numbers of one clip.

    Args:
      directory: exists.
      number: of the clip in the index.
      runs: explained runs.
      store: the split.
      place: of the clip in the store.
    """
    frames = store.read([place])[0]
    picture = directory / f"{number:04d}.{_picture_type(*frames.shape[1:3])}"
    if picture.suffix == ".png":
        figure_files.write_png(picture, sprite(frames))
    else:
        picture.write_bytes(shards.encode_jpeg(sprite(frames), quality=88).tobytes())
    kinds = views(runs)
    video_id = store.video_ids[place]
    values = {"runs": [_clip_details(run, run.rows.get(video_id), kinds) for run in runs]}
    (directory / f"{number:04d}.js").write_text(f"REPORT.receive({number}, {script_json(values)});\n", encoding="utf-8")


def sprite(frames: np.ndarray) -> np.ndarray:
    """Returns frames uint8 [T, H, W, 3] as one picture, row after row; places that are left over are black."""
    time, height, width, channels = frames.shape
    across = columns(time)
    down = math.ceil(time / across)
    padded = np.concatenate([frames, np.zeros((across * down - time, height, width, channels), np.uint8)])
    grid = padded.reshape(down, across, height, width, channels).swapaxes(1, 2)
    return grid.reshape(down * height, across * width, channels)


def script_json(values: Any) -> str:
    """Returns JSON that can stand in any script: no character in it can end a script element."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def matrix_rows(matrix: np.ndarray) -> list[list[list[float]]]:
    """Returns a perturbation's matrix [T, T] as rows of (frame, weight), weights of at least 0.001, three digits."""
    return [
        [[int(place), round(float(row[place]), _DIGITS)] for place in np.flatnonzero(row >= 10**-_DIGITS)]
        for row in matrix
    ]


def _picture_type(height: int, width: int) -> str:
    return "png" if height * width <= _EXACT_PIXELS else "jpg"


def _clip_numbers(
    runs: Sequence[Run], number: int, pairs: Sequence[int | None], video_id: str
) -> dict[str, Any] | None:
    run = runs[number]
    row = run.rows.get(video_id)
    if row is None:
        return None
    explained = run.explanations
    numbers = {name: _number(run.statistics[name][row]) for name in _CLIP_NUMBERS}
    facts = words.clip_facts(run, row)
    prediction = int(explained["prediction"][row])
    probability = _number(explained["probabilities"][row, prediction])
    return {
        **numbers,
        "prediction": prediction,
        "probability": probability,
        "target": int(explained["target"][row]),
        "mark": words.mark(facts),
        "words": words.clip_words(facts),
        "agrees": _agreement(run, row, runs[pair], video_id) if (pair := pairs[number]) is not None else None,
    }


def _agreement(run: Run, row: int, other: Run, video_id: str) -> str | None:
    """Returns how far a run's scores and mask of a clip lie from its twin's; None where that does not explain it."""
    if video_id not in other.rows:
        return None

    def apart(name: str) -> str:
        most = np.abs(run.explanations[name][row] - other.explanations[name][other.rows[video_id]]).max()
        return f"{most:.0e}".replace("e-0", "e-") if most else "0"

    return f"probabilities to {apart('probabilities')}, mask to {apart('mask')}"


def _clip_details(run: Run, row: int | None, kinds: Sequence[str]) -> dict[str, Any] | None:
    if row is None:
        return None
    explanations = run.explanations
    mask = explanations["mask"][row : row + 1].astype(np.float64)
    perturbed = masks.perturbed_part(mask, MaskConfig(**explanations.header["mask"]).game)
    loss = explanations["loss"][row]
    points = np.unique(np.linspace(0, len(loss) - 1, min(len(loss), _LOSS_POINTS)).round().astype(int))
    return {
        "mask": [round(float(value), _DIGITS) for value in mask[0]],
        "views": {kind: matrix_rows(perturbations.matrix(perturbed, kind)[0]) for kind in kinds},
        "kind": run.kind,
        "map": _map(explanations.maps[0][row]),
        "steps": len(loss),
        "loss": [[int(point), _number(loss[point], _LOSS_DIGITS)] for point in points],
        "final": _number(explanations["final_loss"][row]),
        "interval": [int(value) for value in explanations["oracle_interval"][row]],
        "best": _number(explanations["oracle_loss"][row]),
    }


def _map(coarse: np.ndarray) -> dict[str, Any]:
    """Returns a coarse map [T', H', W'] in 8 bits a cell, each frame in steps of 1/255 of its own maximum."""
    peaks = coarse.max(axis=(1, 2)).astype(np.float64)
    largest = peaks.max()
    shares = np.divide(peaks, largest, out=np.zeros_like(peaks), where=largest > 0)
    scaled = np.divide(coarse, peaks[:, None, None], out=np.zeros(coarse.shape), where=peaks[:, None, None] > 0)
    cells = np.clip(np.rint(255 * scaled), 0, 255).astype(np.uint8)
    return {
        "shape": list(coarse.shape),
        "peaks": [float(f"{share:.4g}") for share in shares],
        "cells": base64.b64encode(cells.tobytes()).decode("ascii"),
    }


def _number(value: Any, digits: int = _SIGNIFICANT) -> float | None:
    """Returns a number with some significant digits, by default all of float32's; None where it is not finite."""
    return float(f"{float(value):.{digits}g}") if math.isfinite(value) else None


def _heat_colors() -> str:
    """Returns the 256 colours of heat, from none to most, as hexadecimal RGB and weight, as `drawing.overlay` has."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    weights = np.rint(255 * drawing.heat_weight(levels / 255)).astype(np.uint8)
    return np.concatenate([drawing.heat_color(levels)[:, 0], weights], axis=1).tobytes().hex()
