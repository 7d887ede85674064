"""One clip from a file or from memory to its explanation, for both builds' `explain_clip`."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from common.clips.clip_store import ClipStore
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.reporting import clip_explanation
from common.reporting.clip_explanation import ClipExplanation
from common.runs import clip_format
from data_prep import loose_clips

Video = str | pathlib.Path | np.ndarray
# Quasi-Newton steps until the mask has converged, and an oracle from coarse to fine: a fraction of the evaluations that
# the paper's 300 steps of Adam take.
FAST = MaskConfig(stop="converged", oracle="coarse")
GAMES = ("delete", "preserve")


def explain_clip(
    video: Video,
    run: str | pathlib.Path,
    games: Sequence[str],
    mask: MaskConfig,
    gradcam: GradCamConfig,
    precision: str,
    explain: Callable[[ExplainSettings], tuple[Explanations, ClipStore]],
) -> ClipExplanation:
    """Explains one clip (see a build's `explain_clip`).

    Args:
      video: file, folder of frames, or uint8 [frames, h, w, 3].
      run: run directory.
      games: of `masks.GAMES`.
      mask: how masks are learnt.
      gradcam: how Grad-CAM is computed.
      precision: of the model's computation.
      explain: the build's.
    """
    clip_explanation.check_games(games)
    form = clip_format.of_run(pathlib.Path(run))
    if isinstance(video, np.ndarray):
        clip = loose_clips.of_array(video, form)
    else:
        path = pathlib.Path(video)
        clip = loose_clips.read(loose_clips.Source(loose_clips.find([path])[0].video_id, path), form)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        loose_clips.write_store(work / "clips", [clip], form)
        settings = ExplainSettings(
            pathlib.Path(run),
            clips=work / "clips",
            split=loose_clips.SPLIT,
            mask=mask,
            gradcam=gradcam,
            precision=precision,
        )
        found, store = clip_explanation.explain(settings, games, explain, work)
        return clip_explanation.of_row(found, store, 0)
