"""What the benchmark asks: the searches for masks in both games, and the other methods; by name."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from common.explaining import mask_search, methods, perturbations
from common.explaining.methods import Method, MethodConfig, Subject


def mask(subject: Subject, config: MethodConfig) -> np.ndarray:
    """Returns the learnt masks (section 3.1)."""
    return mask_search.learn_masks(subject.scorer, config.mask).masks


def oracle(subject: Subject, config: MethodConfig) -> np.ndarray:
    """Returns the best single intervals."""
    return mask_search.best_intervals(subject.scorer, config.mask).masks(subject.scorer.time)


class Entry(NamedTuple):
    """What answers.

    Attributes:
      method: of `methods`, or a search for masks.
      mask: fields of `MaskConfig` that differ from those of the others.
    """

    method: Method
    mask: dict[str, Any]

    def changed(self, config: MethodConfig) -> MethodConfig:
        """Returns how it answers, where the others answer as a config says."""
        return dataclasses.replace(config, mask=dataclasses.replace(config.mask, **self.mask))


# The least that keeps a class is asked with both ends of the clip counted (D21): a frame that shows how the event ends
# does change the clip, so `effective` cannot tell that Eq. 1 names it for its place alone.
_PRESERVE = {"game": "preserve", "ends": "counted"}

# What is searched for by Eq. 1: these answer with frames, not with numbers alone.
SEARCHES = {
    "mask": Entry(mask, {}),
    "hard_mask": Entry(mask, {"form": "hard"}),
    "oracle": Entry(oracle, {}),
    "preserve_mask": Entry(mask, _PRESERVE),
    "preserve_hard_mask": Entry(mask, {**_PRESERVE, "form": "hard"}),
    "preserve_oracle": Entry(oracle, _PRESERVE),
}
ENTRIES = SEARCHES | {name: Entry(method, {}) for name, method in methods.METHODS.items()}


def effective(
    frames: UInt8[np.ndarray, "N T H W C"], masks: Float64[np.ndarray, "N T"], kind: str
) -> Bool[np.ndarray, "N T"]:
    """Returns which frames of masks do something: the perturbed clip is another if that frame alone is, or is not.

    Eq. 1's total variation has no edge at the ends of a clip, so a mask that goes on to the end is the cheaper one
    where at most two frames are left; where these freeze to what they show anyway, it still names the event alone.

    Args:
      frames: the clips.
      masks: of 0 and 1, 1 means perturbed.
      kind: of perturbation.
    """
    time = masks.shape[1]
    found = np.zeros(masks.shape, bool)
    for clip, mask, row in zip(frames, masks, found, strict=True):
        turned = np.abs(mask - np.concatenate([np.zeros((1, time)), np.eye(time)]))  # As it is, and each frame turned.
        pixels = clip.reshape(time, -1).astype(np.float64)
        shown, *others = (matrix @ pixels for matrix in perturbations.matrix(turned, kind))
        row[:] = [(other != shown).any() for other in others]
    return found
