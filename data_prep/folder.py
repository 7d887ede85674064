"""Anyone's own videos: SPLIT/CLASS/video.ext with splits named train, validation, test, or CLASS/video.ext, or videos.

A clip is a video, an animated image, or a folder of frames (CLASS/clip/0001.jpg). Classes are the names of the folders
that hold clips, in alphabetical order, over all splits. Without split folders every clip goes to one split, unless
`division` divides them. Where no folder is a class, clips are of unknown class, and test. A clip's id is
CLASS-video.ext, since two classes may hold files of one name.
"""

import pathlib

from common import errors
from data_prep import names, plans


def plan(source: pathlib.Path, splits: tuple[str, ...] | None, out: pathlib.Path | None = None) -> plans.Plan:
    """Returns one clip per video, animated image or folder of frames; the plan lists other files as skipped.

    Args:
      source: the top folder.
      splits: with split folders: those to take (None: all there are). Without: the one split that the clips go to
        (None: train; test where they have no class).
      out: folder of the clip store, which is not a class even if it lies in the source folder.
    """
    plans.check_folder(source, "--source")
    folders = {split: source / split for split in plans.SPLITS if (source / split).is_dir()}
    if not folders:
        if splits and len(splits) > 1:
            raise errors.UserError(
                f"CLASS/video.ext must be one split (several: SPLIT/CLASS/video.ext). "
                f"Received: splits {', '.join(splits)} for {source}"
            )
        folders = {splits[0] if splits else "": source}
    elif set(_folders(source, out)) - set(folders.values()):
        others = sorted(path.name for path in set(_folders(source, out)) - set(folders.values()))
        raise errors.UserError(
            f"Folders must be all splits ({', '.join(plans.SPLITS)}) or all classes. "
            f"Received: {', '.join(folders)} beside {', '.join(others)} in {source}"
        )
    absent = [split for split in splits or () if split not in folders]
    if absent:
        raise errors.UserError(f"Each split must have its folder. Received: {source} without {', '.join(absent)}")
    found: dict[str, dict[str, list[str]]] = {}  # Split -> name of a class's folder, "" for none -> paths of clips.
    skipped = []
    for split, folder in folders.items():
        clips, left = _contents_of_split(folder, out)
        skipped += left
        found[split or ("test" if "" in clips else "train")] = {
            name: [path.relative_to(source).as_posix() for path in paths] for name, paths in clips.items()
        }
    folder_names = sorted({name for classes in found.values() for name in classes} - {""})
    labels = {"": -1, **{name: label for label, name in enumerate(folder_names)}}
    items = {split: _items(found[split], labels) for split in splits or found}
    if not any(items.values()):
        raise errors.UserError(
            "--source must hold folders of classes, with videos or folders of frames, or videos. "
            f"Received: {'; '.join([f'{source} with none', *skipped[:1]])}"
        )
    for split, clips_of_split in items.items():
        plans.check_ids(split, (clip.video_id for clip in clips_of_split))
    class_names = tuple(map(names.as_text, folder_names))
    return plans.Plan(class_names, items, {split: () for split in items}, tuple(skipped))


def _contents_of_split(
    folder: pathlib.Path, out: pathlib.Path | None
) -> tuple[dict[str, list[pathlib.Path]], list[str]]:
    """Returns name of a class's folder -> its clips ("": clips without a class), and lines on what is left alone."""
    contents = {path: _contents(path) for path in sorted(_folders(folder, out))}
    classes = {path.name: clips for path, (clips, _) in contents.items() if clips}
    clips, others = _contents(folder)
    clips = [clip for clip in clips if clip.name not in classes]  # A class may hold pictures beside its videos.
    left = plans.left_alone(str(folder), [name for name in others if not (folder / name).is_dir()])
    if classes:
        left += plans.left_alone(str(folder), [clip.name for clip in clips], "beside folders of classes")
    for path, (_, others) in contents.items():
        if path in clips:
            continue
        if path.name not in classes and others:
            left.append(f"{path} is not a class: it holds no clips")
        left += plans.left_alone(str(path), others)
    return classes or {"": clips}, left


def _items(videos: dict[str, list[str]], labels: dict[str, int]) -> tuple[plans.Item, ...]:
    paths = [(path, labels[name]) for name, files in videos.items() for path in files]
    ids = names.clip_ids([path for path, _ in paths])
    return tuple(plans.Item(video_id, path, label) for video_id, (path, label) in zip(ids, paths, strict=True))


def _contents(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the clips of a folder, videos and folders of frames; and the names of what else is there, not hidden."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    clips = [entry for entry in entries if plans.is_clip(entry)]
    return clips, sorted({entry.name for entry in entries} - {clip.name for clip in clips})


def _folders(path: pathlib.Path, out: pathlib.Path | None) -> list[pathlib.Path]:
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return [folder for folder in folders if out is None or not out.exists() or not folder.samefile(out)]
