"""The explanations file, `explanations.h5`: one row per clip, written once, whole, and read by reports and comparisons.

| dataset | dtype, shape | meaning |
|---|---|---|
| `video_id` | UTF-8 string [N] | the clip, in the order of the clip store |
| `label`, `prediction`, `target` | int32 [N] | true class (-1: unknown), guess on the clean clip, class explained |
| `probabilities` | float32 [N, K] | softmax on the clean clip |
| `mask`, `mask_snapped` | float32, uint8 [N, T] | the learnt mask, 1 means perturbed; 1 where it is above 0.5 |
| `loss`, `final_loss` | float32 [N, iterations], [N] | Eq. 1 before each step, and of the learnt mask |
| `OS`, `FS`, `RS`, `FS_snapped`, `RS_snapped` | float32 [N] | score clean, frozen and reversed under the mask |
| `S` | float32 [N] | score under the mask with the kind it was learnt with |
| `CS` | float32 [N] | score of the true class where the guess is another, else NaN |
| `oracle_interval`, `oracle_loss` | int32 [N, 2], float32 [N] | best single interval (start, stop) and its Eq. 1 |
| `gradcam` | float32 [N, T', H', W'] | coarse Grad-CAM map of the target, at least 0, not normalised |

The attribute `header` is JSON: schema version, run, model, dataset, clips, split, class names, clip shape, settings,
framework and versions. What needs the clips too (ground truth, statistics of blobs) is computed when it is asked for.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np

from common import errors, files, hdf5

SCHEMA_VERSION = 1

# Name -> dtype and the letters of its shape; a letter stands for one size in the whole file.
COLUMNS: dict[str, tuple[Any, str]] = {
    "video_id": (h5py.string_dtype("utf-8"), "N"),
    "label": (np.int32, "N"),
    "prediction": (np.int32, "N"),
    "target": (np.int32, "N"),
    "probabilities": (np.float32, "NK"),
    "mask": (np.float32, "NT"),
    "mask_snapped": (np.uint8, "NT"),
    "loss": (np.float32, "NI"),
    "final_loss": (np.float32, "N"),
    **{name: (np.float32, "N") for name in ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "S", "CS")},
    "oracle_interval": (np.int32, "N2"),
    "oracle_loss": (np.float32, "N"),
    "gradcam": (np.float32, "Nthw"),
}

# What the header must hold: its place -> its type.
_HEADER: dict[str, files.Kind] = {
    **dict.fromkeys(("run", "weights_sha256", "model", "dataset", "clips", "split"), "a text"),
    "class_names": "a list",
    "class_names/*": "a text",
    "clip_shape": "a list",
    "clip_shape/*": "a whole number",
    **dict.fromkeys(("target", "mask/kind", "gradcam/time", "precision", "framework"), "a text"),
    "versions": "an object",
}


@dataclasses.dataclass(frozen=True)
class Explanations:
    """What an explanations file holds.

    Attributes:
      header: schema_version, run (name of its folder), weights_sha256, model ("i3d" or "conv_lstm"), dataset, clips
        (folder, see `clips_folder`), clips_digest (of the store; files of earlier versions lack it), split,
        class_names, clip_shape (T, H, W), mask (fields of `masks.MaskConfig`), gradcam (fields of
        `gradcam_maps.GradCamConfig`), target ("guess" or "label"), precision, framework ("torch" or "tf"), versions.
      columns: name -> array, as in the table above; `video_id` is an array of str.
    """

    header: dict[str, Any]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["video_id"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Explanations":
        """Returns the rows of some clips, in the order asked for."""
        return Explanations(self.header, {name: column[rows] for name, column in self.columns.items()})

    def of_clips(self, video_ids: Iterable[str]) -> "Explanations":
        """Returns the rows of some clips, which must all be there, in the order of their ids."""
        places = {video_id: place for place, video_id in enumerate(self["video_id"])}
        return self.take([places[video_id] for video_id in video_ids])


def write(path: pathlib.Path, explanations: Explanations, durable: bool = False) -> None:
    """Writes an explanations file, whole or not at all.

    Args:
      path: of the file; replaced if it exists.
      explanations: all columns, of matching shapes.
      durable: whether it is whole after a power cut, too.
    """
    _check(explanations.columns, str(path))
    with hdf5.written_whole(path, durable) as file:
        file.attrs["header"] = json.dumps(explanations.header, ensure_ascii=False, sort_keys=True)
        for name, (dtype, _) in COLUMNS.items():
            file.create_dataset(name, data=np.asarray(explanations[name], dtype=dtype), dtype=dtype)


def read(path: pathlib.Path) -> Explanations:
    """Returns an explanations file; refuses another schema version, missing columns, links, and shapes that clash."""
    try:
        with hdf5.open_for_reading(path) as file:
            header = json.loads(file.attrs.get("header", "{}"))
            version = header.get("schema_version") if isinstance(header, dict) else None
            if version != SCHEMA_VERSION:
                raise errors.UserError(
                    f"Explanations must have schema version {SCHEMA_VERSION}. Received: {version} in {path}"
                )
            columns = {name: hdf5.column(file, name, dtype, letters) for name, (dtype, letters) in COLUMNS.items()}
    except (OSError, ValueError, TypeError, MemoryError) as error:
        raise errors.UserError(
            f"Explanations must be an HDF5 file that explain.py wrote. Received: {path}: {error}"
        ) from None
    _check(columns, str(path))
    _check_header(header, columns, path)
    return Explanations(header, columns)


def clips_folder(path: pathlib.Path, explanations: Explanations) -> pathlib.Path:
    """Returns the folder of the clip store that an explanations file at `path` names."""
    return files.found_path(explanations.header["clips"], path.parent)


def concatenate(parts: list[Explanations]) -> Explanations:
    """Returns one from several that have the same header, in their order."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    return Explanations(parts[0].header, columns)


def _check_header(header: dict[str, Any], columns: dict[str, np.ndarray], path: pathlib.Path) -> None:
    files.check_fields(header, _HEADER, "The header of explanations", path)
    num_classes, frames = columns["probabilities"].shape[1], columns["mask"].shape[1]
    if len(header["class_names"]) != num_classes or header["clip_shape"][:1] != [frames]:
        raise errors.UserError(
            f"class_names and clip_shape must be of {num_classes} classes and {frames} frames. Received: "
            f"{len(header['class_names'])} and {header['clip_shape']} in {path}"
        )
    for name, lowest in (("label", -1), ("prediction", 0), ("target", 0)):
        values = columns[name]
        if len(values) and not (lowest <= values.min() and values.max() < num_classes):
            raise errors.UserError(
                f"{name} must be {lowest}…{num_classes - 1}. Received: {values.min()}…{values.max()} in {path}"
            )


def _check(columns: dict[str, np.ndarray], origin: str) -> None:
    """Refuses columns that are not `COLUMNS`, or whose sizes contradict each other."""
    if columns.keys() != COLUMNS.keys():
        different = ", ".join(sorted(columns.keys() ^ COLUMNS.keys()))
        raise errors.UserError(f"Explanations must have exactly the known columns. Missing or unexpected: {different}")
    sizes = {"2": 2}
    for name, (_, letters) in COLUMNS.items():
        shape = np.shape(columns[name])
        if len(shape) != len(letters) or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, shape, strict=True)
        ):
            raise errors.UserError(
                f"{name} must have the shape {tuple(letters)}. Received: {shape} in {origin} ({sizes})"
            )
