"""What a framework adds to all that explains: an `Explainer`, and the `Build` that makes one.

Each build implements both in its module `explanation`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.explaining.scorer import Scorer
from common.runs import subjects
from common.runs.subjects import Classifier, LoadToExplain


class ClipExplainer(Protocol):
    """A classifier and what explains clips by it. Frames are uint8 [n, T, H, W, 3]."""

    framework: str

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Returns the softmax, float64 [n, K]."""

    def scorer(self, frames: np.ndarray, targets: np.ndarray) -> Scorer:
        """Returns a `scorer.Scorer` for clips and their target classes, int [n]."""

    def gradcam(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Returns coarse maps [n, T', H', W']."""


class Explainer(ClipExplainer, Protocol):
    """The same, implemented by each build, and what a loop over many clips must know of it."""

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""

    def free_memory(self) -> tuple[int, bool]:
        """Returns the bytes that are free where it computes, and whether that is a GPU."""

    def bytes_per_clip(self, frames: np.ndarray) -> int:
        """Returns how many bytes the gradient in the mask needs for the clip [1, T, H, W, 3], by trying."""


# (classifier, how masks are learnt, how Grad-CAM is computed, precision, what to call after each step of a search with
# its number of clips).
MakeExplainer = Callable[[Classifier, MaskConfig, GradCamConfig, str, Callable[[int], object]], Explainer]


class Build(NamedTuple):
    """What a framework adds to loops that explain; picklable, so that other processes can use it.

    Attributes:
      make_explainer: builds the framework's explainer.
      load: loads a foreign model.
    """

    make_explainer: MakeExplainer
    load: LoadToExplain = subjects.load_none
