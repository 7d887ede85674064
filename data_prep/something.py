"""Something-something-V2 as distributed: `labels.json`, `train.json`, `validation.json`, `test.json`, and the videos.

A record of `train.json` has an `id` and a `template` such as "Pretending to pick [something] up"; its class is the
template without the brackets, which stand around 14 kinds of text ("[something]", "[number of]", "[part]", …).
Records of `test.json` have an `id` only. A video is ID.webm (or any other container), or a folder ID of frames.
"""

import collections
import json
import os
import pathlib
from typing import Any

from common import errors
from common.clips import classes
from data_prep import plans

_PREFIXES = ("", "something-something-v2-")  # The files of the first release carry the name of the data set.


def plan(source: pathlib.Path, annotations: pathlib.Path, splits: tuple[str, ...] | None) -> plans.Plan:
    """Returns the clips of the annotated splits.

    Args:
      source: folder of the videos.
      annotations: folder of the JSON files; without `labels.json` in it, the 174 classes of appendix B count.
      splits: None takes those that have a file.
    """
    plans.check_folder(source, "--source")
    plans.check_folder(annotations, "--annotations")
    class_names = read_classes(annotations)
    files = {split: _find(annotations, split) for split in plans.SPLITS if split in (splits or plans.SPLITS)}
    absent = [f"{split}.json" for split, file in files.items() if file is None]
    if (splits and absent) or len(absent) == len(files):
        raise errors.UserError(
            f"Each split must have its JSON file. Received: {annotations} without {', '.join(absent)}"
        )
    found, others = _index(source)
    items: dict[str, tuple[plans.Item, ...]] = {}
    missing: dict[str, tuple[plans.Remark, ...]] = {}
    for split, file in files.items():
        if file is not None:
            records = read_split(file, class_names, labeled=split != "test")
            items[split], missing[split] = _match(split, records, found, others)
    return plans.Plan(class_names, items, missing, tuple(plans.left_alone(str(source), list(others.values()))))


def read_classes(annotations: pathlib.Path) -> tuple[str, ...]:
    """Returns the class names in label order, from `labels.json` (name -> index, as a number or in quotes)."""
    path = _find(annotations, "labels")
    if path is None:
        return classes.something_something_v2()
    values = _read_json(path)
    try:
        by_index = {_index_of(index): name for name, index in values.items()}
    except (AttributeError, ValueError):
        by_index = {}
    if not by_index or len(by_index) < len(values) or sorted(by_index) != list(range(len(by_index))):
        raise errors.UserError(f"labels.json must map class names to the indices 0…K-1, each once. Received: {path}")
    for name in by_index.values():
        if name.encode("utf-8", "replace") != name.encode("utf-8", "surrogatepass"):
            raise errors.UserError(
                f"labels.json must hold class names of Unicode text. Received: {name!r:.200} in {path}"
            )
    return tuple(by_index[index] for index in range(len(by_index)))


def read_split(path: pathlib.Path, class_names: tuple[str, ...], labeled: bool) -> list[tuple[str, int]]:
    """Returns (id, label) of each record of one JSON file, in its order.

    Args:
      path: of the file.
      class_names: in label order.
      labeled: False gives every clip the label -1 and reads no template.
    """
    records = _read_json(path)
    if not isinstance(records, list):
        raise errors.UserError(f"{path.name} must be a list of records. Received: {type(records).__name__} in {path}")
    labels = {name: label for label, name in enumerate(class_names)}
    return [_read_record(record, labels if labeled else None, path) for record in records]


def _read_record(record: Any, labels: dict[str, int] | None, path: pathlib.Path) -> tuple[str, int]:
    video_id = record.get("id") if isinstance(record, dict) else None
    if not isinstance(video_id, str | int) or isinstance(video_id, bool):
        raise errors.UserError(f"A record must have an id. Received: {record!r:.200} in {path}")
    if labels is None:
        return str(video_id), -1
    template = record.get("template")
    if not isinstance(template, str):
        raise errors.UserError(f"A record must have a template. Received: {record!r:.200} in {path}")
    name = template.replace("[", "").replace("]", "")
    if name not in labels:
        raise errors.UserError(
            f"A template without its brackets must be one of the {len(labels)} classes. "
            f"Received: {template!r:.200} of video {video_id} in {path}"
        )
    return str(video_id), labels[name]


def _match(
    split: str, records: list[tuple[str, int]], found: dict[str, list[str]], others: dict[str, str]
) -> tuple[tuple[plans.Item, ...], tuple[plans.Remark, ...]]:
    plans.check_ids(split, (video_id for video_id, _ in records))
    items, missing = [], []
    for video_id, label in records:
        paths = found.get(video_id, [])
        if len(paths) > 1:
            raise errors.UserError(f"A video id must have one file or folder. Received: {' and '.join(sorted(paths))}")
        if paths:
            items.append(plans.Item(video_id, paths[0], label))
        else:
            hint = f": {others[video_id]} is no video" if video_id in others else ""
            missing.append(plans.Remark(video_id, f"{video_id}.webm", f"no such video file or folder of frames{hint}"))
    return tuple(items), tuple(missing)


def _index(source: pathlib.Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns id -> names of the video files and folders in the source folder that carry it; and id -> other file."""
    found, others = collections.defaultdict(list), {}
    with os.scandir(source) as entries:
        for entry in entries:
            path = pathlib.Path(entry.path)
            if entry.is_dir():
                found[entry.name].append(entry.name)
            elif entry.is_file() and plans.is_video(path):
                found[path.stem].append(entry.name)
            elif not entry.name.startswith("."):
                others[path.stem] = entry.name
    return found, others


def _find(annotations: pathlib.Path, name: str) -> pathlib.Path | None:
    paths = [annotations / f"{prefix}{name}.json" for prefix in _PREFIXES]
    return next((path for path in paths if path.is_file()), None)


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(plans.read_text(path, path.name))
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"{path.name} must hold JSON. Received: {path}: {error}") from None


def _index_of(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(value)
    return int(value)
