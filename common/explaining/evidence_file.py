"""The evidence on a run's explanations, `evidence.json`: written, read and refused here; `evidence` says what it means.

An object with schema_version, run, model, framework, explanations (name of their file), video_ids, curves (deletion
and insertion -> kind of perturbation -> order of frames -> mean [T + 1] and areas, one per clip), randomization (one
row per level: layers, from, gradcam and mask, a value for each clip, null where it is not defined) and restarts
(starts; mask and loss, a value for each clip and start).
"""

import pathlib
from typing import Any

from common import files

SCHEMA_VERSION = 1
KINDS = ("freeze", "blank", "blur")
ORDERS = ("mask", "centred", "random")

_LISTS: dict[str, files.Kind] = {
    **{
        f"curves/{what}/{kind}/{order}/{name}": "a number"
        for what in ("deletion", "insertion")
        for kind in KINDS
        for order in ORDERS
        for name in ("mean", "areas")
    },
    **dict.fromkeys(("randomization/*/gradcam", "randomization/*/mask"), "a number or null"),
    **dict.fromkeys(("restarts/mask", "restarts/loss"), "a number"),
}
# What tables and charts are made of: its place in the file -> its type.
_FIELDS: dict[str, files.Kind] = {
    **dict.fromkeys(("run", "model", "framework"), "a text"),
    **dict.fromkeys(("video_ids", "randomization"), "a list"),
    "randomization/*/layers": "a whole number",
    "randomization/*/from": "a text",
    "restarts/starts": "a whole number",
    **dict.fromkeys(_LISTS, "a list"),
    **{f"{name}/*": kind for name, kind in _LISTS.items()},
}


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
      errors.UserError: for another schema version, and a field that is missing or of another type.
    """
    values = files.read_json(path, "Evidence", SCHEMA_VERSION)
    files.check_fields(values, _FIELDS, "Evidence", path)
    return values
