"""The observer of planted events in PyTorch: right by construction, as `common/explaining/observer.py` says.

learnt = temporal_mask.learn_masks(Observer("rare", clips.shape[1:]), clips, labels, masks.MaskConfig())
"""

import torch
from jaxtyping import Float, Shaped

from common import errors
from common.clips import suites
from common.explaining import observer
from torch_impl import temporal_mask


class Observer:
    """A `temporal_mask.ScoreFn` with `prepare` and `perturbed`, which make it as fast as its filters' answers are few.

    Args:
      suite: whose classes it tells, one of `suites.SUITES`.
      clip_shape: T, H, W, C of the clips.
    """

    def __init__(self, suite: str, clip_shape: tuple[int, int, int, int]) -> None:
        errors.check_choice("suite", suite, suites.SUITES)
        self._suite = suite
        self._filters = observer.filters(*clip_shape[1:])

    def __call__(self, clips: Shaped[torch.Tensor, "N T H W C"]) -> Float[torch.Tensor, "N K"]:
        """Float clips, 0…255 -> class probabilities."""
        return self._probabilities(self._answers(clips))

    def prepare(self, clips: Shaped[torch.Tensor, "N T H W C"]) -> Float[torch.Tensor, "N T waves"]:
        """Returns the filters' answers to clips, which is all that it needs of them."""
        return self._answers(clips if clips.is_floating_point() else clips.float())

    def perturbed(
        self, prepared: Float[torch.Tensor, "N T waves"], matrix: Float[torch.Tensor, "N T T"]
    ) -> Float[torch.Tensor, "N K"]:
        """Prepared clips under perturbations -> class probabilities: the filters are linear in the frames."""
        return self._probabilities(matrix @ prepared)

    def _answers(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.flatten(2) @ torch.as_tensor(self._filters, dtype=clips.dtype, device=clips.device)

    def _probabilities(self, answers: torch.Tensor) -> torch.Tensor:
        return observer.logits(answers, self._suite, temporal_mask.OPS).softmax(dim=1)
