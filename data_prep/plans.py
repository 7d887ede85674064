"""What is to be made of a data set: a list of clips per split, before any video is opened."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from common import errors
from common.clips import clip_store
from data_prep import images, local_files, names, videos

SPLITS = clip_store.SPLITS
# The usual suffixes of videos. A file with one of them that holds no video is a failure; else the content decides.
VIDEO_SUFFIXES = frozenset(
    ".264 .265 .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m2t .m2ts .m2v .m4v .mjpeg .mjpg "
    ".mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogg .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m".split()
)
_LISTED = 5  # Names of files left alone that a line lists one by one.


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
      skipped: what is left out, one line each: by the annotations themselves, and files that are not videos.
    """

    class_names: tuple[str, ...]
    items: dict[str, tuple[Item, ...]]
    missing: dict[str, tuple[Remark, ...]]
    skipped: tuple[str, ...] = ()


def check_ids(split: str, video_ids: Iterable[str]) -> None:
    """Refuses ids that cannot serve as file names, and ids that come twice in a split."""
    counts = collections.Counter(video_ids)
    for video_id, count in counts.items():
        if not names.is_id(video_id):
            raise errors.UserError(
                f"A video id must be a name of 1…{names.MAX_ID} bytes without path separators, '..' or "
                f"control characters. "
                f"Received: {video_id!r:.300} in {split}"
            )
        if count > 1:
            raise errors.UserError(
                f"A video id must occur only once in a split. Received: {video_id!r} {count} times in {split}"
            )


def check_splits(splits: Iterable[str] | None) -> tuple[str, ...] | None:
    """Returns the splits in their usual order; None, for all there are, stays None."""
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


def check_file(path: pathlib.Path) -> None:
    """Refuses a path that exists but is not a regular file: reading a pipe or a device might never end."""
    if path.exists() and not path.is_file():
        raise errors.UserError(f"A clip store must consist of regular files. Received: {path}, which is not one")


def read_text(path: pathlib.Path, what: str) -> str:
    """Returns the text of a UTF-8 file, or refuses it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.UserError(f"{what} must be a readable UTF-8 file. Received: {path}: {reason}") from None


def is_video(path: pathlib.Path) -> bool:
    """Returns whether a file is taken for a video: by its name, or else by its content.

    An image counts only where it holds several pictures, a hidden file never.
    """
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    try:
        if suffix in images.SUFFIXES or images.reader(path):
            return images.has_several(path) or videos.holds_video(path)
        return videos.holds_video(path)
    except OSError as error:
        if local_files.is_of_the_file(error):
            return False
        raise


def is_clip(path: pathlib.Path) -> bool:
    """Returns whether a file is taken for a video, or a folder for one of frames."""
    return images.holds_frames(path) if path.is_dir() else path.is_file() and is_video(path)


def left_alone(where: str, others: Sequence[str], why: str = "not videos") -> list[str]:
    """Returns the line that says which files or folders of a folder are not used, or none if there are none.

    Args:
      where: the folder, as the line names it.
      others: names of what is left alone.
      why: it is.
    """
    if not others:
        return []
    more = [f"and {len(others) - _LISTED} more"] if len(others) > _LISTED else []
    return [f"{where}: {len(others)} left alone ({why}): {', '.join([*sorted(others)[:_LISTED], *more])}"]
