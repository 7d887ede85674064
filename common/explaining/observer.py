"""A model of planted events that is right by construction: matched filters on the frames, and how their answers turn.

It stands beside the trained models, so that what a method gets wrong here is the method's fault. Nothing is learnt:

1. Each wave of a suite (`suites.WAVES`) has a pair of matched filters, its cosine and its sine over the frame. Their
   answer to a frame is a point z of the plane, turned by the wave's phase; it is linear in the pixels.
2. z less the answer to frame 0 is a point d that rests at 0 while the picture is still. In an event it runs once
   round a circle through 0, anticlockwise if the wave runs in its direction, and comes back to 0. What else is in the
   picture cancels out, and to its brightness the filters do not answer.
3. From one frame to the next the line from 0 to d sweeps an area, d_(t-1) x d_t. It is positive in each step of an
   event that runs forwards, negative backwards, and 0 where d stays or is 0. *The evidence for a direction is the area
   that is swept within a few frames*, the most of all windows; for one event before another, the sum of products of
   areas swept by the one and, later, by the other.
4. That a wave has moved at all is evidence for both of its directions, against "nothing".

So the frames used are known exactly, and are those of the event: freezing all of them leaves nothing, a single one
that is left still says that something has moved, and each one that is frozen costs area. Under `freeze` the cheapest
deletion is the frames of all events, and the least that preserves the class is one set that suffices. At the ends of a
clip Eq. 1 adds frames to them that change nothing: the total variation has no edge there, so a mask that goes on to the
end is the cheaper one where at most one frame is left (unless ends are counted, `MaskConfig.ends`).

All is written in operators that NumPy, PyTorch and TensorFlow share (see `perturbations.Ops`); each build has an
`Observer` of its own.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from common import errors
from common.clips import suites
from common.explaining import mask_search, perturbations

_WINDOW = suites.LENGTHS[-1] - 1  # Steps between the frames of the longest event.
_ORDER = 0.25  # Weight of the product of two areas, which are 4 to 5.2 each (in circles of radius 1).
_STILL = 2.0  # Logit of "nothing".
_HALF_MOVED = 0.5  # Sum of squared steps of d at which a wave counts as half moved; one frame of an event: at least 2


def filters(height: int, width: int, channels: int) -> Float[np.ndarray, "pixels waves"]:
    """Returns the matched filters of all waves, float64 [H W C, 2 M]: cosines, then sines.

    A wave of the strength that suites have, seen where it is not hidden, is answered by a point at distance 1.

    Args:
      height: H in px.
      width: W in px.
      channels: C, over which the mean is taken.
    """
    covered = np.pi * suites.DISC_RADIUS**2
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / height
    found = []
    for number, (across, down) in enumerate(suites.WAVES):
        share = 1 - covered if number < suites.NUM_GROUND_WAVES else covered
        scale = 2 / (suites.AMPLITUDE * share * height * width * channels)
        found.append(scale * np.exp(2j * np.pi * (across * x + down * y)))
    pixels = np.stack(found, axis=-1).reshape(height * width, -1).repeat(channels, axis=0)
    return np.concatenate([pixels.real, pixels.imag], axis=1)


def logits(answers: Float[Any, "N T waves"], suite: str, ops: perturbations.Ops) -> Float[Any, "N K"]:
    """Returns the logits of a suite's classes.

    Args:
      answers: of the filters to each frame, [N, T, 2 M]: to the cosines, then to the sines.
      suite: one of `suites.SUITES`.
      ops: of the arrays' framework.
    """
    time, waves = answers.shape[1], len(suites.WAVES)
    moved = answers - answers[:, :1]
    x, y = moved[:, :, :waves], moved[:, :, waves:]
    over_time = ops.constant(np.ones((1, time - 1)), answers)

    squared_steps = (x[:, 1:] - x[:, :-1]) ** 2 + (y[:, 1:] - y[:, :-1]) ** 2
    path = (over_time @ squared_steps)[:, 0]  # [N, M]
    has_moved = path / (path + _HALF_MOVED)

    areas = x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]
    areas = areas @ ops.constant(np.repeat(np.eye(waves), 2, axis=1) * np.tile([1, -1], waves), answers)
    areas = ops.where(areas > 0, areas, 0.0)  # [N, T - 1, 2 M], each wave's forwards and backwards.
    within = np.triu(np.tri(time - 1, k=_WINDOW - 1))  # Window t is the steps t … t + _WINDOW - 1, later ones shorter.
    swept = ops.amax(ops.constant(within, answers) @ areas, axis=1)
    before = ops.constant(np.tri(time - 1, k=-1), answers) @ areas

    waves_of, runs_of, first, second, still = (ops.constant(table, answers) for table in _tables(suite))
    in_order = over_time @ ((before @ first) * (areas @ second))
    return has_moved @ waves_of + swept @ runs_of + _ORDER * in_order[:, 0] + still


def _tables(suite: str) -> tuple[np.ndarray, ...]:
    """Returns waves [M, K], runs, first and second of two runs [2 M, K] of the classes, and their logits of rest [K].

    A run is a wave and a direction, number 2 wave + (0 forwards, 1 backwards).
    """
    classes = suites.classes(suite)
    waves_of = np.zeros((len(suites.WAVES), len(classes)))
    runs_of, first, second = (np.zeros((2 * len(suites.WAVES), len(classes))) for _ in range(3))
    for label, events in enumerate(classes):
        runs = [2 * wave + (sign < 0) for wave, sign in events]
        waves_of[[wave for wave, _ in events], label] = 1
        runs_of[runs, label] = 1 / max(len(runs), 1)
        if len(runs) == 2:
            first[runs[0], label] = second[runs[1], label] = 1
    return waves_of, runs_of, first, second, np.array([0.0 if events else _STILL for events in classes])


class Filtering:
    """What the observer is in every framework; a build adds how it filters clips, and how logits become probabilities.

    `prepare` and `perturbed` make a search as fast as the filters' answers are few.

    Args:
      suite: whose classes it tells, one of `suites.SUITES`.
      clip_shape: T, H, W, C of the clips.
    """

    def __init__(self, suite: str, clip_shape: tuple[int, int, int, int]) -> None:
        errors.check_choice("suite", suite, suites.SUITES)
        self._suite = suite
        self._filters = filters(*clip_shape[1:])

    def __call__(self, clips: Shaped[Any, "N T H W C"]) -> Float[Any, "N K"]:
        """Clips, 0…255 -> class probabilities."""
        return self._probabilities(self.prepare(clips))

    def prepare(self, clips: Shaped[Any, "N T H W C"]) -> Float[Any, "N T waves"]:
        """Returns the filters' answers to clips, which is all that it needs of them."""
        raise NotImplementedError

    def perturbed(self, prepared: Float[Any, "N T waves"], matrix: Float[Any, "N T T"]) -> Float[Any, "N K"]:
        """Prepared clips under perturbations -> class probabilities: the filters are linear in the frames."""
        return self._probabilities(matrix @ prepared)

    def _probabilities(self, answers: Any) -> Any:
        raise NotImplementedError


