"""Perturbations over time (section 3.1): each is a matrix made from a mask, written once for every framework.

A mask m is in [0, 1], 1 means perturbed, and `perturbed = A(m) · clip`: row t of A(m) holds the weights of the original
frames in perturbed frame t. A kind is a function of the mask and of the few operations that Python's operators do not
have (`Ops`), so the same lines are the NumPy reference and, with the framework's arrays, an operator that it
differentiates.

A new kind is one function under `register`: both builds, the flags and the tests have it from then on. Besides the
paper's `freeze` and `reverse` there are four for its section 6.2, "other noise types".
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from common import errors

REVERSE_THRESHOLD = 0.1  # A frame counts as masked for `reverse` above it (released code).
_BLUR_FRAMES = 2.0  # Standard deviation of `blur` in frames of the clip.


@runtime_checkable  # For the tests, which check the types of calls.
class Ops(Protocol):
    """What a kind may use besides operators, comparisons and slices; NumPy's meaning of each."""

    def constant(self, values: np.ndarray, like: Any) -> Any:
        """Returns values in the dtype of `like`, where `like` lies."""

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """Returns x where the condition holds, else y; one of them may be a number."""

    def stack(self, arrays: list[Any], axis: int) -> Any:
        """Joins arrays of one shape along a new axis."""

    def amax(self, x: Any, axis: int) -> Any:
        """Returns the largest values along an axis."""


Kind = Callable[[Float[Any, "N T"], Ops], Float[Any, "N T T"]]

KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Makes a function (mask [N, T], ops) -> matrix [N, T, T] known by its name.

    It must give the identity for a mask of zeros, and be differentiable in the mask wherever its value is used.
    """
    KINDS[kind.__name__] = kind
    return kind


def find(name: str) -> Kind:
    """Returns the kind of a name; refuses an unknown one."""
    errors.check_choice("kind", name, KINDS)
    return KINDS[name]


@register
def freeze(mask: Float[Any, "N T"], ops: Ops) -> Float[Any, "N T T"]:
    """Repeats the frame before: p_t = (1 - m_t) x_t + m_t p_(t-1), and p_0 = x_0 (the paper's pseudocode)."""
    time = mask.shape[1]
    eye = np.eye(time)
    mask = mask * ops.constant(np.arange(time) > 0, mask)  # Nothing is before frame 0.
    rows: list[Any] = []
    for t in range(time):
        m = mask[:, t : t + 1]
        row = (1 - m) * ops.constant(eye[t], mask)
        rows.append(row + m * rows[-1] if t else row)
    return ops.stack(rows, axis=1)


@register
def reverse(mask: Float[Any, "N T"], ops: Ops) -> Float[Any, "N T T"]:
    """Reverses each maximal run of m > 0.1: a frame of its first half and its mirror image swap.

    Both are blended with the mask value of the first half, as in the released code (D12), so the second half has no
    gradient.
    """
    # Worked for m = (0, 1, 0.8, 0.6, 1, 0), whose run is frames 1 to 4 and reverses to 4, 3, 2, 1:
    #   t              0   1   2   3   4   5
    #   last_off       0   0   0   0   0   5     the last frame up to t that is off
    #   first_off      0   5   5   5   5   5     the first from t on
    #   mirror         0   4   3   2   1   5     their sum less t: where the frame shown at t comes from
    #   in_first_half  0   1   2   2   1   5     the earlier of t and mirror, whose mask value counts
    #   weight         0   1  .8  .8   1   0
    # so row 2 of A is 0.2 e_2 + 0.8 e_3 and row 3 is 0.2 e_3 + 0.8 e_2: m_3 = 0.6 is ignored.
    time = mask.shape[1]
    places = np.arange(time, dtype=float)
    here, there = ops.constant(places[:, None], mask), ops.constant(places[None, :], mask)  # t and any other frame.
    on = (mask > REVERSE_THRESHOLD)[:, None, :]
    before, after = (ops.constant(side, mask) > 0 for side in (np.tri(time), np.tri(time).T))
    # The last frame that is off up to t, and the first from t on, bound the run of t; t itself where t is off.
    last_off = ops.amax(ops.where(before, ops.where(on, -1.0, there), -1.0), axis=2)[:, :, None]
    first_off = -ops.amax(ops.where(after, ops.where(on, -1.0 * time, -there), -1.0 * time), axis=2)[:, :, None]
    mirror = last_off + first_off - here
    in_first_half = ops.where(mirror < here, mirror, here)
    zeros = 0 * there
    weight = ops.where(there == in_first_half, zeros + 1, zeros) @ mask[:, :, None]
    return (1 - weight) * ops.constant(np.eye(time), mask) + weight * ops.where(there == mirror, zeros + 1, zeros)


@register
def shuffle(mask: Float[Any, "N T"], ops: Ops) -> Float[Any, "N T T"]:
    """Puts another frame in a frame's place: p_t = (1 - m_t) x_t + m_t x_s(t), s one fixed cycle through all frames."""
    time = mask.shape[1]
    # A cycle leaves no frame in its place.
    cycle = np.random.default_rng(0).permutation(time)
    source = np.empty(time, int)
    source[cycle] = np.roll(cycle, 1)
    return _blend(mask, np.eye(time)[source], ops)


@register
def blur(mask: Float[Any, "N T"], ops: Ops) -> Float[Any, "N T T"]:
    """Blurs over time: a masked frame is a Gaussian mean, of 2 frames' standard deviation, of those around it."""
    places = np.arange(mask.shape[1])
    weights = np.exp(-0.5 * ((places[:, None] - places) / _BLUR_FRAMES) ** 2)
    return _blend(mask, weights / weights.sum(axis=1, keepdims=True), ops)


@register
def mean(mask: Float[Any, "N T"], ops: Ops) -> Float[Any, "N T T"]:
    """Replaces by the mean of all frames, which carries no order of time."""
    time = mask.shape[1]
    return _blend(mask, np.full((time, time), 1 / time), ops)


@register
def blank(mask: Float[Any, "N T"], ops: Ops) -> Float[Any, "N T T"]:
    """Replaces by a black frame."""
    time = mask.shape[1]
    return _blend(mask, np.zeros((time, time)), ops)


def _blend(mask: Any, replacement: np.ndarray, ops: Ops) -> Any:
    """Returns the matrix of p_t = (1 - m_t) x_t + m_t (replacement · x)_t."""
    m = mask[:, :, None]
    return (1 - m) * ops.constant(np.eye(mask.shape[1]), mask) + m * ops.constant(replacement, mask)


class _NumPyOps:
    def constant(self, values: np.ndarray, like: np.ndarray) -> np.ndarray:
        return np.asarray(values, like.dtype)

    def where(self, condition: np.ndarray, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        return np.where(condition, x, y)

    def stack(self, arrays: list[np.ndarray], axis: int) -> np.ndarray:
        return np.stack(arrays, axis=axis)

    def amax(self, x: np.ndarray, axis: int) -> np.ndarray:
        return np.amax(x, axis=axis)


NUMPY_OPS: Ops = _NumPyOps()


def matrix(mask: Float[np.ndarray, "N T"], kind: str) -> Float[np.ndarray, "N T T"]:
    """Returns A(m), of the mask's dtype."""
    return find(kind)(mask, NUMPY_OPS)


def perturb(
    clips: Shaped[np.ndarray, "N T *frame"], mask: Float[np.ndarray, "N T"], kind: str
) -> Float[np.ndarray, "N T *frame"]:
    """Returns perturbed clips, of the mask's dtype: the NumPy reference of both builds' `perturb`.

    Args:
      clips: of any dtype.
      mask: 0…1, 1 means perturbed.
      kind: name of the perturbation, one of `KINDS`.
    """
    frames = clips.reshape(*clips.shape[:2], -1).astype(mask.dtype)
    return (matrix(mask, kind) @ frames).reshape(clips.shape)
