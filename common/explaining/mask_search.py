"""Learning a temporal mask (section 3.1): where the search starts, its descent by Adam, the exact oracle, the result.

No function here knows a model: each build implements a `Scorer`, which holds one model, N clips and their target
classes, and the functions of this module are called with it:

    scorer = temporal_mask.MaskSearch(score_fn, config).on(clips, targets)   # torch_impl or tf_impl
    oracle = best_intervals(scorer, config)
    learnt = learn_masks(scorer, config, oracle)

`adam_step` is made of operators that NumPy, PyTorch and TensorFlow share, as Eq. 1 in `masks` is.
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

from common import errors
from common.explaining import perturbations
from common.explaining.masks import (
    MaskConfig,
    centred_windows,
    interval_mask,
    intervals,
    mask_loss,
    snap,
)

START_LOGIT = 5.0  # The search starts at a mask of sigmoid(5) = 0.993 inside its window and 0.007 outside.
KEPT_DROP = 0.9  # The first window keeps this share of the drop that the full mask causes.
_ADAM_BETA_1, _ADAM_BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8  # Epsilon is added after the bias correction (D8).


class Scorer(Protocol):
    """One model, N clips and a target class for each; implemented by each build.

    `clip_indices`, int [M], say for each of M masks which of the N clips it is for.
    """

    num_clips: int
    time: int

    def scores(self, clip_indices: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        """Returns F_c, float64 [M], of clips under masks, float [M, T], perturbed with a kind of `perturbations`."""

    def gradient(self, clip_indices: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns Eq. 1, float64 [M], of masks, float [M, T], and its gradient with respect to them, float64 [M, T]."""

    def descend(self, clip_indices: np.ndarray, start_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the steps of Adam from mask logits, float [M, T].

        Returns:
          The masks at the end, float64 [M, T], and Eq. 1 before each step, float64 [M, iterations].
        """


def adam_corrections(step: int) -> tuple[float, float]:
    """Returns Adam's bias corrections of its running mean and square in step 1, 2, 3 and so on."""
    # In float64, whatever the mask's dtype: 1 - 0.999 in float32 has a relative error of 6e-5.
    return 1 - _ADAM_BETA_1**step, 1 - _ADAM_BETA_2**step


def adam_step(
    state: tuple[Any, Any, Any], gradient: Any, corrections: tuple[Any, Any], learning_rate: float
) -> tuple[Any, Any, Any]:
    """Takes one step of Adam (Kingma & Ba 2015) as PyTorch defines it (D8); elementwise, so clips are independent.

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


@dataclasses.dataclass(frozen=True)
class LearntMasks:
    """What the search found for N clips. Scores are probabilities of the target class (D15).

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
    full mask causes no drop. With compat "released" it is chosen as the released code does (D14).

    Args:
      scorer: the clips.
      config: kind and compat count.
    """
    windows = np.stack([interval_mask(*window, scorer.time) for window in centred_windows(scorer.time)])
    scores = _scores_of_all(scorer, np.concatenate([np.zeros_like(windows[:1]), windows]), config.kind)
    drops = scores[:, :1] - scores[:, 1:]  # Longest window first: column 0 is the full mask's.
    if config.compat == "released":
        return windows[_released_windows(scorer, scores[:, 0], drops)]
    keeps = drops >= KEPT_DROP * drops[:, :1]
    chosen = len(windows) - 1 - keeps[:, ::-1].argmax(axis=1)
    quarter = scorer.time // 4 or (scorer.time - 1) // 2
    middle = interval_mask(quarter, scorer.time - quarter, scorer.time)
    return np.where(drops[:, :1] > 0, windows[chosen], middle)


def _released_windows(scorer: Scorer, original: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """Returns which window the released code starts from, int [N] (D14).

    Of the windows that lack 1, 2 … T // 2 - 1 frames at either end it takes the first whose share of the full mask's
    drop is below 90 %, or the last. The full mask freezes, whatever the kind; drops below 0 are divided too.
    """
    full = _scores_of_all(scorer, np.ones((1, scorer.time)), "freeze")
    tried = drops[:, 1 : scorer.time // 2]
    if not tried.size:
        return np.zeros(len(drops), int)
    with np.errstate(divide="ignore", invalid="ignore"):
        fails = tried / (original[:, None] - full) < KEPT_DROP
    return 1 + np.where(fails.any(axis=1), fails.argmax(axis=1), tried.shape[1] - 1)


def learn_masks(
    scorer: Scorer, config: MaskConfig, oracle: BestIntervals | None = None, start_masks: np.ndarray | None = None
) -> LearntMasks:
    """Learns a mask for each clip and scores it.

    Args:
      scorer: N clips.
      config: how masks are learnt.
      oracle: what `best_intervals` found, where the caller has it already and the start needs it.
      start_masks: of 0 and 1, float [N, T], to start from instead of where the config says.
    """
    if start_masks is None:
        if oracle is None and config.start != "centred":
            oracle = best_intervals(scorer, config)
        starts = _starts(scorer, config, oracle)
    else:
        starts = start_masks[None]
    num_starts, num_clips, time = starts.shape
    # Every clip from every start: S N independent descents.
    clip_indices = np.tile(np.arange(num_clips), num_starts)
    ends, traces = scorer.descend(clip_indices, START_LOGIT * (2 * starts.reshape(-1, time) - 1))
    losses = mask_loss(scorer.scores(clip_indices, ends, config.kind), ends, config)
    ends, traces, losses = (
        ends.reshape(starts.shape),
        traces.reshape(num_starts, num_clips, -1),
        losses.reshape(num_starts, num_clips),
    )
    if start_masks is None and config.start == "multi" and oracle is not None:
        # The oracle's interval itself competes. No descent led to it, so a clip for which it wins keeps the trace of
        # the descent that began there, the last one.
        ends = np.concatenate([ends, starts[-1:]])
        traces, losses = np.concatenate([traces, traces[-1:]]), np.concatenate([losses, oracle.losses[None]])
    clips = np.arange(num_clips)
    best = losses.argmin(axis=0)  # Of equals the first: the paper's start before the oracle's.
    masks = ends[best, clips]
    snapped = snap(masks).astype(float)
    scores = {
        "OS": scorer.scores(clips, np.zeros_like(masks), config.kind),
        "FS": scorer.scores(clips, masks, "freeze"),
        "RS": scorer.scores(clips, masks, "reverse"),
        "FS_snapped": scorer.scores(clips, snapped, "freeze"),
        "RS_snapped": scorer.scores(clips, snapped, "reverse"),
        "S": scorer.scores(clips, masks, config.kind),
    }
    return LearntMasks(masks, traces[best, clips], losses[best, clips], scores)


def _starts(scorer: Scorer, config: MaskConfig, oracle: BestIntervals | None) -> np.ndarray:
    """Returns the masks of 0 and 1 that the config starts from, float64 [S, N, T], S = 1 or 2, the oracle's last."""
    starts = [] if config.start == "oracle" else [initial_masks(scorer, config)]
    if oracle is not None and config.start != "centred":
        starts.append(oracle.masks(scorer.time))
    return np.stack(starts)


def _scores_of_all(scorer: Scorer, masks: np.ndarray, kind: str) -> np.ndarray:
    """Returns F_c [N, M] of every clip under every mask [M, T]; masks of equal effect are scored once."""
    # Frame 0 cannot freeze and a frame alone is its own reversal, so different masks may have one matrix.
    matrices = perturbations.matrix(masks, kind).reshape(len(masks), -1)
    _, representative, which = np.unique(matrices, axis=0, return_index=True, return_inverse=True)
    clip_indices = np.repeat(np.arange(scorer.num_clips), len(representative))
    tried = np.tile(masks[representative], (scorer.num_clips, 1))
    scores = scorer.scores(clip_indices, tried, kind).reshape(scorer.num_clips, -1)
    return scores[:, which.reshape(-1)]


def check_clips(shape: tuple[int, ...], targets: Any) -> np.ndarray:
    """Returns targets as int64 [N]; refuses clips that are not [N, T, …], or other targets."""
    targets = np.asarray(targets)
    if len(shape) < 3 or min(shape[:2]) < 1 or targets.shape != tuple(shape[:1]) or targets.dtype.kind not in "iu":
        raise errors.UserError(
            "Clips must be [N, T, H, W, C] and targets N class indices. "
            f"Received: {tuple(shape)} and {targets.dtype} {targets.shape}"
        )
    return targets.astype(np.int64)


def check_finite(values: np.ndarray, what: str) -> np.ndarray:
    """Returns values; refuses them if one is not finite, and names the first row."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise errors.UserError(f"{what} must be finite. Received: {values[tuple(bad[0])]} in row {bad[0][0]}")
    return values
