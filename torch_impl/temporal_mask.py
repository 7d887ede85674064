"""Temporal masks in PyTorch (section 3.1): perturb clips over time, and learn which frames a model needs.

The perturbations are `common/explaining/perturbations.py`, Eq. 1 and the search around the descent
`common/explaining/masks.py`; here they meet tensors, for N clips at a time. Any callable from clips to class
probabilities will do as a model, and nothing but the mask is differentiated:

    probabilities = lambda clips: model(clips).softmax(dim=1)
    learnt = learn_masks(probabilities, clips, targets, masks.MaskConfig(kind="freeze"))
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from common.explaining import masks, perturbations
from common.explaining.masks import BestIntervals, LearntMasks, MaskConfig
from torch_impl import layers

# Clips, float [N, T, H, W, C] with the values of the clips given -> class probabilities [N, K].
ScoreFn = Callable[[torch.Tensor], torch.Tensor]


class _Ops:
    """`perturbations.Ops` on tensors."""

    def constant(self, values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(values, dtype=like.dtype, device=like.device)

    def where(self, condition: torch.Tensor, x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
        return torch.where(condition, x, y)

    def stack(self, arrays: list[torch.Tensor], axis: int) -> torch.Tensor:
        return torch.stack(arrays, dim=axis)

    def amax(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.amax(x, dim=axis)


_OPS = _Ops()


def perturb(clips: torch.Tensor, mask: torch.Tensor, kind: str) -> torch.Tensor:
    """Perturbs clips over time, differentiably in the mask: A(mask) · clips.

    Args:
      clips: any dtype `[N, T, ...]`.
      mask: float `[N, T]`, 0…1, 1 means perturbed.
      kind: name of the perturbation, one of `perturbations.KINDS`.

    Returns:
      Of the mask's dtype, `[N, T, ...]`.
    """
    return _apply(perturbations.find(kind)(mask, _OPS), clips)


def _apply(matrix: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    return (matrix @ clips.flatten(2).to(matrix.dtype)).view(-1, *clips.shape[1:])


def mask_loss(scores: torch.Tensor, mask: torch.Tensor, config: MaskConfig) -> torch.Tensor:
    """Returns Eq. 1 of each clip, `[N]`: lambda_1 |m|_1 + lambda_2 TV(m) + F_c.

    Args:
      scores: F_c, probability of the target class of the perturbed clips, `[N]`.
      mask: `[N, T]`, 0…1.
      config: weights, power of the total variation, compat.
    """
    return masks.mask_loss(scores, mask, config, _OPS)


def initial_mask(
    score_fn: ScoreFn, clips: torch.Tensor, targets: np.ndarray, config: MaskConfig, batch_size: int = 0
) -> np.ndarray:
    """Returns the paper's first mask of each clip, float64 `[N, T]` of 0 and 1 (see `masks.initial_masks`)."""
    return MaskSearch(score_fn, config, batch_size).initial_mask(clips, targets)


def learn_masks(
    score_fn: ScoreFn, clips: torch.Tensor, targets: np.ndarray, config: MaskConfig, batch_size: int = 0
) -> LearntMasks:
    """Learns the mask that lowers the target's score most at the least cost (Eq. 1), for each clip by itself.

    Args:
      score_fn: clips, float `[N, T, H, W, C]` -> class probabilities `[N, K]`, differentiable. A `torch.nn.Module` is
        frozen meanwhile (see `layers.frozen`); what another callable does with a model is its own affair.
      clips: `[N, T, H, W, C]`, any dtype; the search computes in float64 if they are float64, else in float32.
      targets: int `[N]`, class whose score is to fall.
      config: how.
      batch_size: clips at a time; 0 for all.

    Returns:
      Masks, loss traces and scores.

    Raises:
      errors.UserError: for clips or targets of another shape, or scores that are not finite or not one a class.
    """
    return MaskSearch(score_fn, config, batch_size).learn(clips, targets)


def best_interval(
    score_fn: ScoreFn, clips: torch.Tensor, targets: np.ndarray, config: MaskConfig, batch_size: int = 0
) -> BestIntervals:
    """Returns the exact optimum of Eq. 1 among all T (T + 1) / 2 masks that are one interval (the oracle)."""
    return MaskSearch(score_fn, config, batch_size).best_interval(clips, targets)


