"""The evidence on a run's explanations, `evidence.json`: written, read and refused here; `evidence` says what it means.

An object with schema_version, run, model, framework, explanations (name of their file), made_from (SHA-256 of all that
decides it: explanations, clips, settings, versions), video_ids, curves (deletion and insertion -> kind of perturbation
-> order of frames -> mean [T + 1] and areas, one per clip), randomization (one row per level: layers, from, gradcam and
mask, a value for each clip, null where it is not defined) and restarts (starts; mask and loss, a value for each clip
and start, null where a loss of 0 has no ratio). Tasks of an array job leave parts of it in files of their own.
"""

import pathlib
from typing import Annotated, Any, TypedDict

import msgspec

from common import files

SCHEMA_VERSION = 1


class _Curve(TypedDict):
    mean: Annotated[list[float], msgspec.Meta(min_length=2)]
    areas: list[float]


class _Orders(TypedDict):
    mask: _Curve
    centred: _Curve
    random: _Curve


class _Kinds(TypedDict):
    freeze: _Orders
    blank: _Orders
    blur: _Orders


class _Curves(TypedDict):
    deletion: _Kinds
    insertion: _Kinds


_Level = TypedDict(
    "_Level",
    {"layers": files.Count, "from": files.Text, "gradcam": list[float | None], "mask": list[float | None]},
)


class _Restarts(TypedDict):
    starts: files.Count
    mask: list[float]
    loss: list[float | None]


class _Shown(TypedDict):
    """What tables and charts are made of; in `_Evidence` all that is written."""

    schema_version: int
    run: files.Text
    model: files.Text
    framework: files.Text
    video_ids: list[files.Text]
    curves: _Curves
    randomization: list[_Level]
    restarts: _Restarts


class _Evidence(_Shown, total=False):
    explanations: str
    made_from: str


class _CurvesOfKind(TypedDict):
    deletion: _Orders
    insertion: _Orders


class _Restart(TypedDict):
    mask: list[float]
    loss: list[float | None]


# Field of the whole -> one of the parts that it is put together from.
_PARTS: dict[str, Any] = {"curves": _CurvesOfKind, "randomization": _Level, "restarts": _Restart}


KINDS = tuple(_Kinds.__annotations__)
ORDERS = tuple(_Orders.__annotations__)


def write(path: pathlib.Path, values: dict[str, Any]) -> dict[str, Any]:
    """Writes evidence, whole or not at all, and returns what the file holds.

    Args:
      path: of the file; replaced if it exists.
      values: everything but schema_version.
    """
    result = {"schema_version": SCHEMA_VERSION, **values}
    files.write_json(path, result)
    return result


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns what an `evidence.json` holds.

    Args:
      path: of the file.

    Raises:
      errors.UserError: for another schema version, and fields that are not those of the format.
    """
    values = files.read_json(path, "Evidence", SCHEMA_VERSION)
    files.convert(values, _Evidence, "Evidence", path)
    return values


def write_part(path: pathlib.Path, found: dict[str, Any]) -> None:
    """Writes a part of evidence, whole or not at all."""
    files.write_json(path, {"schema_version": SCHEMA_VERSION, "found": found})


def read_part(path: pathlib.Path, what: str) -> dict[str, Any]:
    """Returns what was found.

    Args:
      path: of the file.
      what: it is a part of: "curves", "randomization" or "restarts".

    Raises:
      errors.UserError: for a file that is no such part.
    """
    found: dict[str, Any] = files.read_json(path, "A part of evidence", SCHEMA_VERSION).get("found", {})
    files.convert(found, _PARTS[what], "A part of evidence", path)
    return found