class Observer(Filtering):
    """The observer in NumPy, in float64."""

    def prepare(self, clips: Shaped[np.ndarray, "N T H W C"]) -> Float[np.ndarray, "N T waves"]:
        """See `Filtering`."""
        return clips.reshape(*clips.shape[:2], -1) @ self._filters

    def _probabilities(self, answers: np.ndarray) -> np.ndarray:
        powers = np.exp(logits(answers, self._suite, perturbations.NUMPY_OPS))
        return powers / powers.sum(axis=1, keepdims=True)


class Scorer:
    """The observer, N clips and their targets, for what needs scores alone (see `scorer.Scorer`): the oracle, say.

    Args:
      observer: in NumPy.
      clips: [N, T, H, W, C], 0…255.
      targets: int [N].
    """

    def __init__(self, observer: Observer, clips: Shaped[np.ndarray, "N T H W C"], targets: Any) -> None:
        self._observer, self._targets = observer, mask_search.check_clips(clips.shape, targets)
        self._prepared = observer.prepare(clips)
        self.num_clips, self.time = clips.shape[:2]

    def scores(
        self, clip_indices: Shaped[np.ndarray, " M"], masks: Float[np.ndarray, "M T"], kind: str
    ) -> Float[np.ndarray, " M"]:
        """Returns F_c of clips under masks."""
        probabilities = self._observer.perturbed(self._prepared[clip_indices], perturbations.matrix(masks, kind))
        return probabilities[np.arange(len(masks)), self._targets[clip_indices]]
