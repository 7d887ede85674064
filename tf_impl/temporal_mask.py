"""Temporal masks in TensorFlow (section 3.1): perturb clips over time, and learn which frames a model needs.

The perturbations are `common/explaining/perturbations.py`, Eq. 1 is in `masks.py` there, and the search around the
descent in `mask_search.py`; here they meet tensors, for N clips at a time. Any callable from clips to class
probabilities will do as a model, and nothing but the mask is differentiated:

    probabilities = lambda clips: tf.nn.softmax(model(clips))
    learnt = learn_masks(probabilities, clips, targets, masks.MaskConfig(kind="freeze"))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float64, Integer, Shaped

from common import errors
from common.explaining import descent, mask_search, masks, model_checks, perturbations, scorer
from common.explaining.mask_search import BestIntervals, LearntMasks
from common.explaining.masks import MaskConfig
from tf_impl import layers

# Clips, float [N, T, H, W, C] with the values of the clips given -> class probabilities [N, K].
ScoreFn = Callable[[tf.Tensor], tf.Tensor]


class _Ops:
    """`perturbations.Ops` on tensors."""

    def constant(self, values: np.ndarray, like: tf.Tensor) -> tf.Tensor:
        return tf.constant(values, like.dtype)

    def where(self, condition: tf.Tensor, x: Any, y: Any) -> tf.Tensor:
        # One of the two may be a number of Python, which TensorFlow would take for float32 whatever the other is.
        dtype = x.dtype if tf.is_tensor(x) else y.dtype
        return tf.where(condition, tf.cast(x, dtype), tf.cast(y, dtype))

    def stack(self, arrays: list[tf.Tensor], axis: int) -> tf.Tensor:
        return tf.stack(arrays, axis=axis)

    def amax(self, x: tf.Tensor, axis: int) -> tf.Tensor:
        return tf.reduce_max(x, axis=axis)


OPS: perturbations.Ops = _Ops()


def perturb(
    clips: Shaped[tf.Tensor | np.ndarray, "N T *frame"], mask: Float[tf.Tensor | np.ndarray, "N T"], kind: str
) -> Float[tf.Tensor, "N T *frame"]:
    """Perturbs clips over time, differentiably in the mask: A(mask) · clips.

    Args:
      clips: of any dtype.
      mask: 0…1, 1 means perturbed.
      kind: name of the perturbation, one of `perturbations.KINDS`.

    Returns:
      Perturbed clips, of the mask's dtype.
    """
    return _apply(perturbations.find(kind)(tf.convert_to_tensor(mask), OPS), tf.convert_to_tensor(clips))


def _apply(matrix: tf.Tensor, clips: tf.Tensor) -> tf.Tensor:
    frames = tf.reshape(tf.cast(clips, matrix.dtype), (-1, clips.shape[1], np.prod(clips.shape[2:])))
    return tf.reshape(matrix @ frames, (-1, *clips.shape[1:]))


def mask_loss(
    scores: Float[tf.Tensor, " N"], mask: Float[tf.Tensor, "N T"], config: MaskConfig
) -> Float[tf.Tensor, " N"]:
    """Returns Eq. 1 of each clip: lambda_1 |m|_1 + lambda_2 TV(m) + F_c, or 1 - F_c in the game "preserve".

    Args:
      scores: F_c, probability of the target class of the perturbed clips.
      mask: 0…1.
      config: weights, power of the total variation, compat, ends, game.
    """
    return masks.mask_loss(scores, mask, config, OPS)


def learn_masks(
    score_fn: ScoreFn, clips: tf.Tensor | np.ndarray, targets: Any, config: MaskConfig, batch_size: int = 0
) -> LearntMasks:
    """Learns the mask that takes away, or keeps, most of the target's score at the least cost (Eq. 1), clip by clip.

    Each call traces graphs anew; for many batches of clips keep one `MaskSearch`.

    Args:
      score_fn: clips, float `[N, T, H, W, C]` -> class probabilities `[N, K]`, differentiable. It is traced into a
        graph; a Keras model is called without `training`, which is inference mode.
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
    score_fn: ScoreFn, clips: tf.Tensor | np.ndarray, targets: Any, config: MaskConfig, batch_size: int = 0
) -> BestIntervals:
    """Returns the best of the masks that are one interval (the oracle); arguments and errors are as of `learn_masks`.

    With the oracle "full" it is the exact optimum of Eq. 1 among all T (T + 1) / 2 (see `mask_search.best_intervals`).
    """
    return mask_search.best_intervals(MaskSearch(score_fn, config, batch_size).on(clips, targets), config)


