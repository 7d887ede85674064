"""How a soft mask descends Eq. 1: by the paper's steps of Adam, or by quasi-Newton steps until it has converged.

`adam_step` is made of operators that NumPy, PyTorch and TensorFlow share, as Eq. 1 in `masks` is: it is compiled into
each build's step. The quasi-Newton descent is NumPy alone. It is written for one clip, and the clips take its steps
together (`scorer.in_step`); a clip that has converged leaves the batch.
"""

import math
from typing import Any

import numpy as np

from common.explaining.scorer import Search, side_by_side

_ADAM_BETA_1, _ADAM_BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8  # Epsilon is added after the bias correction (D8).
_FIRST_STEP = 0.3  # How far the first step moves the value whose slope is steepest.
# A descent stops at a step that promises to lower the loss by less than this share of it: in the end, and before that
# in the two rounds of the race between several starts.
_PROMISE = 1e-4
_RACE = (5e-3, 1e-3)
# Which starts stay in the race after a round, beside the lowest: masks that differ from its by more than this in a
# value and, after the second round, losses that are within this share of its.
_ELSEWHERE, _CLOSE = 0.25, 0.05
_NUDGE = 0.1  # How far from the end of the first descent the second look begins, in each value that is free.
_ARMIJO = 1e-4  # Share of what the slope alone would gain that a step must gain (Armijo's condition).
_SMALLEST_STEP = 1e-3  # Share of a step below which the line search gives up.
_EDGE = 1e-5  # How near values come to 0 and 1: as Adam's sigmoids do; exactly there a score may have a kink.


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


