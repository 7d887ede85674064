"""How a soft mask goes down Eq. 1: the paper's steps of Adam, and a quasi-Newton descent that stops when it is done.

`adam_step` is made of operators that NumPy, PyTorch and TensorFlow share, as Eq. 1 in `masks` is: it is compiled into
each build's step. The quasi-Newton descent needs no such thing. It is written for one clip in NumPy, and the clips take
its steps together (`scorer.in_step`); a clip that has converged leaves the batch.
"""

from typing import Any

import numpy as np

from common.explaining.scorer import Search

_ADAM_BETA_1, _ADAM_BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8  # Epsilon is added after the bias correction (D8).
_FIRST_STEP = 0.3
_PROMISE = 1e-4  # A step that promises less than this share of the loss is not taken.
_ARMIJO = 1e-4  # Share of the slope's gain that a step must bring.
_SMALLEST_STEP = 1e-3
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


def quasi_newton(start: np.ndarray, max_evaluations: int) -> Search[tuple[np.ndarray, np.ndarray]]:
    """Goes down Eq. 1 from a mask by projected quasi-Newton steps until the next one promises next to nothing.

    The steps are in the mask itself, not in logits, so its values reach their bounds, 1e-5 from 0 and 1. A value at a
    bound that the gradient pushes outwards is held (Bertsekas 1982); in the others the step is Newton's, with the
    damped BFGS matrix (Powell 1978) in place of the Hessian, cut off at the bounds, and shortened until the loss falls.

    Args:
      start: mask [T].
      max_evaluations: at most so many losses and gradients are asked for.

    Yields:
      A mask [1, T]; it must be sent its loss and its gradient, [1, 1 + T].

    Returns:
      The mask of the smallest loss [T], and the smallest loss after each evaluation [evaluations].
    """
    low, high = _EDGE, 1 - _EDGE
    mask = np.clip(np.asarray(start, np.float64), low, high)
    loss, gradient = _split((yield mask[None]))
    trace, hessian = [loss], None
    while len(trace) < max_evaluations:
        held = ((mask <= low) & (gradient >= 0)) | ((mask >= high) & (gradient <= 0))
        free = np.flatnonzero(~held)
        if not len(free):
            break
        if hessian is None:  # The first step moves the value of the steepest slope by `_FIRST_STEP`.
            hessian = np.eye(len(mask)) * np.abs(gradient[free]).max() / _FIRST_STEP
        step = np.zeros_like(mask)
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        if -gradient @ step < 2 * _PROMISE * abs(loss):  # Half the slope is what the quadratic model promises.
            break
        size = 1.0
        while True:
            trial = np.clip(mask + size * step, low, high)
            change = trial - mask
            slope = gradient @ change
            trial_loss, trial_gradient = _split((yield trial[None]))
            accepted = trial_loss <= loss + _ARMIJO * slope
            trace.append(trial_loss if accepted else loss)
            if accepted or len(trace) == max_evaluations or size < _SMALLEST_STEP:
                break
            # The lowest point of the parabola through both losses and the slope.
            size *= np.clip(-slope / (2 * (trial_loss - loss - slope)), 0.1, 0.5)
        if not accepted:
            break
        hessian = _bfgs(hessian, change, trial_gradient - gradient, first=len(trace) == 2)
        mask, loss, gradient = trial, trial_loss, trial_gradient
    return mask, np.array(trace)


def _split(answers: np.ndarray) -> tuple[float, np.ndarray]:
    return float(answers[0, 0]), answers[0, 1:]


def _bfgs(hessian: np.ndarray, change: np.ndarray, bend: np.ndarray, first: bool) -> np.ndarray:
    """Returns the matrix after a step: it maps the change of the mask to that of the gradient, or near it (damped)."""
    if first and change @ bend > 0:
        hessian = np.eye(len(change)) * (bend @ bend) / (change @ bend)
    image = hessian @ change
    curvature, known = change @ bend, change @ image
    if curvature < 0.2 * known:
        share = 0.8 * known / (known - curvature)
        bend = share * bend + (1 - share) * image
        curvature = change @ bend
    return hessian - np.outer(image, image) / known + np.outer(bend, bend) / curvature
