"""Anyone's own videos: SPLIT/CLASS/video.ext with splits named train, validation, test, or CLASS/video.ext.

Classes are the names of the folders that hold videos, in alphabetical order, over all splits. Without split folders
every clip goes to one split. A clip's id is CLASS-video.ext, since two classes may hold files of one name.
"""

import pathlib

from common import errors
from data_prep import plans


def plan(source: pathlib.Path, splits: tuple[str, ...] | None) -> plans.Plan:
    """Returns one clip per video file or animated image; files of other kinds, and hidden ones, are left alone.

    Args:
      source: the top folder.
      splits: with split folders: those to take (None: all there are). Without: the one split that the clips go to
        (None: train).
    """
    plans.check_folder(source, "--source")
    folders = {split: source / split for split in plans.SPLITS if (source / split).is_dir()}
    if not folders:
        chosen = splits or ("train",)
        if len(chosen) > 1:
            raise errors.UserError(
                f"CLASS/video.ext holds one split, SPLIT/CLASS/video.ext several. "
                f"Received: splits {', '.join(chosen)} for {source}"
            )
        folders = {chosen[0]: source}
    elif set(_folders(source)) - set(folders.values()):
        others = sorted(path.name for path in set(_folders(source)) - set(folders.values()))
        raise errors.UserError(
            f"Folders must be all splits ({', '.join(plans.SPLITS)}) or all classes. "
            f"Received: {', '.join(folders)} beside {', '.join(others)} in {source}"
        )
    absent = [split for split in splits or () if split not in folders]
    if absent:
        raise errors.UserError(f"Each split must have its folder. Received: {source} without {', '.join(absent)}")
    found = {split: {path: _videos(path) for path in sorted(_folders(folder))} for split, folder in folders.items()}
    names = sorted({path.name for videos in found.values() for path, files in videos.items() if files})
    labels = {name: label for label, name in enumerate(names)}
    items = {split: _items(source, found[split], labels) for split in splits or folders}
    if not any(items.values()):
        raise errors.UserError(f"CLASS folders must hold video files. Received: {source} with none")
    for split, clips in items.items():
        plans.check_ids(split, (clip.video_id for clip in clips))
    return plans.Plan(tuple(names), items, {split: () for split in items})


def _items(
    source: pathlib.Path, videos: dict[pathlib.Path, list[pathlib.Path]], labels: dict[str, int]
) -> tuple[plans.Item, ...]:
    return tuple(
        plans.Item(f"{path.name}-{file.name}", file.relative_to(source).as_posix(), labels[path.name])
        for path, files in videos.items()
        for file in files
    )


def _videos(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and plans.is_video(file))


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    return [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
