"""Attributions, `*.npz`: any tool's answer to "which frames?", written, read and refused here.

| array | dtype, shape | meaning |
|---|---|---|
| `video_id` | text [N] | the clips |
| `attribution` | numbers [N, T] | larger: more important |
| `selected` | true or false [N, T], optional | frames that the tool answers with; else `when_metrics.selection` |
| `forwards` | numbers [N], optional | model evaluations that the answer took |
| `deletion`, `insertion` | numbers [N], optional | area under the curve (`frame_curves`) |
| `deletion_random`, `insertion_random` | numbers [N], beside these | mean area of random orders |

`numpy.savez("mine.npz", video_id=ids, attribution=values)` writes one.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from common import errors, files

AREAS = ("deletion", "insertion")

# Array -> kinds of its dtype, axes, whether it must be there.
_ARRAYS: dict[str, tuple[str, str, bool]] = {
    "video_id": ("U", "N", True),
    "attribution": ("fiub", "NT", True),
    "selected": ("b", "NT", False),
    "forwards": ("fiu", "N", False),
    **{f"{area}{suffix}": ("f", "N", False) for area in AREAS for suffix in ("", "_random")},
}


@dataclasses.dataclass(frozen=True)
class Attributions:
    """An answer for N clips.

    Attributes:
      video_ids: of the clips, each once.
      values: float64 [N, T], larger: more important.
      selected: bool [N, T], or None.
      forwards: float64 [N], model evaluations that it took, or None.
      areas: "deletion", "insertion", and both with "_random" -> float64 [N]; empty where they are not known.
    """

    video_ids: tuple[str, ...]
    values: np.ndarray
    selected: np.ndarray | None = None
    forwards: np.ndarray | None = None
    areas: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video_ids)


def write(path: pathlib.Path, attributions: Attributions) -> None:
    """Writes attributions, whole or not at all."""
    arrays: dict[str, Any] = {
        "video_id": np.array(attributions.video_ids, np.str_),
        "attribution": attributions.values,
        "selected": attributions.selected,
        "forwards": attributions.forwards,
        **attributions.areas,
    }
    with files.written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def read(path: pathlib.Path) -> Attributions:
    """Returns attributions; refuses missing and unknown arrays, shapes that clash, ids named twice, and NaN."""
    arrays: dict[str, np.ndarray] = {}
    name = ""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # Else NumPy takes it for a pickle, and says how to load that.
                raise ValueError("a file of another kind")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                for name in archive.files:
                    arrays[name] = archive[name]
    except Exception as error:  # A damaged archive makes NumPy and zipfile raise nearly any of them.
        reason = f"{error!s:.200}"
        if "allow_pickle" in reason:
            reason = f"{name} holds Python objects; numpy.array(values, str) makes text of them, float numbers"
        raise errors.UserError(f"Attributions must be an .npz file of arrays. Received: {path}: {reason}") from None
    _check(arrays, path)
    areas = {name: arrays[name].astype(np.float64) for name in arrays if name.removesuffix("_random") in AREAS}
    return Attributions(
        video_ids=tuple(arrays["video_id"].tolist()),
        values=arrays["attribution"].astype(np.float64),
        selected=arrays.get("selected"),
        forwards=arrays["forwards"].astype(np.float64) if "forwards" in arrays else None,
        areas=areas,
    )


def _check(arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    required = {name for name, (_, _, must) in _ARRAYS.items() if must}
    if not required <= arrays.keys() <= _ARRAYS.keys():
        raise errors.UserError(
            f"Attributions must have {' and '.join(sorted(required))}, and beside them at most "
            f"{', '.join(sorted(_ARRAYS.keys() - required))}. Received: {', '.join(sorted(arrays))} in {path}"
        )
    areas = [name for name in arrays if name.removesuffix("_random") in AREAS]
    if len(areas) not in (0, 2 * len(AREAS)):
        raise errors.UserError(f"Areas must come all four together. Received: {', '.join(sorted(areas))} in {path}")
    sizes: dict[str, int] = {}
    for name in sorted(arrays, key=list(_ARRAYS).index):
        kinds, axes, _ = _ARRAYS[name]
        array = arrays[name]
        fits = array.ndim == len(axes) and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(axes, array.shape, strict=True)
        )
        if array.dtype.kind not in kinds or not fits or not array.size:
            raise errors.UserError(
                f"{name} must be {_named(kinds)} [{', '.join(axes)}], of at least one clip. "
                f"Received: {array.dtype} {list(array.shape)} in {path}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise errors.UserError(
                f"{name} must be finite. Received: NaN or infinity for {arrays['video_id'][row]} in {path}"
            )
    ids, counts = np.unique(arrays["video_id"], return_counts=True)
    if counts.max() > 1:
        raise errors.UserError(
            f"Each clip must have one row. Received: {ids[counts.argmax()]} more than once in {path}"
        )


def _named(kinds: str) -> str:
    return {"U": "text", "b": "true and false"}.get(kinds, "numbers")
