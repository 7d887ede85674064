"""The explanations file, `explanations.h5`: one row per clip, written once, whole, and read by reports and comparisons.

| dataset | dtype, shape | meaning |
|---|---|---|
| `video_id` | UTF-8 string [N] | the clip, in the order of the clip store |
| `label`, `prediction`, `target` | int32 [N] | true class (-1: unknown), guess on the clean clip, class explained |
| `probabilities` | float32 [N, K] | softmax on the clean clip |
| `mask`, `mask_snapped` | float32, uint8 [N, T] | the learnt mask, 1: perturbed (or kept); 1 where above 0.5 |
| `loss`, `final_loss` | float32 [N, iterations], [N] | Eq. 1 before each step (NaN after the last), and of the mask |
| `OS`, `FS`, `RS`, `FS_snapped`, `RS_snapped` | float32 [N] | score clean, frozen and reversed under the mask |
| `S` | float32 [N] | score under the mask with the kind it was learnt with |
| `CS` | float32 [N] | score of the true class where the guess is another, else NaN |
| `oracle_interval`, `oracle_loss` | int32 [N, 2], float32 [N] | best single interval (start, stop) and its Eq. 1 |
| `gradcam` | float32 [N, T', H', W'], optional | coarse Grad-CAM map of the target, at least 0, not normalised |
| `attribution_…` | float32 [N, T], optional | the answer of each method that was asked for, larger: more important |

The dataset `header`, one text, is JSON: schema version, run, model, dataset, clips, split, class names, clip shape,
settings, framework and versions. What needs the clips too (ground truth, statistics of blobs) is computed when it is
asked for.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np

from common import errors, files, hdf5
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.hdf5 import Column

SCHEMA_VERSION = 2  # In version 1 text was of variable length (see `hdf5`), and the header an attribute.
READABLE_VERSIONS = (1, SCHEMA_VERSION)


def _last_class(sizes: Any) -> int:
    return sizes["K"] - 1


# A letter of a shape stands for one size in the whole file.
COLUMNS: dict[str, Column] = {
    "video_id": Column(hdf5.TEXT, "N"),
    "label": Column(np.int32, "N", low=-1, high=_last_class),
    "prediction": Column(np.int32, "N", low=0, high=_last_class),
    "target": Column(np.int32, "N", low=0, high=_last_class),
    "probabilities": Column(np.float32, "NK"),
    "mask": Column(np.float32, "NT", low=0, high=1),
    "mask_snapped": Column(np.uint8, "NT", low=0, high=1),
    "loss": Column(np.float32, "NI", nan=True),
    "final_loss": Column(np.float32, "N"),
    **{name: Column(np.float32, "N") for name in ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "S")},
    "CS": Column(np.float32, "N", nan=True),
    "oracle_interval": Column(np.int32, ("N", 2), low=0, high=lambda sizes: sizes["T"]),
    "oracle_loss": Column(np.float32, "N"),
    "gradcam": Column(np.float32, "Nthw", low=0),
}


class _Methods(TypedDict):
    names: list[Annotated[str, msgspec.Meta(pattern="^[a-z_]+$")]]
    evaluations: files.Positive
    steps: files.Positive
    seed: files.Count


class _HeaderOfFirstVersions(TypedDict):
    schema_version: int
    run: files.Text
    weights_sha256: files.Text
    model: files.Text
    dataset: files.Text
    clips: str
    split: files.Text
    class_names: list[files.Text]
    clip_shape: tuple[files.Positive, files.Positive, files.Positive]
    target: Literal["guess", "label"]
    mask: MaskConfig
    gradcam: GradCamConfig | None
    precision: Literal["float32", "tf32", "bfloat16", "float64"]
    framework: files.Text
    versions: dict[files.Text, files.Text]


class _Header(_HeaderOfFirstVersions, total=False):
    clips_digest: files.Text
    methods: _Methods
    frames_per_step: files.Positive
    licence: str
    source: str


def attribution(method: str) -> str:
    """Returns the name of the column that holds a method's answers."""
    return f"attribution_{method}"


def methods_of(header: Mapping[str, Any]) -> list[str]:
    """Returns the names of the methods whose answers a file with this header holds."""
    return header["methods"]["names"] if "methods" in header else []


def has_maps(header: Mapping[str, Any]) -> bool:
    """Returns whether a file with this header has Grad-CAM maps: a foreign model may have no endpoint for them."""
    return header.get("gradcam", {}) is not None  # What lacks the field is refused by `read_header`.


