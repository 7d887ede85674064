"""KTH actions as distributed: 600 files person01_boxing_d1_uncomp.avi … and `00sequences.txt`.

Each line of `00sequences.txt` cuts one video into three or four sequences, by ranges of frame numbers that count from
1 and include both ends ("person01_boxing_d1  frames  1-95, 96-185, 186-245, 246-360"). Ranges may overlap and need
not rise. One video of the 600 was never published ("*missing*"). 2391 sequences in all.

Split (released code): subjects 1–16 train, 17–25 validate. The other one, in the prose of the file, is not used.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator

from common import errors
from common.clips import classes
from data_prep import plans

TRAIN_SUBJECTS = range(1, 17)
VALIDATION_SUBJECTS = range(17, 26)
_SPLITS = ("train", "validation")
_LABELS = {name.lower(): label for label, name in enumerate(classes.KTH)}
_LINE_START = re.compile(r"person\d+_", re.IGNORECASE)
_LINE = re.compile(
    r"person(?P<subject>\d\d)_(?P<action>[a-z]+)_d(?P<scenario>[1-4])\s+(?:frames\s+(?P<ranges>\d.*)|\*missing\*)",
    re.ASCII,
)
_RANGE = re.compile(r"\s*(\d{1,7})\s*-\s*(\d{1,7})\s*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Video:
    """One line of `00sequences.txt`.

    Attributes:
      name: such as person01_boxing_d1.
      subject: 1…25.
      label: class index.
      ranges: first frame and the one after the last, counted from 0, of each sequence; none where it was not published.
    """

    name: str
    subject: int
    label: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def split(self) -> str:
        """The split that the subject belongs to."""
        return "train" if self.subject in TRAIN_SUBJECTS else "validation"


def plan(source: pathlib.Path, annotations: pathlib.Path, splits: tuple[str, ...] | None) -> plans.Plan:
    """Returns one clip per sequence, its id the video's name and the sequence's number (person01_boxing_d1-1).

    Args:
      source: folder that holds the avi files, directly or in folders of their own.
      annotations: `00sequences.txt`, or the folder that holds it.
      splits: None takes train and validation.
    """
    plans.check_folder(source, "--source")
    chosen = splits or _SPLITS
    if not set(chosen) <= set(_SPLITS):
        raise errors.UserError(f"The splits must be KTH's, {' and '.join(_SPLITS)}. Received: {', '.join(chosen)}")
    videos = read_sequences(annotations / "00sequences.txt" if annotations.is_dir() else annotations)
    found = _index(source)
    items: dict[str, list[plans.Item]] = {split: [] for split in chosen}
    missing: dict[str, list[plans.Remark]] = {split: [] for split in chosen}
    for video in videos:
        if video.split not in chosen:
            continue
        file_name = f"{video.name}_uncomp.avi"
        for number, frame_range in enumerate(video.ranges, start=1):
            video_id = f"{video.name}-{number}"
            if file_name in found:
                items[video.split].append(plans.Item(video_id, found[file_name], video.label, frame_range))
            else:
                missing[video.split].append(plans.Remark(video_id, file_name, "no such video file"))
    skipped = tuple(f"{video.name} was never published (00sequences.txt)" for video in videos if not video.ranges)
    return plans.Plan(
        classes.KTH, {k: tuple(v) for k, v in items.items()}, {k: tuple(v) for k, v in missing.items()}, skipped
    )


def read_sequences(path: pathlib.Path) -> list[Video]:
    """Returns the videos of `00sequences.txt` in its order; prose is passed over, a malformed line refused."""
    videos: dict[str, Video] = {}
    for number, line in enumerate(plans.read_text(path, "00sequences.txt").splitlines(), start=1):
        if _LINE_START.match(line.strip()):
            video = _read_line(line.strip(), f"line {number} of {path}")
            if video.name in videos:
                raise errors.UserError(
                    f"A video must have one line. Received: {video.name} again in line {number} of {path}"
                )
            videos[video.name] = video
    if not videos:
        raise errors.UserError(
            f"00sequences.txt must have lines such as 'person01_boxing_d1 frames 1-95, …'. Received: none in {path}"
        )
    return list(videos.values())


def _read_line(line: str, where: str) -> Video:
    match = _LINE.fullmatch(line)
    action = match["action"] if match else None
    subject = int(match["subject"]) if match else 0
    if match is None or action not in _LABELS or not 1 <= subject <= VALIDATION_SUBJECTS[-1]:
        raise errors.UserError(
            f"A line must read person01_ACTION_d1 frames 1-95, 96-185, … with a person of 01…25, an action of "
            f"{', '.join(_LABELS)} and d1…d4. Received: {line!r:.200}, {where}"
        )
    texts = match["ranges"].split(",") if match["ranges"] else []
    ranges = tuple(_read_range(text, where) for text in texts)
    return Video(f"person{match['subject']}_{action}_d{match['scenario']}", subject, _LABELS[action], ranges)


def _read_range(text: str, where: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last:
        raise errors.UserError(
            f"A range must be FIRST-LAST with 1 <= FIRST <= LAST. Received: {text.strip()!r:.50}, {where}"
        )
    return first - 1, last


def _index(source: pathlib.Path) -> dict[str, str]:
    """Returns file name -> path relative to the source folder."""
    found = collections.defaultdict(list)
    for path in _files(source, set()):
        if path.name.startswith("person") and path.name.endswith("_uncomp.avi"):
            found[path.name].append(path.relative_to(source).as_posix())
    for paths in found.values():
        if len(paths) > 1:
            raise errors.UserError(f"A video must have one file. Received: {' and '.join(sorted(paths))} in {source}")
    return {name: paths[0] for name, paths in found.items()}


def _files(folder: pathlib.Path, seen: set[tuple[int, int]]) -> Iterator[pathlib.Path]:
    """Yields the files below a folder, also by way of symbolic links, each folder once; hidden ones are left alone."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from _files(path, seen)
        elif path.is_file() and not path.name.startswith("."):
            yield path
