"""What a model must be shown: shape, rules and classes of its clips, wherever they come from."""

import dataclasses
import pathlib
from collections.abc import Sequence

from common import errors
from common.models import foreign
from common.models.foreign import ForeignModel
from common.runs.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class ClipFormat:
    """How a video becomes a clip for a model.

    Attributes:
      shape: T, H, W in frames and px.
      resize: "stretch" or "center_crop".
      subsampling: "linspace" or "released".
      class_names: K names, in the order of the model's probabilities; () where it does not know them.
    """

    shape: tuple[int, int, int]
    resize: str
    subsampling: str
    class_names: tuple[str, ...]


def of_run(path: pathlib.Path) -> ClipFormat:
    """Returns the format of the clips that a run was trained with."""
    data = RunDirectory(path).read_config().data
    time, height, width = data["input_shape"]
    return ClipFormat((time, height, width), data["resize"], data["subsampling"], tuple(data["class_names"]))


def of_foreign(model: ForeignModel, shape: tuple[int, int, int] | None = None) -> ClipFormat:
    """Returns the format of a foreign model's clips: all of the picture, frames from first to last.

    Args:
      model: that says a shape, or for which the user does.
      shape: T, H, W that the user wants; None for the model's.

    Raises:
      errors.UserError: where neither says the shape, or the user and the model say different ones.
    """
    wanted = shape or model.usual_shape or (None, None, None)
    sizes = [fixed or size for fixed, size in zip(model.clip_shape, wanted, strict=True)]
    if None in sizes:
        raise errors.UserError(
            "--input_shape must say T,H,W of the clips that a video becomes (as in --input_shape=16,112,112), for the "
            f"model does not. Received: none, and {foreign.shape_text(model.clip_shape)} of {model.name}"
        )
    time, height, width = (int(size) for size in sizes if size is not None)
    if shape is not None and shape != (time, height, width):
        raise errors.UserError(
            f"--input_shape must be what {model.name} takes, {foreign.shape_text(model.clip_shape)}. "
            f"Received: {foreign.shape_text(shape)}"
        )
    return ClipFormat((time, height, width), "stretch", "linspace", model.class_names)


def parse_shape(sizes: Sequence[str]) -> tuple[int, int, int]:
    """Returns T, H, W as `--input_shape` names them; refuses anything but three whole numbers from 1 on."""
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise errors.UserError(
            f"--input_shape must be three whole numbers: frames, height, width. Received: {','.join(sizes)}"
        )
    time, height, width = map(int, sizes)
    return time, height, width