class MaskSearch:
    """The search on one model, for any number of batches of clips.

    Args:
      score_fn: see `learn_masks`. If it also has `prepare(clips)` and `perturbed(prepared, matrix)`, which returns what
        it would for matrix · clips, these are used: what all perturbations of a clip share is then computed once.
      config: how.
      batch_size: clips at a time; 0 for all that are given.
      on_step: called with a number of clips after each of their steps of the descent, for a progress bar.
    """

    def __init__(
        self,
        score_fn: ScoreFn,
        config: MaskConfig,
        batch_size: int = 0,
        on_step: Callable[[int], object] = lambda clips: None,
    ) -> None:
        self.score_fn, self.config, self.batch_size, self.on_step = score_fn, config, batch_size, on_step

    def initial_mask(self, clips: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        """Returns the paper's first masks, float64 `[N, T]`."""
        with self._frozen():
            return masks.initial_masks(_Scorer(self, clips, targets), self.config)

    def best_interval(self, clips: torch.Tensor, targets: np.ndarray) -> BestIntervals:
        """Tries every interval."""
        with self._frozen():
            return masks.best_intervals(_Scorer(self, clips, targets), self.config)

    def learn(
        self,
        clips: torch.Tensor,
        targets: np.ndarray,
        oracle: BestIntervals | None = None,
        first: np.ndarray | None = None,
    ) -> LearntMasks:
        """Learns masks.

        Args:
          clips: `[N, T, H, W, C]`.
          targets: int `[N]`.
          oracle: what `best_interval` found for these clips, where it is known already.
          first: masks of 0 and 1, `[N, T]`, to start from instead of what the config says.
        """
        with self._frozen():
            return masks.learn_masks(_Scorer(self, clips, targets), self.config, oracle, first)

    def scores(
        self, clips: torch.Tensor, targets: np.ndarray, numbers: np.ndarray, values: np.ndarray, kind: str
    ) -> np.ndarray:
        """Returns F_c, float64 `[M]`, of clips `numbers`, int `[M]`, under masks `values`, float `[M, T]`."""
        with self._frozen():
            return _Scorer(self, clips, targets).scores(numbers, values, kind)

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        """Freezes a module, and has gradients on where the caller has them off."""
        is_module = isinstance(self.score_fn, nn.Module)
        frozen = layers.frozen(self.score_fn) if is_module else contextlib.nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), frozen:
            yield

    def _score(self, clips: torch.Tensor, targets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Returns F_c `[N]` of clips perturbed by matrices `[N, T, T]`, in the matrices' dtype."""
        return _of_targets(self.score_fn(_apply(matrix, clips)), targets).to(matrix.dtype)

    def _score_prepared(self, prepared: torch.Tensor, targets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """The same, of prepared clips; one clip may meet many matrices."""
        if not hasattr(self.score_fn, "prepare"):
            return self._score(prepared, targets, matrix)
        return _of_targets(self.score_fn.perturbed(prepared, matrix), targets).to(matrix.dtype)

    def _prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """Returns what `_step` takes of clips."""
        if not hasattr(self.score_fn, "prepare"):
            return clips
        with torch.no_grad():
            return self.score_fn.prepare(clips)

    def _step(
        self,
        prepared: torch.Tensor,
        targets: torch.Tensor,
        state: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        corrections: tuple[float, float],
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Returns the loss `[N]` before a step of Adam, and its state, of which the first is the logits, after it."""
        logits = state[0].detach().requires_grad_()
        mask = torch.sigmoid(logits)
        score = self._score_prepared(prepared, targets, perturbations.find(self.config.kind)(mask, _OPS))
        masks.check_gradient(score.requires_grad)
        loss = mask_loss(score, mask, self.config)
        # Not `backward`: nothing but the logits gets a gradient.
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        return loss.detach(), masks.adam_step(state, gradient, corrections, self.config.learning_rate)


class _Scorer:
    """A search with its clips (see `masks.Scorer`)."""

    def __init__(self, search: MaskSearch, clips: torch.Tensor, targets: np.ndarray) -> None:
        self._search, self._clips = search, torch.as_tensor(clips)
        targets = masks.check_clips(self._clips.shape, targets)
        self.num_clips, self.time = self._clips.shape[:2]
        self._dtype = torch.float64 if self._clips.dtype == torch.float64 else torch.float32
        self._targets = torch.as_tensor(targets, device=self._clips.device)
        self._batch_size = search.batch_size or self.num_clips
        self._kept: tuple[np.ndarray, torch.Tensor] | None = None  # Which clips were prepared last, and the result.
        # Not `inference_mode`: what a model keeps of a call could not be used in one with gradients.
        with torch.no_grad():
            masks.check_probabilities(_numpy(search.score_fn(self._clips[:1].to(self._dtype))), targets)

    def scores(self, clips: np.ndarray, values: np.ndarray, kind: str) -> np.ndarray:
        matrices = perturbations.matrix(values, kind)
        with torch.no_grad():
            parts = [self._score(clips[some], self._tensor(matrices[some])) for some in self._batches(len(clips))]
        return masks.check_finite(np.concatenate([_numpy(part) for part in parts]), "Scores")

    def descend(self, clips: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [self._descend(clips[some], self._tensor(starts[some])) for some in self._batches(len(clips))]
        found, losses = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return found, masks.check_finite(losses, "Losses")

    def _score(self, clips: np.ndarray, matrices: torch.Tensor) -> torch.Tensor:
        targets = self._targets[self._index(clips)]
        if (clips == clips[0]).all():  # Many masks of one clip, as the oracle tries them.
            return self._search._score_prepared(self._prepared(clips[:1]), targets, matrices)
        return self._search._score(self._clips[self._index(clips)], targets, matrices)

    def _descend(self, clips: np.ndarray, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        prepared, targets = self._prepared(clips), self._targets[self._index(clips)]
        state, losses = (logits, torch.zeros_like(logits), torch.zeros_like(logits)), []
        for step in range(self._search.config.iterations):
            loss, state = self._search._step(prepared, targets, state, masks.adam_corrections(step + 1))
            losses.append(loss)
            self._search.on_step(len(logits))
        return _numpy(torch.sigmoid(state[0])), _numpy(torch.stack(losses, dim=1))

    def _batches(self, total: int) -> list[slice]:
        return [slice(start, start + self._batch_size) for start in range(0, total, self._batch_size)]

    def _prepared(self, clips: np.ndarray) -> torch.Tensor:
        if self._kept is None or not np.array_equal(self._kept[0], clips):
            self._kept = None  # Two at a time may not fit.
            self._kept = clips, self._search._prepare(self._clips[self._index(clips)])
        return self._kept[1]

    def _index(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(numbers, device=self._clips.device)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=self._clips.device)


def _of_targets(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return probabilities.gather(1, targets[:, None])[:, 0]


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
