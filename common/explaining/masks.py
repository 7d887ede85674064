"""Temporal masks (section 3.1): the loss of Eq. 1, where the search starts, the exact oracle, and what a mask says.

None of it knows a model: a framework brings a `Scorer`, which scores clips under masks and descends. A mask is [T] in
[0, 1], 1 means perturbed. Eq. 1 is lambda_1 |m|_1 + lambda_2 TV(m) + F_c, with the total variation
TV(m) = Σ_t |m_(t+1) - m_t|^beta and F_c the probability of the target class for the perturbed clip. `mask_loss` and
`adam_step` are made of operators that NumPy, PyTorch and TensorFlow share: the same lines run in all three.
"""

import dataclasses
import itertools
import math
from typing import Any, Protocol

import numpy as np

from common import errors
from common.explaining import perturbations

COMPATS = ("paper", "released")
STARTS = ("centred", "oracle", "multi")
START_LOGIT = 5.0  # The search starts at a mask of sigmoid(5) = 0.993 inside its window and 0.007 outside.
SNAP_THRESHOLD = 0.5
KEPT_DROP = 0.9  # The first window keeps this share of the drop that the full mask causes.
_ADAM_BETA_1, _ADAM_BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8  # Epsilon is added after the bias correction (D8).


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """How masks are learnt; the defaults are the paper's.

    Attributes:
      kind: perturbation, one of `perturbations.KINDS`.
      lambda_1: weight of the mask's length (section 3.1).
      lambda_2: weight of its total variation.
      beta: power of the total variation, at least 1.
      iterations: steps of Adam.
      learning_rate: of Adam.
      start: where the search starts: "centred" (the paper's window in the middle of time), "oracle" (the best single
        interval, found by trying all), or "multi" (both; of the two ends and that interval itself the one with the
        smallest loss counts, so it is never worse than the oracle).
      compat: "paper", or "released" for what the released code does instead (D13, D14).
    """

    kind: str = "freeze"
    lambda_1: float = 0.01
    lambda_2: float = 0.02
    beta: float = 3.0
    iterations: int = 300
    learning_rate: float = 0.2
    start: str = "centred"
    compat: str = "paper"

    def __post_init__(self) -> None:
        perturbations.find(self.kind)
        for name, choices in (("start", STARTS), ("compat", COMPATS)):
            errors.check_choice(name, getattr(self, name), choices)
        allowed = (self.lambda_1 >= 0, self.lambda_2 >= 0, self.beta >= 1, self.learning_rate > 0)
        numbers = (self.lambda_1, self.lambda_2, self.beta, self.learning_rate)
        if not all(allowed) or not all(map(math.isfinite, numbers)):
            raise errors.UserError(
                "lambda_1 and lambda_2 must be at least 0, beta at least 1, learning_rate above 0. Received: "
                f"{', '.join(map(str, numbers))}"
            )
        if self.iterations < 1:
            raise errors.UserError(f"iterations must be at least 1. Received: {self.iterations}")


def difference_weights(time: int, compat: str) -> np.ndarray:
    """Returns how often each difference m_(t+1) - m_t counts in the total variation, float64 [T - 1].

    Once; in the released code twice, but for the first and the last (D13).
    """
    weights = np.ones(time - 1)
    if compat == "released":
        weights[1:-1] = 2
    return weights


def total_variation(
    masks: Any, beta: float, compat: str = "paper", ops: perturbations.Ops = perturbations.NUMPY_OPS
) -> Any:
    """Returns TV(m) [N] of masks [N, T]: arrays of NumPy, or of the framework that `ops` is for."""
    weights = ops.constant(difference_weights(masks.shape[1], compat)[:, None], masks)
    return (abs(masks[:, 1:] - masks[:, :-1]) ** beta @ weights)[:, 0]


def mask_loss(scores: Any, masks: Any, config: MaskConfig, ops: perturbations.Ops = perturbations.NUMPY_OPS) -> Any:
    """Returns Eq. 1 [N] of class scores F_c [N] under masks [N, T]."""
    length = (abs(masks) @ ops.constant(np.ones((masks.shape[1], 1)), masks))[:, 0]
    variation = total_variation(masks, config.beta, config.compat, ops)
    return config.lambda_1 * length + config.lambda_2 * variation + scores


def adam_corrections(step: int) -> tuple[float, float]:
    """Returns Adam's bias corrections of its running mean and square in step 1, 2, 3 and so on."""
    # In float64, whatever the mask's dtype: 1 - 0.999 in float32 is off by 6e-5 of itself.
    return 1 - _ADAM_BETA_1**step, 1 - _ADAM_BETA_2**step


