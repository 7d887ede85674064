"""Temporal masks as values (section 3.1): how they are learnt (`MaskConfig`), their cost (Eq. 1), how they are read.

A mask m is [T] in [0, 1], 1 marks the frames that it names. Eq. 1 is lambda_1 |m|_1 + lambda_2 TV(m) + F_c, with the
total variation TV(m) = Σ_t |m_(t+1) - m_t|^beta and F_c the probability of the target class for the perturbed clip.

That is one of two games (Fong & Vedaldi 2017, arXiv:1704.03296, there over pixels). In the paper's, "delete", m is
perturbed: the fewest frames without which the class is lost. In "preserve" all else, 1 - m, is perturbed: the fewest
frames that keep the class, and what F_c lacks of 1 takes its place in Eq. 1.

The functions of Eq. 1 are made of operators that NumPy, PyTorch and TensorFlow share: the same lines run in all three.
The search is `mask_search`.
"""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped, UInt8
from numpy.typing import ArrayLike

from common import errors
from common.explaining import perturbations

COMPATS = ("paper", "released")
ENDS = ("free", "counted")
GAMES = ("delete", "preserve")
FORMS = ("soft", "hard")
ORACLES = ("full", "coarse")
STOPS = ("iterations", "converged")
STARTS = ("centred", "oracle", "multi")
SNAP_THRESHOLD = 0.5