def quasi_newton(
    starts: np.ndarray, max_evaluations: int, together: bool = False
) -> Search[tuple[np.ndarray, np.ndarray]]:
    """Descends Eq. 1 by quasi-Newton steps (see `_Descent`) until the next one promises next to nothing.

    Several starts race. All descend until a step promises little, then those that may still win until it promises
    less, and of these those that still may to the end. Where the lowest ends, the loss is often flat or has a saddle,
    which its matrix, made from the steps taken, does not show. So there is a second look: all values that are free are
    nudged towards the middle, and from there it descends again with a new matrix. The lower of both ends counts.

    Args:
      starts: masks [S, T].
      max_evaluations: number of losses and gradients asked for, at most.
      together: whether the descents from several starts ask side by side, or one after the other; their steps are the
        same.

    Yields:
      Masks [k, T]; their losses and gradients, [k, 1 + T], must be sent.

    Returns:
      The mask of the smallest loss [T], and the smallest loss after each evaluation [evaluations].
    """
    descents = [_Descent(start) for start in starts]
    losses: list[float] = []  # After each evaluation, of the descent that made it.

    def go_on(some: list[_Descent], promise: float, most: int) -> Search[None]:
        """Continues descents, each by `most` evaluations at most, and by its share of those that are left."""
        before = [len(descent.trace) for descent in some]
        share = min(most, (max_evaluations - len(losses)) // len(some))
        searches = [descent.until(promise, made + share) for descent, made in zip(some, before, strict=True)]
        if together:
            yield from side_by_side(searches)
        else:
            for search in searches:
                yield from search
        for descent, made in zip(some, before, strict=True):
            losses.extend(descent.trace[made:])

    for promise, close in zip(_RACE, (None, _CLOSE), strict=True):
        if len(descents) > 1:
            yield from go_on(descents, promise, max_evaluations // (len(descents) + 1))
            descents = _may_win(descents, close)
    yield from go_on(descents, _PROMISE, max_evaluations)
    best = min(descents, key=lambda descent: descent.loss)
    if best.free().any() and len(losses) < max_evaluations:
        again = _Descent(best.mask + _NUDGE * np.where(best.free(), np.sign(0.5 - best.mask), 0))
        yield from go_on([again], _PROMISE, max_evaluations)
        best = min(best, again, key=lambda descent: descent.loss)
    return best.mask, np.minimum.accumulate(losses)


def _may_win(descents: list["_Descent"], close: float | None) -> list["_Descent"]:
    """Returns the lowest descent and those that may still end lower.

    These are in another valley and, if `close` is given, at a loss within this share of the lowest. It is not given
    after the first round: a start whose first steps promise little may still have most of its descent before it.
    """
    best = min(descents, key=lambda descent: descent.loss)
    most = math.inf if close is None else best.loss + close * abs(best.loss)
    others = [descent for descent in descents if np.abs(descent.mask - best.mask).max() > _ELSEWHERE]
    return [best] + [descent for descent in others if descent.loss <= most]


class _Descent:
    """A projected quasi-Newton descent from one mask [T].

    The steps are in the mask itself, not in logits, so its values reach their bounds, 1e-5 from 0 and 1. A value at a
    bound that the gradient pushes outwards is held (Bertsekas 1982); in the others, which are free, the step is
    Newton's, with the damped BFGS matrix (Powell 1978) in place of the Hessian. It is cut off at the bounds, and
    shortened until the loss falls.
    """

    def __init__(self, start: np.ndarray) -> None:
        self.mask, self.loss, self.trace = np.clip(start, _EDGE, 1 - _EDGE), math.inf, list[float]()
        self._gradient, self._hessian = np.zeros(len(start)), np.zeros((0, 0))  # Known from the first evaluation on.
        self._scaled = False  # Whether a step has set the scale of the matrix.

    def until(self, promise: float, max_evaluations: int) -> Search[None]:
        """Descends until the next step promises less than a share of the loss, or the trace has this many evaluations.

        Args:
          promise: the share.
          max_evaluations: in all, those of earlier calls included.
        """
        if not self.trace and max_evaluations:
            self.loss, self._gradient = _split((yield self.mask[None]))
            self.trace.append(self.loss)
        while len(self.trace) < max_evaluations:
            step = self._step()
            # Half the slope is what the quadratic model promises. Both sides are 0 where a loss of 0 is flat.
            if -self._gradient @ step <= 2 * promise * abs(self.loss) or not (yield from self._take(step)):
                break

    def free(self) -> np.ndarray:
        """Returns which values are not held at a bound, bool [T]."""
        return ~np.where(self._gradient >= 0, self.mask <= _EDGE, self.mask >= 1 - _EDGE)

    def _step(self) -> np.ndarray:
        """Returns Newton's step of the values that are free; 0 where none is, or the loss is flat."""
        gradient, step, free = self._gradient, np.zeros_like(self.mask), np.flatnonzero(self.free())
        if gradient[free].any():
            if not self._hessian.size:
                self._hessian = np.eye(len(step)) * np.abs(gradient[free]).max() / _FIRST_STEP
            step[free] = -np.linalg.solve(self._hessian[np.ix_(free, free)], gradient[free])
        return step

    def _take(self, step: np.ndarray) -> Search[bool]:
        """Takes as much of a step as lowers the loss (a backtracking line search); returns whether any of it does."""
        size = 1.0
        while size >= _SMALLEST_STEP:
            trial = np.clip(self.mask + size * step, _EDGE, 1 - _EDGE)
            change = trial - self.mask
            slope = self._gradient @ change
            loss, gradient = _split((yield trial[None]))
            if loss <= self.loss + _ARMIJO * slope:
                self._hessian = _bfgs(self._hessian, change, gradient - self._gradient, first=not self._scaled)
                self._scaled = True
                self.mask, self.loss, self._gradient = trial, loss, gradient
                self.trace.append(loss)
                return True
            self.trace.append(self.loss)
            # The lowest point of the parabola through both losses and the slope.
            size *= float(np.clip(-slope / (2 * (loss - self.loss - slope)), 0.1, 0.5))
        return False


def _split(answers: np.ndarray) -> tuple[float, np.ndarray]:
    return float(answers[0, 0]), answers[0, 1:]


def _bfgs(hessian: np.ndarray, change: np.ndarray, bend: np.ndarray, first: bool) -> np.ndarray:
    """Returns the BFGS matrix after a step, damped so that it stays positive definite (Powell 1978).

    Args:
      hessian: the matrix before [T, T].
      change: of the mask by the step [T].
      bend: change of the gradient [T], to which the new matrix maps `change`, or nearly where it is damped.
      first: whether it is the first step, which also sets the scale of the matrix.
    """
    if first and change @ bend > 0:
        hessian = np.eye(len(change)) * (bend @ bend) / (change @ bend)
    image = hessian @ change
    curvature, known = change @ bend, change @ image
    if curvature < 0.2 * known:
        share = 0.8 * known / (known - curvature)
        bend = share * bend + (1 - share) * image
        curvature = change @ bend
    return hessian - np.outer(image, image) / known + np.outer(bend, bend) / curvature
