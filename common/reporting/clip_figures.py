"""The paper's Figures 2 and 3 for some clips of a report: looping GIF, MP4, and a still for print, of each clip.

I3D stands left and C-LSTM right, as in the paper, where both of one framework explained the clip; any other run stands
alone; one that preserves is left out where the one beside which the page shows it is drawn. The frames are those under
the snapped mask, with the kind the mask was learnt with.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common import files, progress
from common.clips.clip_store import ClipStore
from common.explaining import explanations, gradcam_maps, masks, perturbations
from common.explaining.explanations import Explanations
from common.explaining.masks import MaskConfig
from common.reporting import comparison, figure_files, figures, sheet, words
from common.reporting.comparison import Run

STILLS: dict[str, Callable[[sheet.Sheet], bytes]] = {
    "png": lambda drawn: figure_files.png(sheet.paint(drawn)),
    "svg": lambda drawn: sheet.svg(drawn).encode(),
    "pdf": sheet.pdf,
}
_FRAMES_PER_SECOND = 4
_PAIR = ("i3d", "conv_lstm")  # Left and right.


@dataclasses.dataclass(frozen=True)
class FigureFiles:
    """One figure's files.

    Attributes:
      video_id: of the clip.
      title: the clip's class and id, and whose figure it is.
      film: names of the GIF, the MP4, and a PNG of its middle frame.
      stills: of each run the names of its still, one a type of file.
    """

    video_id: str
    title: str
    film: tuple[str, str, str]
    stills: tuple[tuple[str, ...], ...]

    @property
    def anchor(self) -> str:
        """Name of the figure's place in a page."""
        return f"figure-{pathlib.PurePath(self.film[0]).stem}"


def write_figures(
    directory: pathlib.Path,
    runs: Sequence[Run],
    store: ClipStore,
    places: Sequence[int],
    types: Sequence[str] = ("png",),
) -> list[FigureFiles]:
    """Draws clips, and returns what was written, in order.

    Args:
      directory: exists.
      runs: explained runs.
      store: the split.
      places: of the clips in the store.
      types: of the stills, some of `STILLS`.
    """
    written = []
    beside = comparison.partners(runs)
    shown, preserving = [], {}
    names = [run.name for run, partner in zip(runs, beside, strict=True) if partner is None]
    for number, run in enumerate(runs):
        if beside[number] is None:
            # Of two games only the one that deletes is drawn, so its name need not tell them apart.
            shown.append(dataclasses.replace(run, label=run.name) if names.count(run.name) == 1 else run)
            if number in beside:
                preserving[shown[-1].label] = runs[beside.index(number)]
    with progress.bar(total=len(places), unit="clip", desc="figures") as bar:
        for number, place in enumerate(places):
            frames = store.read([place])[0]
            for group in _groups([run for run in shown if store.video_ids[place] in run.rows]):
                drawn = [
                    dataclasses.replace(
                        clip_figure(run.explanations, run.rows[store.video_ids[place]], frames, store, place),
                        marks=_marks(run, preserving.get(run.label), store, place),
                    )
                    for run in group
                ]
                written.append(_write(directory, number, group, drawn, store, place, types))
            bar.update()
    return written


def _marks(run: Run, preserving: Run | None, store: ClipStore, place: int) -> tuple[tuple[str, np.ndarray], ...]:
    """Returns rows of cells: what a run needs, what suffices, and the event; none where it has one game alone."""
    video_id = store.video_ids[place]
    if preserving is None or video_id not in preserving.rows:
        return ()
    found = []
    for one in (run, preserving):
        row = one.rows[video_id]
        found.append((words.mark(words.clip_facts(one, row)), one.explanations["mask_snapped"][row]))
    salient = comparison.salient_frames(run.explanations, store)
    return (*found, *([] if salient is None else [("event", salient[run.rows[video_id]].astype(np.uint8))]))


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Returns runs as they stand in a figure: two models of one framework together, others alone."""
    pairs: list[list[Run]] = []
    left = list(runs)
    for first in [run for run in runs if _model(run) == _PAIR[0]]:
        framework = first.explanations.header["framework"]
        second = next(
            (run for run in left if _model(run) == _PAIR[1] and run.explanations.header["framework"] == framework), None
        )
        if second:
            pairs.append([first, second])
            left = [run for run in left if run is not first and run is not second]
    return pairs + [[run] for run in left]


def _model(run: Run) -> str:
    return run.explanations.header["model"]


def _class_name(store: ClipStore, place: int) -> str:
    label = int(store.labels[place])
    return store.info.class_names[label] if label >= 0 else "class unknown"


def clip_figure(
    explained: Explanations, row: int, frames: np.ndarray, store: ClipStore, place: int
) -> figures.ClipFigure:
    """Returns what is drawn of a clip.

    Args:
      explained: of a run.
      row: of the clip in it.
      frames: uint8 [T, H, W, 3].
      store: the split.
      place: of the clip in the store.
    """
    header = explained.header
    config = MaskConfig(**header["mask"])
    coarse, time = explained.maps
    maps = gradcam_maps.upsample(coarse[row : row + 1], frames.shape[:3], time)
    snapped = explained["mask_snapped"][row]
    mask = masks.perturbed_part(snapped[None].astype(np.float32), config.game)
    perturbed = perturbations.perturb(frames[None], mask, config.kind)[0]
    scores: dict[str, Any] = {name: float(explained[name][row]) for name in ("OS", "FS", "RS", "CS")}
    return figures.ClipFigure(
        frames=frames,
        heat=gradcam_maps.normalize(maps, "clip")[0],
        perturbed=np.rint(perturbed).astype(np.uint8),
        mask=snapped,
        title=figures.title(_class_name(store, place), header["model"], header["framework"]),
        caption=figures.caption({**scores, "prediction": header["class_names"][int(explained["prediction"][row])]}),
        kind=config.kind,
        has_map=explanations.has_maps(header),
    )


def _write(
    directory: pathlib.Path,
    number: int,
    group: Sequence[Run],
    drawn: Sequence[figures.ClipFigure],
    store: ClipStore,
    place: int,
    types: Sequence[str],
) -> FigureFiles:
    # The clip's number, not its id: an id may hold what a file name must not.
    names = [f"{number:03d}-{_slug(run.label)}" for run in group]
    film = f"{number:03d}-{_slug(' and '.join(run.label for run in group))}"
    frames = figures.pair(*drawn) if len(drawn) == 2 else figures.triptych(drawn[0])
    figure_files.write_gif(directory / f"{film}.gif", frames, _FRAMES_PER_SECOND)
    figure_files.write_mp4(directory / f"{film}.mp4", frames, _FRAMES_PER_SECOND)
    figure_files.write_png(directory / f"{film}.png", frames[len(frames) // 2])
    for name, clip in zip(names, drawn, strict=True):
        still = figures.still_sheet(clip)
        for kind in types:
            files.write_bytes(directory / f"{name}-still.{kind}", STILLS[kind](still))
    video_id = store.video_ids[place]
    title = f"{_class_name(store, place)} ({video_id}): {' and '.join(run.label for run in group)}"
    films = (f"{film}.gif", f"{film}.mp4", f"{film}.png")
    return FigureFiles(video_id, title, films, tuple(tuple(f"{name}-still.{kind}" for kind in types) for name in names))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