_CHOICES = {
    "start": STARTS,
    "compat": COMPATS,
    "game": GAMES,
    "ends": ENDS,
    "form": FORMS,
    "oracle": ORACLES,
    "stop": STOPS,
}


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
        smallest loss counts, so it is never worse than the oracle; D16; with stop "converged", the game "preserve"
        starts from a mask of halves in place of the window, D20). Hard masks always start at the oracle's.
      compat: "paper", or "released" for what the released code does instead (D13, D14); it can only delete.
      form: "soft" (the paper's: values between 0 and 1, by descent) or "hard" (0 and 1: the oracle's interval, then
        single flips of frames; D19; see `binary_masks`).
      area: number of frames of a hard mask; 0 for as many as Eq. 1 finds worth their cost.
      oracle: whether the best interval is sought among all ("full") or from coarse to fine ("coarse").
      stop: whether a soft mask takes all iterations of Adam ("iterations", the paper's) or goes down by quasi-Newton
        steps until it has converged, after as many losses and gradients at most ("converged"; D20; see `descent`).
      game: "delete" (the mask is perturbed, and the score should fall) or "preserve" (all else is, and it should stay;
        D19).
      ends: whether a mask may begin and end with the clip for nothing ("free", the paper's), or the total variation
        counts a step from 0 to the first frame and one from the last to 0 ("counted", so that Eq. 1 of an interval does
        not depend on where in the clip it lies; D21).
    """

    kind: str = "freeze"
    lambda_1: float = 0.01
    lambda_2: float = 0.02
    beta: float = 3.0
    iterations: int = 300
    learning_rate: float = 0.2
    start: str = "centred"
    compat: str = "paper"
    game: str = "delete"
    form: str = "soft"
    area: int = 0
    oracle: str = "full"
    stop: str = "iterations"
    ends: str = "free"

    def __post_init__(self) -> None:
        perturbations.find(self.kind)
        for name, choices in _CHOICES.items():
            errors.check_choice(name, getattr(self, name), choices)
        allowed = (self.lambda_1 >= 0, self.lambda_2 >= 0, self.beta >= 1, self.learning_rate > 0)
        values = (self.lambda_1, self.lambda_2, self.beta, self.learning_rate)
        if not all(allowed) or not all(map(math.isfinite, values)):
            raise errors.UserError(
                "lambda_1 and lambda_2 must be at least 0, beta at least 1, learning_rate above 0. Received: "
                f"{', '.join(map(str, values))}"
            )
        for name in ("iterations", "area"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                raise errors.UserError(f"{name} must be a whole number. Received: {value!r}")
        if self.iterations < 1:
            raise errors.UserError(f"iterations must be at least 1. Received: {self.iterations}")
        if self.compat == "released" and self.game != "delete":
            raise errors.UserError(f"compat must be 'paper' for the game {self.game!r}. Received: 'released'")
        if self.compat == "released" and self.ends != "free":
            raise errors.UserError(f"compat must be 'paper' where ends are {self.ends!r}. Received: 'released'")
        if self.area < 0 or (self.area and self.form != "hard"):
            raise errors.UserError(
                f"area must be at least 0, and 0 unless form is 'hard'. Received: {self.area} with {self.form!r}"
            )


# For one clip that somebody waits for: from the paper's window and the best interval, until the mask has converged, and
# an oracle from coarse to fine. A fraction of the evaluations that the paper's 300 steps of Adam take.
FAST = MaskConfig(start="multi", stop="converged", oracle="coarse")


def perturbed_part(masks: Float[Any, "N T"], game: str) -> Float[Any, "N T"]:
    """Returns the masks to perturb with, 1 means perturbed: m, or 1 - m in the game "preserve"."""
    return 1 - masks if game == "preserve" else masks


def shortfall(scores: Float[Any, "*shape"], game: str) -> Float[Any, "*shape"]:
    """Returns how far class scores F_c are from where the game wants them: F_c, or 1 - F_c in "preserve"."""
    return 1 - scores if game == "preserve" else scores


def difference_weights(time: int, compat: str) -> Float64[np.ndarray, " {time}-1"]:
    """Returns how often each difference m_(t+1) - m_t counts in the total variation.

    Once; in the released code twice, except the first and the last (D13).
    """
    weights = np.ones(time - 1)
    if compat == "released":
        weights[1:-1] = 2
    return weights


def total_variation(
    masks: Float[Any, "N T"], config: MaskConfig, ops: perturbations.Ops = perturbations.NUMPY_OPS
) -> Float[Any, " N"]:
    """Returns TV(m) of masks: arrays of NumPy, or of the framework that `ops` is for; beta, compat and ends count."""
    weights = ops.constant(difference_weights(masks.shape[1], config.compat)[:, None], masks)
    within = (abs(masks[:, 1:] - masks[:, :-1]) ** config.beta @ weights)[:, 0]
    if config.ends == "free":
        return within
    return within + abs(masks[:, 0]) ** config.beta + abs(masks[:, -1]) ** config.beta


def mask_cost(
    masks: Float[Any, "N T"], config: MaskConfig, ops: perturbations.Ops = perturbations.NUMPY_OPS
) -> Float[Any, " N"]:
    """Returns what masks cost in Eq. 1 whatever the score: lambda_1 |m|_1 + lambda_2 TV(m)."""
    length = (abs(masks) @ ops.constant(np.ones((masks.shape[1], 1)), masks))[:, 0]
    return config.lambda_1 * length + config.lambda_2 * total_variation(masks, config, ops)


def mask_loss(
    scores: Float[Any, " N"],
    masks: Float[Any, "N T"],
    config: MaskConfig,
    ops: perturbations.Ops = perturbations.NUMPY_OPS,
) -> Float[Any, " N"]:
    """Returns Eq. 1: `mask_cost` + `shortfall`.

    Args:
      scores: F_c of clips whose frames are perturbed by `perturbed_part` of the mask.
      masks: arrays of NumPy, or of the framework that `ops` is for.
      config: weights, power of the total variation, compat, ends, game.
      ops: of the arrays.
    """
    return mask_cost(masks, config, ops) + shortfall(scores, config.game)


def snap(masks: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Returns masks as 0 and 1: 1 above 0.5."""
    return (np.asarray(masks) > SNAP_THRESHOLD).astype(np.uint8)


def coherent_runs(mask: Shaped[np.ndarray, " T"]) -> list[tuple[int, int]]:
    """Returns the maximal runs of ones of a snapped mask as (start, stop), stop excluded."""
    padded = np.concatenate([[0], np.asarray(mask) != 0, [0]]).astype(int)
    edges = np.diff(padded)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def interval_mask(start: int | np.integer, stop: int | np.integer, time: int) -> Float64[np.ndarray, " {time}"]:
    """Returns the mask that is 1 in frames start…stop - 1."""
    return interval_masks([(int(start), int(stop))], time)[0]


def interval_masks(places: ArrayLike, time: int) -> Float64[np.ndarray, "M {time}"]:
    """Returns the masks of M intervals (start, stop), int [M, 2]: row i is 1 in frames start…stop - 1 of interval i."""
    starts, stops = np.asarray(places).T[:, :, None]  # [M, 1] each.
    return ((np.arange(time) >= starts) & (np.arange(time) < stops)).astype(float)


def intervals(time: int) -> list[tuple[int, int]]:
    """Returns all T (T + 1) / 2 intervals (start, stop), stop excluded, shortest first, then earliest."""
    return [(start, start + length) for length in range(1, time + 1) for start in range(time - length + 1)]


def centred_windows(time: int) -> list[tuple[int, int]]:
    """Returns the windows centred in time, longest (all frames) first: each loses a frame at either end."""
    return [(i, time - i) for i in range((time + 1) // 2)]