def adam_step(
    state: tuple[Any, Any, Any], gradient: Any, corrections: tuple[Any, Any], learning_rate: float
) -> tuple[Any, Any, Any]:
    """Takes one step of Adam (Kingma & Ba 2015) as PyTorch defines it (D8); elementwise, so clips do not meet.

    Args:
      state: what is learnt, and running means of its gradient and the gradient's square, at first 0; any one shape.
      gradient: of the loss in what is learnt.
      corrections: of this step (see `adam_corrections`).
      learning_rate: of this step.

    Returns:
      The state after the step.
    """
    values, mean, square = state
    mean = _ADAM_BETA_1 * mean + (1 - _ADAM_BETA_1) * gradient
    square = _ADAM_BETA_2 * square + (1 - _ADAM_BETA_2) * gradient * gradient
    root = (square / corrections[1]) ** 0.5
    return values - learning_rate * (mean / corrections[0]) / (root + _ADAM_EPSILON), mean, square


def snap(masks: np.ndarray) -> np.ndarray:
    """Returns masks as 0 and 1, uint8 of the same shape: 1 above 0.5."""
    return (np.asarray(masks) > SNAP_THRESHOLD).astype(np.uint8)


def coherent_runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns the maximal runs of ones of a snapped mask [T] as (start, stop), stop excluded."""
    padded = np.concatenate([[0], np.asarray(mask) != 0, [0]]).astype(int)
    edges = np.diff(padded)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def interval_mask(start: int, stop: int, time: int) -> np.ndarray:
    """Returns the mask, float64 [T], that is 1 in frames start…stop - 1."""
    places = np.arange(time)
    return ((places >= start) & (places < stop)).astype(float)


def intervals(time: int) -> list[tuple[int, int]]:
    """Returns all T (T + 1) / 2 intervals (start, stop), stop excluded, shortest first, then earliest."""
    return [(start, start + length) for length in range(1, time + 1) for start in range(time - length + 1)]


def centred_windows(time: int) -> list[tuple[int, int]]:
    """Returns the windows centred in time, longest (all frames) first: each loses a frame at either end."""
    return [(i, time - i) for i in range((time + 1) // 2)]


class Scorer(Protocol):
    """What a framework brings: N clips, each with a target class, under any masks."""

    num_clips: int
    time: int

    def scores(self, clips: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        """Returns F_c, float64 [M], of clips, int [M] (which of the N), under masks, float [M, T]."""

    def descend(self, clips: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns learnt masks [M, T] and loss traces [M, iterations] of clips [M] from mask logits [M, T]."""


@dataclasses.dataclass(frozen=True)
class LearntMasks:
    """What the search found for N clips. Scores are probabilities of the target class.

    Attributes:
      masks: float64 [N, T], 1 means perturbed.
      losses: float64 [N, iterations], Eq. 1 before each step.
      final_loss: float64 [N], Eq. 1 of `masks`.
      scores: name -> float64 [N]: "OS" of the clean clip; "FS" and "RS" under the mask with freeze and reverse;
        "FS_snapped" and "RS_snapped" under the snapped mask; "S" under the mask with the kind it was learnt with.
    """

    masks: np.ndarray
    losses: np.ndarray
    final_loss: np.ndarray
    scores: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class BestIntervals:
    """The exact optimum of Eq. 1 among all masks that are one interval of ones (the oracle), for N clips.

    Attributes:
      intervals: int64 [N, 2], first frame and the one after the last.
      losses: float64 [N], Eq. 1 of the best interval.
      scores: float64 [N, T (T + 1) / 2], F_c under every interval in the order of `intervals(T)`; the search over
        sub-sequences of Satkin & Hebert (2010), with a perturbation in place of cropping.
    """

    intervals: np.ndarray
    losses: np.ndarray
    scores: np.ndarray

    def masks(self, time: int) -> np.ndarray:
        """Returns the best intervals as masks, float64 [N, T]."""
        return np.stack([interval_mask(start, stop, time) for start, stop in self.intervals])


def best_intervals(scorer: Scorer, config: MaskConfig) -> BestIntervals:
    """Tries every interval on every clip. Masks that do the same to a clip are scored once.

    Args:
      scorer: the clips.
      config: kind, weights and compat count.
    """
    places = intervals(scorer.time)
    masks = np.stack([interval_mask(*place, scorer.time) for place in places])
    scores = _scores_of_all(scorer, masks, config.kind)
    losses = np.stack([mask_loss(row, masks, config) for row in scores])
    best = losses.argmin(axis=1)  # Of equals the first: the shortest, then the earliest.
    return BestIntervals(np.array(places)[best], losses[np.arange(len(best)), best], scores)


def initial_masks(scorer: Scorer, config: MaskConfig) -> np.ndarray:
    """Returns the paper's first masks, float64 [N, T] of 0 and 1: "centered at the middle of the sequence".

    It is the smallest centred window that keeps 90 % of the drop of the full mask; the middle half of time where the
    full mask causes no drop. With compat "released": of ever smaller windows the first that fails to (D14).

    Args:
      scorer: the clips.
      config: kind and compat count.
    """
    windows = np.stack([interval_mask(*window, scorer.time) for window in centred_windows(scorer.time)])
    scores = _scores_of_all(scorer, np.concatenate([np.zeros_like(windows[:1]), windows]), config.kind)
    drops = scores[:, :1] - scores[:, 1:]  # Longest window first: column 0 is the full mask's.
    keeps = drops >= KEPT_DROP * drops[:, :1]
    last = len(windows) - 1
    if config.compat == "released":
        chosen = np.where(keeps.all(axis=1), last, keeps.argmin(axis=1))
    else:
        chosen = last - keeps[:, ::-1].argmax(axis=1)
    quarter = scorer.time // 4 or (scorer.time - 1) // 2
    middle = interval_mask(quarter, scorer.time - quarter, scorer.time)
    return np.where(drops[:, :1] > 0, windows[chosen], middle)


