"""Explanations in PyTorch: temporal masks, their oracle, and Grad-CAM of a run or a foreign model.

Which clips, in which parts, and the file are `common.explaining.explanation_loop`.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from common import errors
from common.clips.clip_store import ClipStore
from common.explaining import evidence, explanation_loop, model_checks
from common.explaining.explainer import Build
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.launching import HERE, Launch
from common.runs.subjects import Classifier, Trained
from torch_impl import devices, foreign, freezing, gradcam, temporal_mask, training, weights

_BYTES_FOR_EACH_KEPT = 2  # What is kept for the backward pass has a gradient.


def build(device: str = "auto", deterministic: bool = False) -> Build:
    """Returns what this build adds to loops that explain.

    Args:
      device: "auto", "cpu" or "gpu".
      deterministic: see `devices.make_deterministic`.
    """
    return Build(
        functools.partial(Explainer, device=device, deterministic=deterministic),
        functools.partial(foreign.load, device=device),
    )


def explain(
    settings: explanation_loop.ExplainSettings,
    device: str = "auto",
    launch: Launch = HERE,
    deterministic: bool = False,
) -> tuple[Explanations, ClipStore]:
    """Explains clips of a run or a foreign model (see `explanation_loop.explain`).

    Args:
      settings: what to explain, and how.
      device: "auto", "cpu" or "gpu".
      launch: which parts to make, and in which processes.
      deterministic: see `devices.make_deterministic`.
    """
    return explanation_loop.explain(settings, *build(device, deterministic), launch)


def gather_evidence(settings: evidence.EvidenceSettings, device: str = "auto", launch: Launch = HERE) -> dict[str, Any]:
    """Gathers evidence about explanations (see `evidence.gather`).

    Args:
      settings: what to gather evidence about.
      device: "auto", "cpu" or "gpu".
      launch: which parts to make, and in which processes.
    """
    return evidence.gather(settings, *build(device), launch)


class Probabilities:
    """Class probabilities of an I3D or a ConvLSTM of this package, as `temporal_mask.MaskSearch` takes them.

    Args:
      model: in inference mode.
    """

    recordable = True  # See `temporal_mask.MaskSearch`.

    def __init__(self, model: weights.Model) -> None:
        self._model = model

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips `[N, T, H, W, 3]` -> `[N, K]`."""
        return torch.softmax(self._model(clips), dim=1)

    def prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """See `i3d.I3D.prepare`."""
        return self._model.prepare(clips)

    def perturbed(self, prepared: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Prepared clips under perturbations `[N, T, T]` -> `[N, K]`."""
        return torch.softmax(self._model.perturbed(prepared, matrix), dim=1)


class Explainer:
    """A classifier and what explains it (see `explainer.Explainer`).

    Args:
      classifier: a trained model, or a foreign one that the build has loaded on the device in the precision.
      mask: how masks are learnt.
      cam: how Grad-CAM is computed.
      precision: of the model's computation; in float64 masks are float64 too.
      on_step: called after each step of the search with its number of clips.
      device: "auto", "cpu" or "gpu".
      deterministic: see `devices.make_deterministic`.
    """

    framework = "torch"

    def __init__(
        self,
        classifier: Classifier,
        mask: MaskConfig,
        cam: GradCamConfig,
        precision: str = "float32",
        on_step: Callable[[int], object] = lambda clips: None,
        device: str = "auto",
        deterministic: bool = False,
    ) -> None:
        if deterministic:
            devices.make_deterministic()
        self._device = devices.find_device(device, precision)
        self._dtype = torch.float64 if precision == "float64" else torch.uint8
        if isinstance(classifier, Trained):
            model = weights.build_model(classifier.config, precision, device=self._device, arrays=classifier.weights)
            self._score_fn: temporal_mask.ScoreFn = Probabilities(model.eval().requires_grad_(False))
            endpoint_fn: gradcam.EndpointFn | None = gradcam.endpoint_fn(model, cam.endpoint)
        else:
            self._score_fn, endpoint_fn = classifier.score_fn, classifier.endpoint_fn
        self._search = temporal_mask.MaskSearch(self._score_fn, mask, on_step=on_step)
        self._gradcam = gradcam.GradCam(endpoint_fn, cam) if endpoint_fn else None

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""
        return training.versions()

    def free_memory(self) -> tuple[int, bool]:
        """Returns the bytes that are free where it computes, and whether that is a GPU."""
        return devices.free_memory(self._device), self._device.type == "cuda"

    def bytes_per_clip(self, frames: np.ndarray) -> int:
        """Returns how many bytes the gradient in the mask needs for the clip uint8 [1, T, H, W, 3], by trying."""
        kept: dict[int, int] = {}  # Storage -> its bytes; several tensors may share one.

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, nn.Parameter):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with freezing.frozen(self._score_fn), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self._score_fn(self._float_clips(frames).requires_grad_().clone())  # It may write into what it is given.
        return _BYTES_FOR_EACH_KEPT * sum(kept.values())

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Returns the softmax, float64 [n, K], of clips uint8 [n, T, H, W, 3]."""
        with torch.inference_mode(), freezing.frozen(self._score_fn):
            scores = self._score_fn(self._float_clips(frames))
        model_checks.check_tensor(scores, torch.Tensor, model_checks.PROBABILITIES)
        return scores.double().cpu().numpy()

    def scorer(self, frames: np.ndarray, targets: np.ndarray) -> temporal_mask.Scorer:
        """Returns a `scorer.Scorer` for clips and their target classes, int [n]."""
        return self._search.on(self._clips(frames), targets)

    def gradcam(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Returns coarse maps [n, T', H', W']; refuses where the model has no endpoint."""
        if self._gradcam is None:
            raise errors.UserError("Grad-CAM must be asked of a model with an endpoint. Received: one without")
        return self._gradcam(self._float_clips(frames), targets)

    def _clips(self, frames: np.ndarray) -> torch.Tensor:
        """Returns frames as the search takes them: uint8, or float64 where masks are."""
        return torch.from_numpy(frames).to(self._device, self._dtype)

    def _float_clips(self, frames: np.ndarray) -> torch.Tensor:
        """Returns frames, 0…255, in float32, or float64 where masks are."""
        return self._clips(frames).to(torch.promote_types(self._dtype, torch.float32))
