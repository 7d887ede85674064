"""The observer of planted events in PyTorch: right by construction, as `common/explaining/observer.py` says.

learnt = temporal_mask.learn_masks(Observer("rare", clips.shape[1:]), clips, labels, masks.MaskConfig())
"""

import torch
from jaxtyping import Float, Shaped

from common.explaining import observer
from torch_impl import temporal_mask


class Observer(observer.Filtering):
    """A `temporal_mask.ScoreFn` with `prepare` and `perturbed` (see `observer.Filtering`), in the clips' dtype."""

    def prepare(self, clips: Shaped[torch.Tensor, "N T H W C"]) -> Float[torch.Tensor, "N T waves"]:
        """See `observer.Filtering`."""
        clips = clips if clips.is_floating_point() else clips.float()
        return clips.flatten(2) @ torch.as_tensor(self._filters, dtype=clips.dtype, device=clips.device)

    def _probabilities(self, answers: torch.Tensor) -> torch.Tensor:
        return observer.logits(answers, self._suite, temporal_mask.OPS).softmax(dim=1)