def learn_masks(
    scorer: Scorer, config: MaskConfig, oracle: BestIntervals | None = None, first: np.ndarray | None = None
) -> LearntMasks:
    """Learns a mask for each clip and scores it.

    Args:
      scorer: the clips.
      config: how.
      oracle: what `best_intervals` found, where the caller has it already and the start needs it.
      first: masks of 0 and 1, [N, T], to start from instead of what the config says.
    """
    if oracle is None and first is None and config.start != "centred":
        oracle = best_intervals(scorer, config)
    starts = _starts(scorer, config, oracle) if first is None else [first]
    number = np.arange(scorer.num_clips)
    tried = np.tile(number, len(starts))
    masks, losses = scorer.descend(tried, START_LOGIT * (2 * np.concatenate(starts) - 1))
    final = mask_loss(scorer.scores(tried, masks, config.kind), masks, config)
    if first is None and config.start == "multi" and oracle is not None:
        masks = np.concatenate([masks, oracle.masks(scorer.time)])
        losses, final = np.concatenate([losses, losses[-scorer.num_clips :]]), np.concatenate([final, oracle.losses])
    best = final.reshape(-1, scorer.num_clips).argmin(axis=0) * scorer.num_clips + number
    masks, losses, final = masks[best], losses[best], final[best]
    snapped = snap(masks).astype(float)
    asked = {
        "OS": (np.zeros_like(masks), config.kind),
        "FS": (masks, "freeze"),
        "RS": (masks, "reverse"),
        "FS_snapped": (snapped, "freeze"),
        "RS_snapped": (snapped, "reverse"),
        "S": (masks, config.kind),
    }
    return LearntMasks(masks, losses, final, {k: scorer.scores(number, *value) for k, value in asked.items()})


def _starts(scorer: Scorer, config: MaskConfig, oracle: BestIntervals | None) -> list[np.ndarray]:
    """Returns one or two first masks [N, T] of 0 and 1, the oracle's last."""
    starts = [] if config.start == "oracle" else [initial_masks(scorer, config)]
    return starts if oracle is None or config.start == "centred" else [*starts, oracle.masks(scorer.time)]


def _scores_of_all(scorer: Scorer, masks: np.ndarray, kind: str) -> np.ndarray:
    """Returns F_c [N, M] of every clip under every mask [M, T]; masks of equal effect are scored once."""
    matrices = perturbations.matrix(masks, kind).reshape(len(masks), -1)
    _, first, which = np.unique(matrices, axis=0, return_index=True, return_inverse=True)
    pairs = np.array(list(itertools.product(range(scorer.num_clips), first)))
    scores = scorer.scores(pairs[:, 0], masks[pairs[:, 1]], kind)
    return scores.reshape(scorer.num_clips, -1)[:, which.reshape(-1)]


def check_clips(shape: tuple[int, ...], targets: np.ndarray) -> np.ndarray:
    """Returns targets as int64 [N]; refuses clips that are not [N, T, …], or other targets."""
    targets = np.asarray(targets)
    if len(shape) < 3 or min(shape[:2]) < 1 or targets.shape != tuple(shape[:1]) or targets.dtype.kind not in "iu":
        raise errors.UserError(
            "Clips are [N, T, H, W, C] and targets N class indices. "
            f"Received: {tuple(shape)} and {targets.dtype} {targets.shape}"
        )
    return targets.astype(np.int64)


def check_probabilities(probabilities: np.ndarray, targets: np.ndarray) -> None:
    """Refuses what cannot be class probabilities [1, K] of a clip, and targets that are none of the K classes."""
    if probabilities.ndim != 2 or len(probabilities) != 1:
        raise errors.UserError(f"A model returns probabilities [N, K]. Received: {probabilities.shape} for one clip")
    low, high = probabilities.min(), probabilities.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise errors.UserError(f"A model returns probabilities, 0…1 (softmax of logits). Received: {low:g}…{high:g}")
    if not (targets.min() >= 0 and targets.max() < probabilities.shape[1]):
        raise errors.UserError(
            f"Targets are classes 0…{probabilities.shape[1] - 1}. Received: {targets.min()}…{targets.max()}"
        )


def check_gradient(exists: bool) -> None:
    """Refuses a score that has no gradient: the mask would follow its own cost alone, and vanish without a word."""
    if not exists:
        raise errors.UserError("A model's probabilities must be differentiable in the clips. Received: no gradient")


def check_finite(values: np.ndarray, what: str) -> np.ndarray:
    """Returns values; refuses them if one is not finite, and names the first row."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise errors.UserError(f"{what} must be finite. Received: {values[tuple(bad[0])]} in row {bad[0][0]}")
    return values
