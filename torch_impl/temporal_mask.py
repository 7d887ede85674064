"""Temporal masks in PyTorch (section 3.1): perturb clips over time, and learn which frames a model needs.

The perturbations are `common/explaining/perturbations.py`, Eq. 1 is in `masks.py` there, and the search around the
descent in `mask_search.py`; here they meet tensors, for N clips at a time. Any callable from clips to class
probabilities will do as a model, and nothing but the mask is differentiated:

    probabilities = lambda clips: model(clips).softmax(dim=1)
    learnt = learn_masks(probabilities, clips, targets, masks.MaskConfig(kind="freeze"))
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from absl import logging
from jaxtyping import Float, Float64, Integer, Shaped

from common.explaining import descent, mask_search, masks, model_checks, perturbations, scorer
from common.explaining.mask_search import BestIntervals, LearntMasks
from common.explaining.masks import MaskConfig
from torch_impl import freezing, graphs, transfers

# Clips, float [N, T, H, W, C] with the values of the clips given -> class probabilities [N, K].
ScoreFn = Callable[[torch.Tensor], torch.Tensor]


class _Ops:
    """`perturbations.Ops` on tensors."""

    def constant(self, values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
        return _constant(values.tobytes(), values.dtype.str, values.shape, like.dtype, like.device)

    def where(self, condition: torch.Tensor, x: torch.Tensor | float, y: torch.Tensor | float) -> torch.Tensor:
        return torch.where(condition, x, y)

    def stack(self, arrays: list[torch.Tensor], axis: int) -> torch.Tensor:
        return torch.stack(arrays, dim=axis)

    def amax(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.amax(x, dim=axis)


@functools.lru_cache(maxsize=1024)  # A copy to a GPU in every step would hold it up, and cannot be in a CUDA graph.
def _constant(
    values: bytes, kind: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.as_tensor(np.frombuffer(values, kind).reshape(shape).copy(), dtype=dtype, device=device)


OPS: perturbations.Ops = _Ops()


def perturb(
    clips: Shaped[torch.Tensor, "N T *frame"], mask: Float[torch.Tensor, "N T"], kind: str
) -> Float[torch.Tensor, "N T *frame"]:
    """Perturbs clips over time, differentiably in the mask: A(mask) · clips.

    Args:
      clips: of any dtype.
      mask: 0…1, 1 means perturbed.
      kind: name of the perturbation, one of `perturbations.KINDS`.

    Returns:
      Perturbed clips, of the mask's dtype.
    """
    return _apply(perturbations.find(kind)(mask, OPS), clips)


def _apply(matrix: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    return (matrix @ clips.flatten(2).to(matrix.dtype)).view(-1, *clips.shape[1:])


def mask_loss(
    scores: Float[torch.Tensor, " N"], mask: Float[torch.Tensor, "N T"], config: MaskConfig
) -> Float[torch.Tensor, " N"]:
    """Returns Eq. 1 of each clip: lambda_1 |m|_1 + lambda_2 TV(m) + F_c, or 1 - F_c in the game "preserve".

    Args:
      scores: F_c, probability of the target class of the perturbed clips.
      mask: 0…1.
      config: weights, power of the total variation, compat, ends, game.
    """
    return masks.mask_loss(scores, mask, config, OPS)


def learn_masks(
    score_fn: ScoreFn, clips: torch.Tensor | np.ndarray, targets: Any, config: MaskConfig, batch_size: int = 0
) -> LearntMasks:
    """Learns the mask that takes away, or keeps, most of the target's score at the least cost (Eq. 1), clip by clip.

    Args:
      score_fn: clips, float `[N, T, H, W, C]` -> class probabilities `[N, K]`, differentiable. The modules that
        it calls are in inference mode meanwhile (see `freezing.frozen`), and as they were afterwards.
      clips: `[N, T, H, W, C]`, any dtype; the search computes in float64 if they are float64, else in float32.
      targets: int `[N]`, class whose score is to fall, or to stay in the game "preserve".
      config: how masks are learnt.
      batch_size: clips at a time; 0 for all.

    Returns:
      Masks, loss traces and scores.

    Raises:
      errors.UserError: for clips or targets of another shape, or scores that are not finite or not one per class.
    """
    return mask_search.learn_masks(MaskSearch(score_fn, config, batch_size).on(clips, targets), config)


def best_interval(
    score_fn: ScoreFn, clips: torch.Tensor | np.ndarray, targets: Any, config: MaskConfig, batch_size: int = 0
) -> BestIntervals:
    """Returns the best of the masks that are one interval (the oracle); arguments and errors are as of `learn_masks`.

    With the oracle "full" it is the exact optimum of Eq. 1 among all T (T + 1) / 2 (see `mask_search.best_intervals`).
    """
    return mask_search.best_intervals(MaskSearch(score_fn, config, batch_size).on(clips, targets), config)


class MaskSearch:
    """The search on one model, for any number of batches of clips.

    Args:
      score_fn: see `learn_masks`. If it also has `prepare(clips)` and `perturbed(prepared, matrix)`, which returns what
        it would for matrix · clips, these are used: what all perturbations of a clip share is then computed once.
        On a GPU, an attribute `recordable` that is true says that its kernels may be recorded and replayed (`graphs`).
      config: how masks are learnt.
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
        self.num_classes = 0  # Of the model, once it has passed the checks of `model_checks`.
        self.computation = _Computation(score_fn, config)
        self._replayer: graphs.Replayer | None = None

    def replayer(self, device: torch.device) -> graphs.Replayer | None:
        """Returns what runs the steps on a GPU; None on the CPU, where they run as they are."""
        if device.type == "cuda" and self._replayer is None:
            recorded = getattr(self.score_fn, "recordable", False)
            if not recorded:
                logging.info("The steps of a model that is not this project's are not recorded as CUDA graphs.")
            self._replayer = graphs.Replayer(recorded)
        return self._replayer

    def on(self, clips: torch.Tensor | np.ndarray, targets: Any) -> "Scorer":
        """Returns a `Scorer` for the functions of `mask_search`; the first call checks the model.

        Args:
          clips: `[N, T, H, W, C]`, any dtype.
          targets: int `[N]`.
        """
        return Scorer(self, clips, targets)


