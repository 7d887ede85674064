"""What a model must be shown: shape, rules and classes of its clips, wherever they come from."""

import dataclasses
import pathlib

from common import errors, text
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
      class_names: K names, in the order of the model's probabilities.
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


def of_foreign(model: ForeignModel) -> ClipFormat:
    """Returns the format of a foreign model's clips: all of the picture, frames from first to last.

    Raises:
      errors.UserError: for a model that does not say its shape or its classes.
    """
    sizes = [size or usual for size, usual in zip(model.clip_shape, model.usual_shape or (None,) * 3, strict=True)]
    time, height, width = sizes
    if time is None or height is None or width is None or not model.class_names:
        raise errors.UserError(
            "For videos a model must say its classes and the T, H, W of its clips, or be told them "
            "(--class_names=FILE, --clip_shape=T,H,W; class_names and clip_shape of a ForeignModel). "
            f"Received: {model.name} with {text.counted(len(model.class_names), 'class name')} and "
            f"{foreign.shape_text(sizes)}"
        )
    return ClipFormat((time, height, width), "stretch", "linspace", model.class_names)
