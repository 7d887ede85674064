"""One clip from a file or from memory to its explanation, for both builds' `explain_clip`."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from common import files
from common.explaining.explainer import Build
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models import foreign
from common.models.foreign import ForeignModel
from common.reporting import clip_explanation
from common.reporting.clip_explanation import ClipExplanation
from data_prep import loose_clips

Video = str | pathlib.Path | np.ndarray
GAMES = ("delete", "preserve")


def explain_clip(
    video: Video,
    model: str | pathlib.Path | ForeignModel,
    games: Sequence[str],
    mask: MaskConfig,
    gradcam: GradCamConfig,
    precision: str,
    build: Build,
    input_shape: tuple[int, int, int] | None = None,
) -> ClipExplanation:
    """Explains one clip (see a build's `explain_clip`).

    Args:
      video: file, folder of frames, or uint8 [frames, h, w, 3].
      model: run directory, KIND:NAME of a foreign model, or a loaded one.
      games: of `masks.GAMES`.
      mask: how masks are learnt.
      gradcam: how Grad-CAM is computed.
      precision: of the model's computation.
      build: the framework's.
      input_shape: T, H, W that the video becomes for a foreign model; None where it says it itself.
    """
    clip_explanation.check_games(games)
    loaded = model if isinstance(model, ForeignModel) else None
    settings = ExplainSettings(_source(model), split=loose_clips.SPLIT, mask=mask, gradcam=gradcam, precision=precision)
    form, ready = clip_explanation.open_model(settings, lambda: build, loaded, input_shape)
    if not isinstance(video, str | os.PathLike):
        clip = loose_clips.of_array(np.asarray(video), form)
    else:
        path = pathlib.Path(video)
        clip = loose_clips.read(loose_clips.Source(loose_clips.find([path])[0].video_id, path), form)
    with files.work_folder() as work:
        loose_clips.write_store(work / "clips", [clip], form)
        settings = dataclasses.replace(settings, clips=work / "clips")
        found, store = clip_explanation.explain(settings, games, ready(), work)
        return clip_explanation.of_row(found, store, 0)


def _source(model: str | pathlib.Path | ForeignModel) -> foreign.Source:
    """Returns what names a model: a folder that is there, and whatever has no colon, is a run."""
    if isinstance(model, ForeignModel):
        return foreign.Spec("python", model.name)
    if isinstance(model, pathlib.Path) or pathlib.Path(model).is_dir() or ":" not in model:
        return pathlib.Path(model)
    return foreign.parse(model)
