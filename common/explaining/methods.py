"""Other answers to "which frames?" than the paper's mask, under one protocol: a number a frame, larger is more.

Each method asks a model by the `Scorer` that the mask search uses, so it runs in both builds and with every kind of
perturbation. F(m) is the score of the target class of a clip whose frames are perturbed by the mask m.

| method | answer for frame t | source |
|---|---|---|
| `occlusion` | F(0) - F(m), m perturbing frame t alone | Zeiler & Fergus 2014, arXiv:1311.2901 |
| `shapley` | the frame's share of F(0) - F(1) by Shapley's axioms | Shapley 1953; Castro et al. 2009 |
| `rise` | mean of F over random masks that keep frame t | Petsiuk et al. 2018, arXiv:1806.07421 |
| `gradient` | -dF/dm_t at m = 0 | Simonyan et al. 2014, arXiv:1312.6034, there in pixels |
| `integrated_gradients` | -dF/dm_t, mean along the line from m = 1 to 0 | Sundararajan et al. 2017, arXiv:1703.01365 |
| `gradcam` | mean of the frame's Grad-CAM map | section 3.2 of the paper |
| `random`, `centred`, `frame_difference` | no model asked | `methods_baselines` |

A kind may give a frame no say. Frame 0 cannot freeze, so its occlusion, Shapley value and gradients are 0 there;
`reverse` does nothing to a frame alone nor to masks up to 0.1, so its occlusion and gradient are 0 everywhere.

A new method is one function under `register`: flags, files and the benchmark have it from then on.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64

from common import errors
from common.explaining import gradcam_maps, methods_baselines
from common.explaining.masks import MaskConfig, difference_weights, perturbed_part
from common.explaining.scorer import Scorer, remembering

# What a gradient in the mask costs in forwards: its own, and a backward pass of the same size, for no weight is
# differentiated.
_GRADIENT_FORWARDS = 2


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """How methods answer.

    Attributes:
      mask: that the scorer was made with; methods perturb by its kind.
      evaluations: masks that `shapley` and `rise` score for a clip at most, not counting the clean clip and the wholly
        perturbed one; where all 2^T masks are no more, the answer is exact. `shapley` needs 2 (T - 1), a random order
        and its reverse, and takes these where it is given fewer.
      steps: points on the line of `integrated_gradients`.
      cam_time: how coarse Grad-CAM maps become T frames, one of `gradcam_maps.TIMES`.
      seed: of random masks and orders.
    """

    mask: MaskConfig = MaskConfig()
    evaluations: int = 512
    steps: int = 32
    cam_time: str = "repeat"
    seed: int = 0

    def __post_init__(self) -> None:
        errors.check_choice("cam_time", self.cam_time, gradcam_maps.TIMES)
        if self.evaluations < 2 or self.steps < 1 or self.seed < 0:
            raise errors.UserError(
                "evaluations must be at least 2, steps at least 1, seed at least 0. "
                f"Received: {self.evaluations}, {self.steps}, {self.seed}"
            )


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is asked: N clips and a model.

    Attributes:
      scorer: of the clips and their target classes.
      frames: uint8 [N, T, H, W, C], the clips.
      maps: returns their coarse Grad-CAM maps [N, T', H', W'].
    """

    scorer: Scorer
    frames: np.ndarray
    maps: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a method answered.

    Attributes:
      values: float64 [N, T], larger: more important.
      forwards: int64 [N], forward passes of each clip; a gradient counts as two.
    """

    values: np.ndarray
    forwards: np.ndarray


Method = Callable[[Subject, MethodConfig], Float64[np.ndarray, "N T"]]

METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Makes a method known by its function's name."""
    METHODS[method.__name__] = method
    return method


def answer(method: Method, subject: Subject, config: MethodConfig) -> Answer:
    """Returns what a method answers, and what it cost."""
    counting = _Counting(subject.scorer, config.mask.iterations)

    def maps() -> np.ndarray:
        counting.forwards += _GRADIENT_FORWARDS
        return subject.maps()

    values = method(dataclasses.replace(subject, scorer=remembering(counting), maps=maps), config)
    return Answer(values, counting.forwards)