def columns_of(header: Mapping[str, Any]) -> dict[str, Column]:
    """Returns the table of the columns of a file with this header.

    They are `COLUMNS`, without `gradcam` where there are no maps, and one for each method's answers.
    """
    own = {name: column for name, column in COLUMNS.items() if name != "gradcam" or has_maps(header)}
    return own | {attribution(name): Column(np.float32, "NT") for name in methods_of(header)}


@dataclasses.dataclass(frozen=True)
class Explanations:
    """What an explanations file holds.

    Attributes:
      header: schema_version, run (name of its folder), weights_sha256, model ("i3d" or "conv_lstm"), dataset, clips
        (folder, see `clips_folder`), clips_digest (of the store; files of earlier versions lack it), split,
        class_names, clip_shape (T, H, W), mask (fields of `masks.MaskConfig`), gradcam (fields of
        `gradcam_maps.GradCamConfig`, or None where there are no maps), target ("guess" or "label"), precision,
        framework ("torch" or "tf"), versions, and, where methods were asked for, methods (their names, and evaluations,
        steps and seed of `methods.MethodConfig`). Where it is known, source is where its weights come from. Of a
        foreign model, model is its kind, and licence is that of its weights where it is known; masks of whole steps
        have frames_per_step.
      columns: name -> array, as in the table above; `video_id` is an array of str.
    """

    header: dict[str, Any]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["video_id"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def maps(self) -> tuple[np.ndarray, str]:
        """Coarse Grad-CAM maps to show, [N, T', H', W'], and how they become T frames; zeros where there are none."""
        if has_maps(self.header):
            return self["gradcam"], self.header["gradcam"]["time"]
        return np.zeros((len(self), 1, 1, 1), np.float32), "repeat"

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
    table = columns_of(explanations.header)
    _check_shapes(explanations.columns, table, str(path))
    header = {**explanations.header, "schema_version": SCHEMA_VERSION}
    with hdf5.written_whole(path, durable) as file:
        hdf5.write_text(file, "header", json.dumps(header, sort_keys=True))
        for name, column in table.items():
            if column.is_text:
                hdf5.write_text(file, name, explanations[name].tolist())
            else:
                file.create_dataset(name, data=np.asarray(explanations[name], dtype=column.dtype))


def read(path: pathlib.Path) -> Explanations:
    """Returns an explanations file.

    Raises:
      errors.UserError: for another schema version, a header that is not as the format says, missing columns, links,
        shapes that clash, and values out of their bounds.
    """
    sizes: dict[str, int] = {}
    with hdf5.opened(path, "Explanations") as file:
        text = hdf5.text_attribute(file, "header")
        if text is None:
            text = hdf5.read(file, {"header": Column(hdf5.TEXT, ())}, {})["header"].item()
        header = read_header(files.parse_json(text, "The header of explanations", path), path)
        sizes = {"K": len(header["class_names"]), "T": header["clip_shape"][0]}
        table = columns_of(header)
        columns = hdf5.read(file, table, sizes)
    hdf5.check_bounds(columns, table, sizes, path)
    return Explanations(header, columns)


def read_header(values: dict[str, Any], origin: object) -> dict[str, Any]:
    """Returns what the header holds, with all settings of masks and Grad-CAM: those that it lacks are the defaults.

    Args:
      values: of JSON.
      origin: where they come from, to end a message with.

    Raises:
      errors.UserError: for another schema version, and fields that are not those of the format.
    """
    what = "The header of explanations"
    files.check_schema_version(values, what, origin, *READABLE_VERSIONS)
    header = files.convert(values, _Header, what, origin)
    settings = {name: header[name] for name in ("mask", "gradcam")}
    return {**values, **{name: config and dataclasses.asdict(config) for name, config in settings.items()}}


def clips_folder(path: pathlib.Path, explanations: Explanations) -> files.Place:
    """Returns the folder or URL of the clip store that an explanations file at `path` names."""
    return files.found_path(explanations.header["clips"], path.parent)


def concatenate(parts: list[Explanations]) -> Explanations:
    """Returns one from several that have the same header, in their order."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}
    return Explanations(parts[0].header, columns)


def _check_shapes(columns: Mapping[str, np.ndarray], table: Mapping[str, Column], origin: str) -> None:
    """Refuses columns that are not those of a table, or whose sizes contradict each other."""
    if columns.keys() != table.keys():
        different = ", ".join(sorted(columns.keys() ^ table.keys()))
        raise errors.UserError(f"Explanations must have exactly the known columns. Missing or unexpected: {different}")
    sizes: dict[str | int, int] = {2: 2}
    for name, column in table.items():
        shape = np.shape(columns[name])
        if len(shape) != len(column.shape) or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(column.shape, shape, strict=True)
        ):
            raise errors.UserError(
                f"{name} must have the shape {tuple(column.shape)}. Received: {shape} in {origin} ({sizes})"
            )
