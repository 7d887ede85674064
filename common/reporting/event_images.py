"""Pictures for TensorBoard: confusion matrices of an evaluation, and a few explained clips as still strips."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from common.clips.clip_store import ClipStore
from common.explaining.explanations import Explanations
from common.reporting import clip_figures, figures
from common.runs import tensorboard

_MATRIX_SIZE = 480  # px, at least
_CLIPS = 4


def confusion_image(confusion: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns a confusion matrix as a picture, uint8 [h, w, 3]: the darker, the larger the share of its row.

    Args:
      confusion: K x K counts, rows are labels, columns guesses.
    """
    counts = np.asarray(confusion, np.float64)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    cell = max(1, -(-_MATRIX_SIZE // len(counts)))
    gray = np.rint(255 * (1 - shares)).astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    if cell > 4:  # Lines between cells that are large enough.
        gray[::cell], gray[:, ::cell] = 200, 200
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def write_evaluation(events: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes the confusion matrices of what `evaluate` returned for one run, forward and reversed.

    Args:
      events: the run's folder of event files.
      result: values of `evaluation.json`.
    """
    with tensorboard.open_events(events) as writer:
        for shown in ("forward", "reversed"):
            image = confusion_image(result[shown]["confusion"])
            writer.add_image(f"confusion/{result['split']}_{shown}", image)


def write_explanations(events: pathlib.Path, explained: Explanations, store: ClipStore) -> None:
    """Writes the first few explained clips.

    Args:
      events: the run's folder of event files.
      explained: what was explained.
      store: the clips that it is of.
    """
    with tensorboard.open_events(events) as writer:
        shown = explained["video_id"][:_CLIPS]
        for row, (video_id, place) in enumerate(zip(shown, store.places(shown), strict=True)):
            clip = clip_figures.clip_figure(explained, row, store.read([place])[0], store, place)
            tag = f"explained_by_{explained.header['framework']}/{video_id}"
            writer.add_image(tag, figures.still_strip(clip))