class _Computation:
    """What a search computes of tensors (and TensorFlow traces), while a `Scorer` holds clips.

    "Prepared" is what `score_fn.prepare` made of clips, or the clips.
    """

    def __init__(self, score_fn: ScoreFn, config: MaskConfig) -> None:
        self.score_fn, self.config = score_fn, config
        self._shared: tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]] | None = None
        if hasattr(score_fn, "prepare") and hasattr(score_fn, "perturbed"):
            self._shared = score_fn.prepare, score_fn.perturbed

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freezes the modules that the score calls, and has gradients on where the caller has them off."""
        with torch.inference_mode(False), torch.enable_grad(), freezing.frozen(self.score_fn):
            yield

    def prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """Returns prepared clips."""
        if not self._shared:
            return clips
        prepare, _ = self._shared
        with torch.no_grad():
            return prepare(clips)

    def score(self, clips: torch.Tensor, targets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Returns F_c `[N]` of clips perturbed by matrices `[N, T, T]`, in the matrices' dtype."""
        return _of_targets(self.score_fn(_apply(matrix, clips)), targets).to(matrix.dtype)

    def score_prepared(self, prepared: torch.Tensor, targets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """The same, of prepared clips; one clip may meet many matrices."""
        if not self._shared:
            return self.score(prepared, targets, matrix)
        _, perturbed = self._shared
        return _of_targets(perturbed(prepared, matrix), targets).to(matrix.dtype)

    def gradient(
        self, prepared: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns Eq. 1 `[N]` of masks `[N, T]`, and its gradient with respect to them `[N, T]`."""
        return self._loss_and_gradient(prepared, targets, mask, lambda values: values)

    def step(
        self,
        prepared: torch.Tensor,
        targets: torch.Tensor,
        corrections: torch.Tensor,
        *state: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Returns the loss `[N]` before a step of Adam, and the state (logits first) after it; corrections `[N, 2]`."""
        loss, gradient = self._loss_and_gradient(prepared, targets, state[0], torch.sigmoid)
        logits, mean, square = state
        both = corrections[:, :1], corrections[:, 1:]
        return loss, *descent.adam_step((logits, mean, square), gradient, both, self.config.learning_rate)

    def _loss_and_gradient(
        self,
        prepared: torch.Tensor,
        targets: torch.Tensor,
        values: torch.Tensor,
        to_mask: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.detach().requires_grad_()
        mask = to_mask(values)
        perturbed = masks.perturbed_part(mask, self.config.game)
        score = self.score_prepared(prepared, targets, perturbations.find(self.config.kind)(perturbed, OPS))
        model_checks.check_gradient(score.requires_grad)
        loss = mask_loss(score, mask, self.config)
        # The loss of a clip depends on its own mask alone, so the gradient of the sum is every clip's own. `grad`, not
        # `backward`: no other leaf that wants a gradient gets one.
        (gradient,) = torch.autograd.grad(loss.sum(), values)
        return loss.detach(), gradient


class Scorer:
    """One model, N clips and their targets (see `scorer.Scorer`); made by `MaskSearch.on`."""

    def __init__(self, search: MaskSearch, clips: torch.Tensor | np.ndarray, targets: Any) -> None:
        self._clips, self._on_step = torch.as_tensor(clips), search.on_step
        targets = mask_search.check_clips(self._clips.shape, transfers.on_host(targets))
        self.num_clips, self.time = self._clips.shape[:2]
        self._dtype = torch.float64 if self._clips.dtype == torch.float64 else torch.float32
        self._targets = torch.as_tensor(targets, device=self._clips.device)
        at_least = search.batch_size or self.num_clips
        self._batch_size = scorer.masks_at_a_time(at_least, self._clips.shape[1:], search.config)
        self._kept: tuple[np.ndarray, torch.Tensor] | None = None  # Which clips were prepared last, and the result.
        self._computation, self._replayer = search.computation, search.replayer(self._clips.device)
        if not search.num_classes:
            search.num_classes = self._check_model(search.score_fn, targets)
        model_checks.check_targets(targets, search.num_classes)

    def _check_model(self, score_fn: ScoreFn, targets: np.ndarray) -> int:
        """Refuses a model that cannot be explained (see `model_checks`); returns its number of classes."""
        # Not `inference_mode`: what a model keeps of a call could not be used in one with gradients.
        with self._computation.frozen(), torch.no_grad():
            clip = self._clips[:1].to(self._dtype)
            alone = _numpy(_one_tensor(score_fn(clip.clone())))  # A copy: a function may write into its clips.
            model_checks.check_probabilities(alone)
            model_checks.check_targets(targets, alone.shape[1])
            again, beside = score_fn(clip.clone()), score_fn(torch.cat([clip, clip.flip(1)]))
            model_checks.check_steady(alone, _numpy(again), _numpy(beside))
            prepared, target = self._prepared(np.array([0]))
            own = self._computation.score_prepared(prepared, target, self._tensor(np.eye(self.time)[None]))
            model_checks.check_prepared(alone[0, targets[0]], own.item())
        return alone.shape[1]

    def scores(
        self, clip_indices: Integer[np.ndarray, " M"], masks: Float[np.ndarray, "M T"], kind: str
    ) -> Float64[np.ndarray, " M"]:
        """Returns F_c of clips under masks."""
        matrices = perturbations.matrix(masks, kind)
        with self._computation.frozen(), torch.no_grad():
            parts = [
                self._score(clip_indices[some], self._tensor(matrices[some])) for some in self._batches(clip_indices)
            ]
        return mask_search.check_finite(np.concatenate([_numpy(part) for part in parts]), "Scores")

    def gradient(
        self, clip_indices: Integer[np.ndarray, " M"], masks: Float[np.ndarray, "M T"]
    ) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, "M T"]]:
        """Returns Eq. 1 of masks on clips, and its gradient in the masks."""
        parts = []
        with self._computation.frozen():
            for some in self._batches(clip_indices):
                prepared, targets = self._prepared(clip_indices[some])
                parts.append(self._run(self._computation.gradient, prepared, targets, self._tensor(masks[some])))
        losses, gradients = (np.concatenate([_numpy(part) for part in column]) for column in zip(*parts, strict=True))
        return mask_search.check_finite(losses, "Losses"), mask_search.check_finite(gradients, "Gradients")

    def descend(
        self, clip_indices: Integer[np.ndarray, " M"], start_logits: Float[np.ndarray, "M T"]
    ) -> tuple[Float64[np.ndarray, "M T"], Float64[np.ndarray, "M iterations"]]:
        """Returns learnt masks and loss traces."""
        with self._computation.frozen():
            parts = [
                self._descend(clip_indices[some], self._tensor(start_logits[some]))
                for some in self._batches(clip_indices)
            ]
        masks, losses = (np.concatenate(column) for column in zip(*parts, strict=True))
        return masks, mask_search.check_finite(losses, "Losses")

    def _score(self, clip_indices: np.ndarray, matrices: torch.Tensor) -> torch.Tensor:
        if (clip_indices == clip_indices[0]).all():  # Many masks of one clip, as the oracle tries them.
            prepared, targets = self._prepared(clip_indices[:1])
            return self._computation.score_prepared(prepared, targets.expand(len(matrices)), matrices)
        rows = self._rows(clip_indices)
        return self._computation.score(self._clips[rows], self._targets[rows], matrices)

    def _descend(self, clip_indices: np.ndarray, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        prepared, targets = self._prepared(clip_indices)
        state, losses = [logits, torch.zeros_like(logits), torch.zeros_like(logits)], []
        iterations = self._computation.config.iterations
        # On the device from the start, so that no step waits for them.
        corrections = self._tensor(np.array([descent.adam_corrections(step + 1) for step in range(iterations)]))
        for step in range(iterations):
            both = corrections[step].expand(len(logits), 2)
            loss, *state = self._run(self._computation.step, prepared, targets, both, *state)
            losses.append(loss)
            self._on_step(len(logits))
        return _numpy(torch.sigmoid(state[0])), _numpy(torch.stack(losses, dim=1))

    def _run(
        self, step: graphs.Step, prepared: torch.Tensor, targets: torch.Tensor, *values: torch.Tensor
    ) -> Sequence[torch.Tensor]:
        """Runs a step on what `_prepared` returned last."""
        if self._replayer is None:
            return step(prepared, targets, *values)
        return self._replayer.run(step, targets, *values)

    def _batches(self, clip_indices: np.ndarray) -> list[slice]:
        return scorer.batches(len(clip_indices), self._batch_size)

    def _prepared(self, clip_indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns prepared clips and their targets; those of the last call are kept."""
        rows = self._rows(clip_indices)
        if self._replayer and self._kept and not self._replayer.holds(self._kept[1]):
            self._kept = None  # Another scorer of the same search has been at work.
        if self._kept is None or not np.array_equal(self._kept[0], clip_indices):
            places = None if self._kept is None else scorer.places_in(self._kept[0], clip_indices)
            if self._kept is None or places is None:
                self._kept = None  # Two at a time may not fit.
                self._kept = clip_indices, self._held(self._computation.prepare(self._clips[rows]))
            else:  # Some of them, as when the others have converged.
                self._kept = clip_indices, self._held(self._kept[1][self._rows(places)])
        return self._kept[1], self._targets[rows]

    def _held(self, prepared: torch.Tensor) -> torch.Tensor:
        return prepared if self._replayer is None else self._replayer.hold(prepared)

    def _rows(self, clip_indices: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(clip_indices, device=self._clips.device)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=self._clips.device)


def _one_tensor(probabilities: Any) -> torch.Tensor:
    return model_checks.check_tensor(probabilities, torch.Tensor, model_checks.PROBABILITIES)


def _of_targets(probabilities: Any, targets: torch.Tensor) -> torch.Tensor:
    return _one_tensor(probabilities).gather(1, targets[:, None])[:, 0]


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
