"""Learning a temporal mask (section 3.1): where the search starts, how it descends, the result.

No function here knows a model: each build implements a `scorer.Scorer`, which holds one model, N clips and their target
classes, and the functions of this module are called with it:

    scorer = temporal_mask.MaskSearch(score_fn, config).on(clips, targets)   # torch_impl or tf_impl
    oracle = best_intervals(scorer, config)
    learnt = learn_masks(scorer, config, oracle)

The paper's way is Adam (`Scorer.descend`); the others are in `descent` (soft masks) and `binary_masks` (hard ones).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import errors
from common.explaining import binary_masks, descent
from common.explaining import scorer as scoring
from common.explaining.binary_masks import BestIntervals, best_intervals
from common.explaining.masks import (
    MaskConfig,
    centred_windows,
    interval_mask,
    interval_masks,
    mask_loss,
    perturbed_part,
    shortfall,
    snap,
)
from common.explaining.scorer import Scorer

START_LOGIT = 5.0  # The search starts at a mask of sigmoid(5) = 0.993 inside its window and 0.007 outside.
_ROUNDING = 1e-12  # Of float64: a drop of just 90 % is one in either game.
KEPT_DROP = 0.9  # The first window keeps this share of what the full mask takes off the shortfall.


@dataclasses.dataclass(frozen=True)
class LearntMasks:
    """What the search found for N clips. Scores are probabilities of the target class (D15).

    Attributes:
      masks: float64 [N, T], 1 means perturbed, or kept in the game "preserve".
      losses: float64 [N, iterations], Eq. 1 before each step of Adam. Searches that end earlier have NaN on the right:
        the smallest loss after each evaluation until it has converged; a hard mask's before each flip and at the end.
      final_loss: float64 [N], Eq. 1 of `masks`.
      scores: name -> float64 [N]: "OS" of the clean clip; "FS" and "RS" with what the game perturbs frozen and
        reversed; "FS_snapped" and "RS_snapped" the same under the snapped mask; "S" under the mask with the kind it was
        learnt with.
    """

    masks: np.ndarray
    losses: np.ndarray
    final_loss: np.ndarray
    scores: dict[str, np.ndarray]


def initial_masks(scorer: Scorer, config: MaskConfig) -> np.ndarray:
    """Returns the paper's first masks, float64 [N, T] of 0 and 1: "centered at the middle of the sequence".

    It is the smallest centred window that keeps 90 % of the drop of the full mask; the middle half of time where the
    full mask causes no drop. With compat "released" it is chosen as the released code does (D14).

    The drop is of the `shortfall` from the empty mask on: in the game "preserve" a window keeps 90 % of what perturbing
    every frame takes from the score.

    Args:
      scorer: the clips.
      config: kind, compat and game count.
    """
    windows = interval_masks(centred_windows(scorer.time), scorer.time)
    scores = _scores_of_all(scorer, np.concatenate([np.zeros_like(windows[:1]), windows]), config)
    shortfalls = shortfall(scores, config.game)  # [N, 1 + windows], the empty mask's first.
    drops = shortfalls[:, :1] - shortfalls[:, 1:]  # Longest window first: column 0 is the full mask's.
    if config.compat == "released":
        return windows[_released_windows(scorer, scores[:, 0], drops)]
    keeps = drops >= KEPT_DROP * drops[:, :1] - _ROUNDING
    chosen = len(windows) - 1 - keeps[:, ::-1].argmax(axis=1)
    quarter = scorer.time // 4 or (scorer.time - 1) // 2
    middle = interval_mask(quarter, scorer.time - quarter, scorer.time)
    return np.where(drops[:, :1] > 0, windows[chosen], middle)


def _released_windows(scorer: Scorer, original: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """Returns which window the released code starts from, int [N] (D14).

    Of the windows that lack 1, 2 … T // 2 - 1 frames at either end it takes the first whose share of the full mask's
    drop is below 90 %, or the last. The full mask freezes, whatever the kind; drops below 0 are divided too.
    """
    full = _scores_of_all(scorer, np.ones((1, scorer.time)), MaskConfig(kind="freeze"))
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
    scorer = scoring.remembering(scorer)
    needs_oracle = config.start != "centred" or config.form == "hard"
    if start_masks is None:
        if oracle is None and needs_oracle:
            oracle = best_intervals(scorer, config)
        starts = _starts(scorer, config, oracle)
    else:
        starts = start_masks[None]
    clips = np.arange(scorer.num_clips)
    ends, traces = _search(scorer, config, starts)
    losses = np.stack([mask_loss(_scores(scorer, clips, masks, config), masks, config) for masks in ends])
    if start_masks is None and config.start == "multi" and config.form == "soft" and oracle is not None:
        # The oracle's interval itself competes. No descent led to it, so a clip for which it wins keeps the trace of
        # the descent that began there, the last one.
        ends = np.concatenate([ends, starts[-1:]])
        traces, losses = np.concatenate([traces, traces[-1:]]), np.concatenate([losses, oracle.losses[None]])
    best = losses.argmin(axis=0)  # Of equals the first: the paper's start before the oracle's.
    masks = ends[best, clips]
    soft, snapped = (perturbed_part(part, config.game) for part in (masks, snap(masks).astype(float)))
    scores = {
        "OS": scorer.scores(clips, np.zeros_like(masks), config.kind),
        "FS": scorer.scores(clips, soft, "freeze"),
        "RS": scorer.scores(clips, soft, "reverse"),
        "FS_snapped": scorer.scores(clips, snapped, "freeze"),
        "RS_snapped": scorer.scores(clips, snapped, "reverse"),
        "S": scorer.scores(clips, soft, config.kind),
    }
    return LearntMasks(masks, traces[best, clips], losses[best, clips], scores)


def _search(scorer: Scorer, config: MaskConfig, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Searches from masks [S, N, T] of 0 and 1; only where it stops when converged may their values lie between.

    Returns:
      The ends, [S, N, T], and their traces, [S, N, iterations]; of hard masks, and where it stops when converged, all
      starts have one end (S = 1).
    """
    if config.form == "hard":

        def losses(clip_indices: np.ndarray, masks: np.ndarray) -> np.ndarray:
            return mask_loss(_scores(scorer, clip_indices, masks, config), masks, config)

        (start,) = starts
        return _padded(scoring.in_step([binary_masks.flip_frames(mask, config) for mask in start], losses), config)
    if config.stop == "converged":

        def losses_and_gradients(clip_indices: np.ndarray, masks: np.ndarray) -> np.ndarray:
            loss, gradient = scorer.gradient(clip_indices, masks)
            return np.concatenate([loss[:, None], gradient], axis=1)

        # A clip alone fills a batch with its starts. Of many clips each asks for one mask at a time, so that the batch
        # is the same clips in every round, and the scorer need not prepare them again.
        alone = scorer.num_clips == 1
        searches = [descent.quasi_newton(several, config.iterations, alone) for several in starts.swapaxes(0, 1)]
        return _padded(scoring.in_step(searches, losses_and_gradients), config)
    # Every clip from every start: S N independent descents.
    num_starts, num_clips, time = starts.shape
    logits = START_LOGIT * (2 * starts.reshape(-1, time) - 1)
    ends, traces = scorer.descend(np.tile(np.arange(num_clips), num_starts), logits)
    return ends.reshape(starts.shape), traces.reshape(num_starts, num_clips, -1)


