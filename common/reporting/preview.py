"""The picture that a link to a report shows: the clearest clip, what a model used of it in words, and its masks."""

import cv2
import numpy as np

from common.clips.clip_store import ClipStore
from common.explaining import explanations, gradcam_maps
from common.reporting import comparison, drawing, figures, words
from common.reporting.comparison import Run
from common.reporting.sheet import Item, Picture, Sheet, Text

_WIDTH, _HEIGHT = 1200, 630  # px: what sites show whole.
_MARGIN, _NAMES, _GAP = 48, 120, 6  # px: around all, of the rows' names, between frames.
_COLUMNS = 7  # Frames at most.
_TITLE, _HEAD, _WORDS, _NAME = 40, 26, 28, 22  # px: sizes of letters.
_LINES, _BAR = 3, 38  # Lines of a sentence at most; px of a mask's height.


def sheet(title: str, facts: str, runs: list[Run], store: ClipStore, place: int) -> Sheet:
    """Returns the picture, 1200 x 630 px.

    Args:
      title: of the page.
      facts: what the page is of.
      runs: one run, or the two of one model in both games, that explain the clip.
      store: the split.
      place: of the clip in the store.
    """
    width = _WIDTH - 2 * _MARGIN
    items: list[Item] = [Text(_MARGIN, _MARGIN, width, _TITLE, title, drawing.INK)]
    y = _MARGIN + drawing.line_height(_TITLE)
    items.append(Text(_MARGIN, y, width, _HEAD, facts, drawing.GRAY))
    y += drawing.line_height(_HEAD) + _MARGIN // 2
    rows = [run.rows[store.video_ids[place]] for run in runs]
    facts_of_runs = [words.clip_facts(run, row) for run, row in zip(runs, rows, strict=True)]
    said = f"{runs[0].name}: {' '.join(''.join(words.clip_words(one)) for one in facts_of_runs)}"
    # Pillow's font lacks the dash, and a line with it would be set in another font than the next.
    lines = drawing.wrap(said.replace("–", "-"), width, _WORDS)
    lines = lines if len(lines) <= _LINES else [*lines[: _LINES - 1], f"{lines[_LINES - 1]} …"]
    for line in lines:
        items.append(Text(_MARGIN, y, width, _WORDS, line, drawing.INK))
        y += drawing.line_height(_WORDS)
    y += _MARGIN // 2
    film, height = _film(runs[0], rows[0], store, place, _MARGIN + _NAMES, y, width - _NAMES)
    items += [*film, *_name("heat" if explanations.has_maps(runs[0].explanations.header) else "frames", y, height)]
    y += height + 2 * _GAP
    marks = [
        (words.mark(fact), run.explanations["mask_snapped"][row])
        for fact, run, row in zip(facts_of_runs, runs, rows, strict=True)
    ]
    salient = comparison.salient_frames(runs[0].explanations, store)
    if salient is not None:
        marks.append(("event", salient[rows[0]].astype(np.uint8)))
    for name, mask in marks:
        items += figures.bar_items(mask, (), _MARGIN + _NAMES, y, width - _NAMES, _BAR)
        items += _name(name, y, _BAR)
        y += _BAR + _GAP
    return Sheet(_WIDTH, _HEIGHT, _WIDTH / 96, items)


def _name(text: str, y: int, height: int) -> list[Item]:
    top = y + (height - drawing.line_height(_NAME)) // 2
    return [Text(_MARGIN, top, _NAMES - _GAP, _NAME, text, drawing.GRAY)]


def _film(run: Run, row: int, store: ClipStore, place: int, x: int, y: int, width: int) -> tuple[list[Item], int]:
    """Returns some frames with heat side by side, each the middle one of those that it stands for, and their height."""
    frames = store.read([place])[0]
    time, _, frame_width = frames.shape[:3]
    coarse, how = run.explanations.maps
    heat = gradcam_maps.normalize(gradcam_maps.upsample(coarse[row : row + 1], frames.shape[:3], how), "clip")[0]
    count = min(_COLUMNS, time)
    shown = drawing.overlay(frames, heat)[((np.arange(count) + 0.5) * time / count).astype(int)]
    cell = width // count - _GAP
    factor = max(1, cell // frame_width)
    if frame_width > cell:
        size = (cell, max(1, round(frames.shape[1] * cell / frame_width)))
        shown = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in shown])
    aside = (width // count - shown.shape[2] * factor) // 2
    film: list[Item] = [Picture(x + n * width // count + aside, y, frame, factor) for n, frame in enumerate(shown)]
    return film, shown.shape[1] * factor