class _Counting:
    """A scorer that counts the forward passes of each clip."""

    def __init__(self, scorer: Scorer, iterations: int) -> None:
        self._scorer, self._iterations = scorer, iterations
        self.num_clips, self.time = scorer.num_clips, scorer.time
        self.forwards = np.zeros(scorer.num_clips, np.int64)

    def scores(self, clip_indices: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        self._count(clip_indices, 1)
        return self._scorer.scores(clip_indices, masks, kind)

    def gradient(self, clip_indices: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._count(clip_indices, _GRADIENT_FORWARDS)
        return self._scorer.gradient(clip_indices, masks)

    def descend(self, clip_indices: np.ndarray, start_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._count(clip_indices, _GRADIENT_FORWARDS * self._iterations)
        return self._scorer.descend(clip_indices, start_logits)

    def _count(self, clip_indices: np.ndarray, forwards: int) -> None:
        self.forwards += forwards * np.bincount(clip_indices, minlength=self.num_clips)


@register
def occlusion(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns how far the score falls when a frame alone is perturbed."""
    time = subject.scorer.time
    scores = _scores(subject, np.concatenate([np.zeros((1, time)), np.eye(time)]), config)
    return scores[:, :1] - scores[:, 1:]


@register
def shapley(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns Shapley values of the game whose players are frames and whose value is the score with them unperturbed.

    They sum to the score of the clean clip less that of the wholly perturbed one. Where all subsets are too many, the
    mean over random orders of the frames is taken, each with its reverse (antithetic: Mitchell et al. 2022,
    arXiv:2104.12199), of what a frame adds to those before it.
    """
    time = subject.scorer.time
    if 2**time <= config.evaluations:
        return _exact_shapley(_scores(subject, 1 - _subsets(time), config))
    pairs = max(1, config.evaluations // (2 * (time - 1)))
    stream = np.random.default_rng(config.seed)
    orders = stream.permuted(np.tile(np.arange(time), (pairs, 1)), axis=1)
    orders = np.concatenate([orders, orders[:, ::-1]])
    ranks = np.argsort(orders, axis=1)
    kept = ranks[:, None, :] < np.arange(time + 1)[:, None]  # [P, T + 1, T]: the first k frames of an order.
    scores = _scores(subject, 1.0 - kept.reshape(-1, time), config).reshape(-1, *kept.shape[:2])
    added = np.diff(scores, axis=2)  # [N, P, T], by rank.
    return np.take_along_axis(added, ranks[None], axis=2).mean(axis=1)


def _exact_shapley(scores: np.ndarray) -> np.ndarray:
    """Returns Shapley values [N, T] of scores [N, 2^T] in the order of `_subsets`."""
    time = int(math.log2(scores.shape[1]))
    subsets = np.arange(scores.shape[1])
    sizes = _subsets(time).sum(axis=1).astype(int)
    weights = np.array([1 / (time * math.comb(time - 1, size)) for size in range(time)])
    values = np.empty((len(scores), time))
    for t in range(time):
        without = subsets[subsets >> t & 1 == 0]
        values[:, t] = (scores[:, without | 1 << t] - scores[:, without]) @ weights[sizes[without]]
    return values


@register
def rise(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns the mean score over random masks, each frame kept or not as a coin falls, of those that keep a frame.

    RISE draws its masks coarse and smooth because pixels are many; frames are few. It divides by the number of masks
    that is expected to keep a frame, we by the number that does, which has the same mean and varies less.
    """
    time = subject.scorer.time
    if 2**time <= config.evaluations:
        kept = _subsets(time)
    else:
        kept = np.random.default_rng(config.seed).integers(0, 2, (config.evaluations, time)).astype(float)
    scores = _scores(subject, 1 - kept, config)
    return scores @ kept / np.maximum(kept.sum(axis=0), 1)


@register
def gradient(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns how fast the score falls as a frame begins to be perturbed."""
    return -_score_gradients(subject, np.zeros((1, subject.scorer.time)), config)[:, 0]


@register
def integrated_gradients(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns the gradient's mean on the line from the wholly perturbed clip to the clean one, by Gauss and Legendre.

    Complete: frames sum to F(0) - F(1), up to the error of the quadrature, if F is continuous along the line; that of
    `reverse` jumps at 0.1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(config.steps)  # On -1…1.
    masks = np.tile((nodes[:, None] + 1) / 2, (1, subject.scorer.time))
    return -np.einsum("s,nst->nt", weights / 2, _score_gradients(subject, masks, config))


@register
def gradcam(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns the mean over height and width of each frame's Grad-CAM map."""
    maps = subject.maps()
    shape = (subject.scorer.time, *maps.shape[2:])
    return gradcam_maps.upsample(maps, shape, config.cam_time).mean(axis=(2, 3), dtype=np.float64)


@register
def random(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns random numbers."""
    return methods_baselines.random_answers(subject.frames, config.seed)


@register
def centred(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns how close a frame is to the middle of the clip."""
    return np.tile(methods_baselines.closeness_to_middle(subject.scorer.time), (subject.scorer.num_clips, 1))


@register
def frame_difference(subject: Subject, config: MethodConfig) -> Float64[np.ndarray, "N T"]:
    """Returns how much a frame differs from the one before."""
    return methods_baselines.frame_differences(subject.frames)


def _subsets(time: int) -> Float64[np.ndarray, "subsets {time}"]:
    """Returns all 2^T subsets of frames as rows of 0 and 1; row c holds frame t where bit t of c is set."""
    return (np.arange(2**time)[:, None] >> np.arange(time) & 1).astype(float)


def _scores(subject: Subject, masks: np.ndarray, config: MethodConfig) -> np.ndarray:
    """Returns F, float64 [N, M], of every clip under every mask [M, T]; masks of equal effect are scored once."""
    num_clips = subject.scorer.num_clips
    clip_indices = np.repeat(np.arange(num_clips), len(masks))
    scores = remembering(subject.scorer).scores(clip_indices, np.tile(masks, (num_clips, 1)), config.mask.kind)
    return scores.reshape(num_clips, -1)


def _score_gradients(subject: Subject, masks: np.ndarray, config: MethodConfig) -> np.ndarray:
    """Returns dF/dm, float64 [N, M, T], of every clip at every mask [M, T], 1 means perturbed."""
    num_clips, game = subject.scorer.num_clips, config.mask.game
    clip_indices = np.repeat(np.arange(num_clips), len(masks))
    # A scorer's gradient is that of all of Eq. 1, and in its game. In "preserve" Eq. 1 is cost(m) + 1 - F(1 - m): asked
    # at 1 - m, its derivative less the cost's is dF/dm at m, as in "delete".
    asked = perturbed_part(masks, game)
    _, gradients = subject.scorer.gradient(clip_indices, np.tile(asked, (num_clips, 1)))
    return gradients.reshape(num_clips, *masks.shape) - cost_gradient(asked, config.mask)


def cost_gradient(masks: Float[np.ndarray, "M T"], config: MaskConfig) -> Float64[np.ndarray, "M T"]:
    """Returns the gradient in m of what a mask costs in Eq. 1 (`masks.mask_cost`); 0 at a kink."""
    at_ends = float(config.ends == "counted")
    weights = np.concatenate([[at_ends], difference_weights(masks.shape[1], config.compat), [at_ends]])
    steps = np.diff(np.pad(masks, ((0, 0), (1, 1))), axis=1)
    slopes = weights * config.beta * np.abs(steps) ** (config.beta - 1) * np.sign(steps)
    return config.lambda_1 * np.sign(masks) + config.lambda_2 * (slopes[:, :-1] - slopes[:, 1:])