def _scores(scorer: Scorer, clip_indices: np.ndarray, masks: np.ndarray, config: MaskConfig) -> np.ndarray:
    return scorer.scores(clip_indices, perturbed_part(masks, config.game), config.kind)


def _padded(found: Sequence[tuple[np.ndarray, np.ndarray]], config: MaskConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns masks [1, N, T] and traces [1, N, iterations] of searches of different lengths."""
    traces = np.full((len(found), config.iterations), np.nan)
    for row, (_, trace) in zip(traces, found, strict=True):
        row[: len(trace)] = trace[: config.iterations]
    return np.stack([mask for mask, _ in found])[None], traces[None]


def _starts(scorer: Scorer, config: MaskConfig, oracle: BestIntervals | None) -> np.ndarray:
    """Returns the masks that the config starts from, float64 [S, N, T], S = 1 or 2, the oracle's last."""
    start = "oracle" if config.form == "hard" else config.start
    starts = []
    if start == "multi" and config.stop == "converged" and config.game == "preserve":
        # Half of everything kept still shows the event: no window needs to be found, and no value is held at a bound.
        starts.append(np.full((scorer.num_clips, scorer.time), 0.5))
    elif start != "oracle":
        starts.append(initial_masks(scorer, config))
    if oracle is not None and start != "centred":
        best = oracle.masks(scorer.time)
        if starts and config.stop == "converged":
            same = (starts[0] == best).all(axis=1)  # The window is the best interval: they would be one start.
            starts[0][same] = binary_masks.next_best(oracle, scorer.time, config)[same]
        starts.append(best)
    return np.stack(starts)


def _scores_of_all(scorer: Scorer, masks: np.ndarray, config: MaskConfig) -> np.ndarray:
    """Returns F_c [N, M] of every clip under every mask [M, T] in the game."""
    clip_indices = np.repeat(np.arange(scorer.num_clips), len(masks))
    tried = np.tile(perturbed_part(masks, config.game), (scorer.num_clips, 1))
    return scoring.remembering(scorer).scores(clip_indices, tried, config.kind).reshape(scorer.num_clips, -1)


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
