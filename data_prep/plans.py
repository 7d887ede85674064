"""What is to be made of a data set: a list of clips per split, before any video is opened."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterable

from common import errors
from data_prep import images

SPLITS = ("train", "validation", "test")
# What FFmpeg opens and people keep videos in; anything else in a folder of videos is left alone.
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogg .ogv .ts .vob .webm .wmv".split()
)
_FORBIDDEN_IN_ID = re.compile(r"[/\\\x00-\x1f\x7f]|\.\.|[\ud800-\udfff]")
_MAX_ID = 200  # characters; most file systems end a name at 255 bytes


@dataclasses.dataclass(frozen=True)
class Item:
    """One clip to be made.

    Attributes:
      video_id: unique in its split.
      path: of the video file or folder of frames, relative to the source folder, with forward slashes.
      label: class index, or -1 where it is unknown.
      frame_range: first frame and the one after the last (from 0) of a sequence; None takes the whole video.
    """

    video_id: str
    path: str
    label: int
    frame_range: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Remark:
    """What is to be said of one clip: why there is none (a failure), or what is odd about it (a note)."""

    video_id: str
    path: str
    text: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made, and what cannot be.

    Attributes:
      class_names: in label order.
      items: split -> clips to be made, in the order in which they will be stored.
      missing: split -> clips whose file is not there.
      skipped: what the annotations themselves leave out, one line each.
    """

    class_names: tuple[str, ...]
    items: dict[str, tuple[Item, ...]]
    missing: dict[str, tuple[Remark, ...]]
    skipped: tuple[str, ...] = ()


def check_ids(split: str, video_ids: Iterable[str]) -> None:
    """Refuses ids that cannot serve as file names, and ids that come twice in a split."""
    counts = collections.Counter(video_ids)
    for video_id, count in counts.items():
        if not 0 < len(video_id) <= _MAX_ID or _FORBIDDEN_IN_ID.search(video_id):
            raise errors.UserError(
                f"A video id must be a name of 1…{_MAX_ID} characters without path separators, '..' or "
                f"control characters. "
                f"Received: {video_id!r:.300} in {split}"
            )
        if count > 1:
            raise errors.UserError(
                f"A video id must occur only once in a split. Received: {video_id!r} {count} times in {split}"
            )


def check_splits(splits: Iterable[str] | None) -> tuple[str, ...] | None:
    """Returns the splits in their usual order; None (whatever there is) stays None."""
    if splits is None:
        return None
    chosen = set(splits)
    if not chosen or not chosen <= set(SPLITS):
        raise errors.UserError(
            f"splits must be some of {', '.join(SPLITS)}. Received: {', '.join(sorted(chosen)) or None}"
        )
    return tuple(split for split in SPLITS if split in chosen)


def check_folder(path: pathlib.Path, what: str) -> None:
    """Refuses a path that is not a folder."""
    if not path.is_dir():
        came = "a file" if path.exists() else "nothing there"
        raise errors.UserError(f"{what} must be a folder. Received: {path} ({came})")


def read_text(path: pathlib.Path, what: str) -> str:
    """Returns the text of a UTF-8 file, or refuses it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.UserError(f"{what} must be a readable UTF-8 file. Received: {path}: {reason}") from None


def is_video(path: pathlib.Path) -> bool:
    """Returns whether a file is taken for a video, by its name; an image only where it holds several pictures."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or suffix in images.SUFFIXES and images.has_several(path)
