"""One clip from a file or from memory to its explanation, in PyTorch."""

import pathlib
from collections.abc import Sequence

import numpy as np

from common.explaining import masks
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models.foreign import ForeignModel
from common.reporting.clip_explanation import ClipExplanation
from data_prep import one_clip
from torch_impl import explanation


def explain_clip(
    video: str | pathlib.Path | np.ndarray,
    model: str | pathlib.Path | ForeignModel,
    games: Sequence[str] = one_clip.GAMES,
    mask: MaskConfig = masks.FAST,
    gradcam: GradCamConfig = GradCamConfig(),  # noqa: B008
    precision: str = "float32",
    device: str = "auto",
    input_shape: tuple[int, int, int] | None = None,
) -> ClipExplanation:
    """Explains the guess of a model for one clip; no clip store is needed.

    Args:
      video: a file, a folder of frames, or frames uint8 `[frames, h, w, 3]`, RGB; frames are chosen and resized as
        the model's clips are.
      model: run directory, of either framework; KIND:NAME of a foreign model, as `--model` takes it; or a loaded one.
      games: "delete" (which frames are needed), "preserve" (which are enough) or both, a mask each; scores and the GIF
        are of the first.
      mask: how masks are learnt; its game is overruled. By default until they have converged;
        `MaskConfig(iterations=300)` is the paper's way.
      gradcam: how Grad-CAM is computed.
      precision: of the model's computation.
      device: "auto", "cpu" or "gpu".
      input_shape: T, H, W that the video becomes for a foreign model that takes any; None where it says it itself.

    Returns:
      Probabilities, masks, map and scores, which a notebook shows as pictures (see `ClipExplanation`).

    Raises:
      UserError: for a file that is not a video, and a folder that is not a run.
    """
    return one_clip.explain_clip(video, model, games, mask, gradcam, precision, explanation.build(device), input_shape)
