"""Anyone's own videos: SPLIT/CLASS/video.ext with splits named train, validation, test, or CLASS/video.ext.

Classes are the names of the folders that hold videos, in alphabetical order, over all splits. Without split folders
every clip goes to one split. A clip's id is CLASS-video.ext, since two classes may hold files of one name.
"""

import pathlib

from common import errors
from data_prep import names, plans


def plan(source: pathlib.Path, splits: tuple[str, ...] | None, out: pathlib.Path | None = None) -> plans.Plan:
    """Returns one clip per video file or animated image; the plan lists other files as skipped.

    Args:
      source: the top folder.
      splits: with split folders: those to take (None: all there are). Without: the one split that the clips go to
        (None: train).
      out: folder of the clip store, which is not a class even if it lies in the source folder.
    """
    plans.check_folder(source, "--source")
    folders = {split: source / split for split in plans.SPLITS if (source / split).is_dir()}
    if not folders:
        chosen = splits or ("train",)
        if len(chosen) > 1:
            raise errors.UserError(
                f"CLASS/video.ext must be one split (several: SPLIT/CLASS/video.ext). "
                f"Received: splits {', '.join(chosen)} for {source}"
            )
        folders = {chosen[0]: source}
    elif set(_folders(source, out)) - set(folders.values()):
        others = sorted(path.name for path in set(_folders(source, out)) - set(folders.values()))
        raise errors.UserError(
            f"Folders must be all splits ({', '.join(plans.SPLITS)}) or all classes. "
            f"Received: {', '.join(folders)} beside {', '.join(others)} in {source}"
        )
    absent = [split for split in splits or () if split not in folders]
    if absent:
        raise errors.UserError(f"Each split must have its folder. Received: {source} without {', '.join(absent)}")
    found: dict[str, dict[str, list[str]]] = {}  # Split -> name of a class's folder -> paths of its videos.
    skipped = []
    for split, folder in folders.items():
        skipped += plans.left_alone(str(folder), _stray(folder))
        found[split] = {}
        for path in sorted(_folders(folder, out)):
            videos, others = _contents(path)
            if videos:
                found[split][path.name] = [file.relative_to(source).as_posix() for file in videos]
            elif others:
                skipped.append(f"{path} is not a class: it holds no videos")
            skipped += plans.left_alone(str(path), others)
    folder_names = sorted({name for classes in found.values() for name in classes})
    labels = {name: label for label, name in enumerate(folder_names)}
    items = {split: _items(found[split], labels) for split in splits or folders}
    if not any(items.values()):
        raise errors.UserError(
            f"CLASS folders must hold video files. Received: {'; '.join([f'{source} with none', *skipped[:1]])}"
        )
    for split, clips in items.items():
        plans.check_ids(split, (clip.video_id for clip in clips))
    class_names = tuple(map(names.as_text, folder_names))
    return plans.Plan(class_names, items, {split: () for split in items}, tuple(skipped))


def _items(videos: dict[str, list[str]], labels: dict[str, int]) -> tuple[plans.Item, ...]:
    paths = [(path, labels[name]) for name, files in videos.items() for path in files]
    ids = names.clip_ids([path for path, _ in paths])
    return tuple(plans.Item(video_id, path, label) for video_id, (path, label) in zip(ids, paths, strict=True))


def _contents(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the videos of a folder, and the names of what else is there and not hidden."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    videos = [entry for entry in entries if entry.is_file() and plans.is_video(entry)]
    return videos, sorted({entry.name for entry in entries} - {video.name for video in videos})


def _stray(folder: pathlib.Path) -> list[str]:
    """Returns the names of files, not hidden, that lie beside the folders of classes."""
    return [entry.name for entry in folder.iterdir() if not entry.is_dir() and not entry.name.startswith(".")]


def _folders(path: pathlib.Path, out: pathlib.Path | None) -> list[pathlib.Path]:
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return [folder for folder in folders if out is None or not out.exists() or not folder.samefile(out)]
