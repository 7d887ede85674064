"""Explanations in TensorFlow: temporal masks, their oracle, and Grad-CAM of a trained model.

Which clips, in which parts, and the file are `common.explaining.explanation_loop`.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from common.clips.clip_store import ClipStore
from common.explaining import evidence, explanation_loop
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models import configs
from tf_impl import devices, evaluation, gradcam, temporal_mask, training, weights


def explain(settings: explanation_loop.ExplainSettings, device: str = "auto") -> tuple[Explanations, ClipStore]:
    """Explains clips of a run (see `explanation_loop.explain`).

    Args:
      settings: what to explain, and how.
      device: "auto", "cpu" or "gpu".
    """
    return explanation_loop.explain(settings, functools.partial(Explainer, device=device))


def gather_evidence(settings: evidence.EvidenceSettings, device: str = "auto") -> dict[str, Any]:
    """Gathers evidence about a run's explanations (see `evidence.gather`).

    Args:
      settings: what to gather evidence about.
      device: "auto", "cpu" or "gpu".
    """
    return evidence.gather(settings, functools.partial(Explainer, device=device))


class Probabilities:
    """Class probabilities of an I3D or a ConvLSTM of this package, as `temporal_mask.MaskSearch` takes them.

    Args:
      model: in inference mode.
    """

    def __init__(self, model: weights.Model) -> None:
        self._model = model

    def __call__(self, clips: tf.Tensor) -> tf.Tensor:
        """Clips `[N, T, H, W, 3]` -> `[N, K]`."""
        return tf.nn.softmax(self._model(clips))

    def prepare(self, clips: tf.Tensor) -> tf.Tensor:
        """See `i3d.I3D.prepare`."""
        return self._model.prepare(clips)

    def perturbed(self, prepared: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Prepared clips under perturbations `[N, T, T]` -> `[N, K]`."""
        return tf.nn.softmax(self._model.perturbed(prepared, matrix))


class Explainer:
    """A trained model and what explains it (see `explanation_loop.Explainer`).

    Args:
      config: the model.
      arrays: its canonical weights.
      mask: how masks are learnt.
      cam: how Grad-CAM is computed.
      precision: of the model's computation; in float64 masks are float64 too.
      on_step: called after each step of the search with its number of clips.
      device: "auto", "cpu" or "gpu".
    """

    framework = "tf"

    def __init__(
        self,
        config: configs.ModelConfig,
        arrays: dict[str, np.ndarray],
        mask: MaskConfig,
        cam: GradCamConfig,
        precision: str = "float32",
        on_step: Callable[[int], object] = lambda clips: None,
        device: str = "auto",
    ) -> None:
        self._device = devices.find_device(device, precision)
        self._dtype = tf.float64 if precision == "float64" else tf.uint8
        self.model = weights.build_model(config, precision, device=self._device, arrays=arrays)
        self._logits = tf.function(self.model, input_signature=(evaluation.frames_spec(config),), autograph=False)
        self._search = temporal_mask.MaskSearch(Probabilities(self.model), mask, on_step=on_step)
        self._gradcam = gradcam.GradCam(gradcam.endpoint_fn(self.model, cam.endpoint), cam)

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""
        return training.versions()

    def free_memory(self) -> tuple[int, bool]:
        """Returns the bytes that are free where it computes, and whether that is a GPU."""
        return devices.free_memory(self._device), "GPU" in self._device

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Returns the softmax, float64 [n, K], of clips uint8 [n, T, H, W, 3]."""
        with tf.device(self._device):
            return tf.cast(tf.nn.softmax(self._logits(frames)), tf.float64).numpy()

    def scorer(self, frames: np.ndarray, targets: np.ndarray) -> temporal_mask.Scorer:
        """Returns a `scorer.Scorer` for clips and their target classes, int [n]."""
        return self._search.on(self._clips(frames), targets)

    def gradcam(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Returns coarse maps [n, T', H', W']."""
        with tf.device(self._device):
            return self._gradcam(self._clips(frames), targets)

    def _clips(self, frames: np.ndarray) -> tf.Tensor:
        return tf.cast(frames, self._dtype)