class MaskSearch:
    """The search on one model, for any number of batches of clips; its graphs are traced once for a shape of clips.

    Args:
      score_fn: see `learn_masks`. If it also has `prepare(clips)` and `perturbed(prepared, matrix)`, which returns what
        it would for matrix · clips, these are used: what all perturbations of a clip share is then computed once.
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
        self._traced: dict[tuple, _Graphs] = {}

    def on(self, clips: tf.Tensor | np.ndarray, targets: Any) -> "Scorer":
        """Returns a `Scorer` for the functions of `mask_search`; the first call checks the model.

        Args:
          clips: `[N, T, H, W, C]`, any dtype.
          targets: int `[N]`.
        """
        return Scorer(self, clips, targets)

    def traced(self, clips: tf.Tensor, dtype: tf.DType) -> "_Graphs":
        """Returns the search's graphs for clips of a shape, of any number."""
        key = (*clips.shape[1:], clips.dtype, dtype)
        if key not in self._traced:
            self._traced[key] = _trace(_Computation(self.score_fn, self.config), clips, dtype)
        return self._traced[key]


class _Computation:
    """What a search computes of tensors, and what is traced, while a `Scorer` holds clips.

    "Prepared" is what `score_fn.prepare` made of clips, or the clips.
    """

    def __init__(self, score_fn: ScoreFn, config: MaskConfig) -> None:
        self.score_fn, self.config = score_fn, config
        self._shared: tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]] | None = None
        if hasattr(score_fn, "prepare") and hasattr(score_fn, "perturbed"):
            self._shared = score_fn.prepare, score_fn.perturbed

    def prepare(self, clips: tf.Tensor) -> tf.Tensor:
        """Returns prepared clips."""
        return self._shared[0](clips) if self._shared else clips

    def score(self, clips: tf.Tensor, targets: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Returns F_c `[N]` of clips perturbed by matrices `[N, T, T]`, in the matrices' dtype."""
        return tf.cast(_of_targets(self.score_fn(_apply(matrix, clips)), targets), matrix.dtype)

    def score_prepared(self, prepared: tf.Tensor, targets: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """The same, of prepared clips; one clip may meet many matrices."""
        if not self._shared:
            return self.score(prepared, targets, matrix)
        _, perturbed = self._shared
        return tf.cast(_of_targets(perturbed(prepared, matrix), targets), matrix.dtype)

    def gradient(self, prepared: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns Eq. 1 `[N]` of masks `[N, T]`, and its gradient with respect to them `[N, T]`."""
        return self._loss_and_gradient(prepared, targets, mask, tf.identity)

    def step(
        self,
        prepared: tf.Tensor,
        targets: tf.Tensor,
        state: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        corrections: tuple[tf.Tensor, tf.Tensor],
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Returns the loss `[N]` before a step of Adam, and the state (logits first) after it."""
        loss, gradient = self._loss_and_gradient(prepared, targets, state[0], tf.sigmoid)
        return loss, descent.adam_step(state, gradient, corrections, self.config.learning_rate)

    def _loss_and_gradient(
        self, prepared: tf.Tensor, targets: tf.Tensor, values: tf.Tensor, to_mask: Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # Persistent: two gradients are asked of it.
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(values)
            mask = to_mask(values)
            perturbed = masks.perturbed_part(mask, self.config.game)
            score = self.score_prepared(prepared, targets, perturbations.find(self.config.kind)(perturbed, OPS))
            loss = mask_loss(score, mask, self.config)
        model_checks.check_gradient(tape.gradient(score, values) is not None)  # While tracing only: pruned.
        return loss, tape.gradient(loss, values)


class _Graphs(NamedTuple):
    """The methods of a `_Computation` of these names, traced for clips of one shape."""

    score: tf.types.experimental.PolymorphicFunction
    prepare: tf.types.experimental.PolymorphicFunction
    score_prepared: tf.types.experimental.PolymorphicFunction
    gradient: tf.types.experimental.PolymorphicFunction
    step: tf.types.experimental.PolymorphicFunction


def _trace(computation: _Computation, clips: tf.Tensor, dtype: tf.DType) -> _Graphs:
    time = clips.shape[1]
    given, targets = tf.TensorSpec((None, *clips.shape[1:]), clips.dtype), tf.TensorSpec((None,), tf.int64)
    mask, number = tf.TensorSpec((None, time), dtype), tf.TensorSpec((), dtype)
    matrix = tf.TensorSpec((None, time, time), dtype)
    # First `prepare`: its output is the input of the others.
    prepare = tf.function(computation.prepare, input_signature=(given,), autograph=False)
    prepared = prepare.get_concrete_function().structured_outputs
    prepared = tf.TensorSpec((None, *prepared.shape[1:]), prepared.dtype)
    signatures = {
        "score": (given, targets, matrix),
        "score_prepared": (prepared, targets, matrix),
        "gradient": (prepared, targets, mask),
        "step": (prepared, targets, (mask,) * 3, (number,) * 2),
    }
    graphs = {
        name: tf.function(getattr(computation, name), input_signature=signature, autograph=False)
        for name, signature in signatures.items()
    }
    layers.check_constant(graphs["score_prepared"].get_concrete_function().graph)
    return _Graphs(prepare=prepare, **graphs)


class Scorer:
    """One model, N clips and their targets (see `scorer.Scorer`); made by `MaskSearch.on`."""

    def __init__(self, search: MaskSearch, clips: tf.Tensor | np.ndarray, targets: Any) -> None:
        self._clips, self._on_step = tf.convert_to_tensor(clips), search.on_step
        self._iterations = search.config.iterations
        targets = mask_search.check_clips(tuple(self._clips.shape), targets)
        self.num_clips, self.time = self._clips.shape[:2]
        self._dtype = tf.float64 if self._clips.dtype == tf.float64 else tf.float32
        self._targets = tf.constant(targets)
        at_least = search.batch_size or self.num_clips
        self._batch_size = scorer.masks_at_a_time(at_least, self._clips.shape[1:], search.config)
        self._kept: tuple[np.ndarray, tf.Tensor] | None = None  # Which clips were prepared last, and the result.
        try:
            self._computation = search.traced(self._clips, self._dtype)
        except errors.UserError:
            raise
        except Exception:
            # What cannot be traced may return no tensor at all, as `model.predict`: then that is what is wrong.
            _one_tensor(search.score_fn(tf.cast(self._clips[:1], self._dtype)))
            raise
        if not search.num_classes:
            search.num_classes = self._check_model(search.score_fn, targets)
        model_checks.check_targets(targets, search.num_classes)

    def _check_model(self, score_fn: ScoreFn, targets: np.ndarray) -> int:
        """Refuses a model that cannot be explained (see `model_checks`); returns its number of classes."""
        clip = tf.cast(self._clips[:1], self._dtype)
        alone = _numpy(_one_tensor(score_fn(clip)))
        model_checks.check_probabilities(alone)
        model_checks.check_targets(targets, alone.shape[1])
        again, beside = score_fn(clip), score_fn(tf.concat([clip, clip[:, ::-1]], axis=0))
        model_checks.check_steady(alone, _numpy(again), _numpy(beside))
        prepared, target = self._prepared(np.array([0]))
        own = self._computation.score_prepared(prepared, target, self._tensor(np.eye(self.time)[None]))
        model_checks.check_prepared(alone[0, targets[0]], float(own[0]))
        return alone.shape[1]

    def scores(
        self, clip_indices: Integer[np.ndarray, " M"], masks: Float[np.ndarray, "M T"], kind: str
    ) -> Float64[np.ndarray, " M"]:
        """Returns F_c of clips under masks."""
        matrices = perturbations.matrix(masks, kind)
        parts = [self._score(clip_indices[some], self._tensor(matrices[some])) for some in self._batches(clip_indices)]
        return mask_search.check_finite(np.concatenate([_numpy(part) for part in parts]), "Scores")

    def gradient(
        self, clip_indices: Integer[np.ndarray, " M"], masks: Float[np.ndarray, "M T"]
    ) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, "M T"]]:
        """Returns Eq. 1 of masks on clips, and its gradient in the masks."""
        parts = []
        for some in self._batches(clip_indices):
            prepared, targets = self._prepared(clip_indices[some])
            parts.append(self._computation.gradient(prepared, targets, self._tensor(masks[some])))
        losses, gradients = (np.concatenate([_numpy(part) for part in column]) for column in zip(*parts, strict=True))
        return mask_search.check_finite(losses, "Losses"), mask_search.check_finite(gradients, "Gradients")

    def descend(
        self, clip_indices: Integer[np.ndarray, " M"], start_logits: Float[np.ndarray, "M T"]
    ) -> tuple[Float64[np.ndarray, "M T"], Float64[np.ndarray, "M iterations"]]:
        """Returns learnt masks and loss traces."""
        parts = [
            self._descend(clip_indices[some], self._tensor(start_logits[some])) for some in self._batches(clip_indices)
        ]
        masks, losses = (np.concatenate(column) for column in zip(*parts, strict=True))
        return masks, mask_search.check_finite(losses, "Losses")

    def _score(self, clip_indices: np.ndarray, matrices: tf.Tensor) -> tf.Tensor:
        if (clip_indices == clip_indices[0]).all():  # Many masks of one clip, as the oracle tries them.
            prepared, targets = self._prepared(clip_indices[:1])
            return self._computation.score_prepared(prepared, tf.repeat(targets, len(matrices)), matrices)
        clips, targets = tf.gather(self._clips, clip_indices), tf.gather(self._targets, clip_indices)
        return self._computation.score(clips, targets, matrices)

    def _descend(self, clip_indices: np.ndarray, logits: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        prepared, targets = self._prepared(clip_indices)
        state, losses = (logits, tf.zeros_like(logits), tf.zeros_like(logits)), []
        for step in range(self._iterations):
            # Tensors: a number of Python would be traced anew in every step.
            corrections = tuple(self._tensor(value) for value in descent.adam_corrections(step + 1))
            loss, state = self._computation.step(prepared, targets, state, corrections)
            losses.append(loss)
            self._on_step(len(logits))
        return _numpy(tf.sigmoid(state[0])), _numpy(tf.stack(losses, axis=1))

    def _batches(self, clip_indices: np.ndarray) -> list[slice]:
        return scorer.batches(len(clip_indices), self._batch_size)

    def _prepared(self, clip_indices: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns prepared clips and their targets; those of the last call are kept."""
        if self._kept is None or not np.array_equal(self._kept[0], clip_indices):
            places = None if self._kept is None else scorer.places_in(self._kept[0], clip_indices)
            if self._kept is None or places is None:
                self._kept = None  # Two at a time may not fit.
                self._kept = clip_indices, self._computation.prepare(tf.gather(self._clips, clip_indices))
            else:  # Some of them, as when the others have converged.
                self._kept = clip_indices, tf.gather(self._kept[1], places)
        return self._kept[1], tf.gather(self._targets, clip_indices)

    def _tensor(self, values: np.ndarray | float) -> tf.Tensor:
        return tf.constant(values, self._dtype)


def _one_tensor(probabilities: Any) -> tf.Tensor:
    return model_checks.check_tensor(probabilities, tf.Tensor, model_checks.PROBABILITIES)


def _of_targets(probabilities: Any, targets: tf.Tensor) -> tf.Tensor:
    probabilities = _one_tensor(probabilities)
    if probabilities.shape.rank is not None:  # None in a graph, which is for any number of clips.
        model_checks.check_shape(tuple(1 if size is None else size for size in probabilities.shape))
    return tf.gather(probabilities, targets, axis=1, batch_dims=1)


def _numpy(tensor: tf.Tensor) -> np.ndarray:
    return tf.cast(tensor, tf.float64).numpy()
