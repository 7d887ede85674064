"""What `explain.py --video` does in both builds: a video on disk in, guesses, masks, a GIF and a page out."""

import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from absl import logging

from common import errors, files, progress, text
from common.clips.clip_store import ClipStore
from common.explaining import explanations
from common.explaining.explainer import Build
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations
from common.reporting import building, clip_explanation
from common.reporting.building import ReportSettings
from common.runs.clip_format import ClipFormat

_NUMBERS = "explanation.json"  # Marks a folder as ours.
_LETTERS = "▁█·■–“”"


class Reading(Protocol):
    """How videos are read, `data_prep.loose_clips`."""

    SPLIT: str

    def find(self, paths: Sequence[pathlib.Path]) -> Sequence[Any]:
        """Returns the videos that files and folders name."""

    def read(self, source: Any, form: ClipFormat) -> Any:
        """Returns a video as a clip."""

    def write_store(self, directory: pathlib.Path, clips: Sequence[Any], form: ClipFormat) -> None:
        """Writes a clip store of clips."""


def explain(
    settings: ExplainSettings,
    videos: Sequence[pathlib.Path],
    games: Sequence[str],
    reading: Reading,
    build: Callable[[], Build],
    shape: tuple[int, int, int] | None = None,
) -> int:
    """Explains videos, prints what was found, and makes OUT/NAME of each: a page, a GIF and the numbers.

    Args:
      settings: what to explain, and how; `out` is the folder OUT, None for explained/.
      videos: files and folders.
      games: see `clip_explanation.explain`.
      reading: see `Reading`.
      build: makes a build, which loads its framework: last, so that bad input is answered at once.
      shape: T, H, W that videos become for a foreign model; None where it says it itself.

    Returns:
      The exit code: 1 where videos of a folder could not be read.

    Raises:
      errors.UserError: for what is no video, and for folders that hold something else.
    """
    out = settings.out or pathlib.Path("explained")
    sources = reading.find(videos)
    for source in sources:
        _check_place(out / source.video_id)
    form, build = clip_explanation.open_model(settings, build, shape=shape)
    clips, failed = _read(sources, form, reading)
    with files.work_folder() as work:
        reading.write_store(work / "clips", clips, form)
        on_clips = dataclasses.replace(settings, clips=work / "clips", split=reading.SPLIT)
        found, store = clip_explanation.explain(on_clips, games, build(), work)
        for row in range(len(clips)):
            _tell(found, store, row, out, work, sys.stdout)
    if failed:
        logging.error("%s could not be read.", text.counted(failed, "video"))
    return int(failed > 0)


def _read(sources: Sequence[Any], form: ClipFormat, reading: Reading) -> tuple[list[Any], int]:
    """Returns the clips, and how many videos of folders could not be read; one that was named must be."""
    clips, failed = [], 0
    for source in progress.bar(sources, unit="video", desc="reading", disable=len(sources) == 1):
        try:
            clips.append(reading.read(source, form))
        except errors.UserError as error:
            if source.named:
                raise
            logging.error("%s", error)
            failed += 1
    if not clips:
        raise errors.UserError(f"At least one video must be readable. Received: none of {failed}")
    return clips, failed


def _tell(
    found: dict[str, Explanations], store: ClipStore, row: int, out: pathlib.Path, work: pathlib.Path, stream: TextIO
) -> None:
    """Makes the folder of one video and prints what is in it."""
    explanation = clip_explanation.of_row(found, store, row)
    place = out / explanation.name
    parts = []
    for game, explained in found.items():
        parts.append(work / f"{row}-{game}.h5")
        explanations.write(parts[-1], explained.take([row]))
    with files.folder_beside(place.resolve(), "--out") as temporary:
        made = temporary / "page"
        building.build(ReportSettings(made, tuple(parts), clips=store.directory, figures=0))
        explanation.save_gif(made / f"{explanation.name}.gif")
        clip_explanation.write_json(made / _NUMBERS, explanation)
        _check_place(place)
        if place.exists():
            place.resolve().replace(temporary / "before")
        made.replace(place.resolve())
    unicode = _can_print(stream)
    width = shutil.get_terminal_size().columns
    heading = f"{explanation.name} ({explanation.header['run']}, {explanation.header['model']})"
    stream.write(f"{heading}\n{explanation.text(width, unicode)}\n{place / 'index.html'}\n\n")


def _check_place(place: pathlib.Path) -> None:
    """Refuses a folder that holds something else than an earlier explanation."""
    if place.exists() and not (place / _NUMBERS).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise errors.UserError(f"--out must be a folder for new results. Received: {place} with other files")


def _can_print(stream: TextIO) -> bool:
    try:
        _LETTERS.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
