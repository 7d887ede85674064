"""Temporal masks in TensorFlow (section 3.1): perturb clips over time, and learn which frames a model needs.

The perturbations are `common/explaining/perturbations.py`, Eq. 1 and the search around the descent
`common/explaining/masks.py`; here they meet tensors, for N clips at a time. Any callable from clips to class
probabilities will do as a model, and nothing but the mask is differentiated:

    probabilities = lambda clips: tf.nn.softmax(model(clips))
    learnt = learn_masks(probabilities, clips, targets, masks.MaskConfig(kind="freeze"))
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common.explaining import masks, perturbations
from common.explaining.masks import BestIntervals, LearntMasks, MaskConfig

# Clips, float [N, T, H, W, C] with the values of the clips given -> class probabilities [N, K].
ScoreFn = Callable[[tf.Tensor], tf.Tensor]


class _Ops:
    """`perturbations.Ops` on tensors."""

    def constant(self, values: np.ndarray, like: tf.Tensor) -> tf.Tensor:
        return tf.constant(values, like.dtype)

    def where(self, condition: tf.Tensor, x: tf.Tensor | float, y: tf.Tensor | float) -> tf.Tensor:
        # Of two numbers of which one is a tensor, TensorFlow would take the other for float32.
        dtype = x.dtype if tf.is_tensor(x) else y.dtype
        return tf.where(condition, tf.cast(x, dtype), tf.cast(y, dtype))

    def stack(self, arrays: list[tf.Tensor], axis: int) -> tf.Tensor:
        return tf.stack(arrays, axis=axis)

    def amax(self, x: tf.Tensor, axis: int) -> tf.Tensor:
        return tf.reduce_max(x, axis=axis)


_OPS = _Ops()


def perturb(clips: tf.Tensor, mask: tf.Tensor, kind: str) -> tf.Tensor:
    """Perturbs clips over time, differentiably in the mask: A(mask) · clips.

    Args:
      clips: any dtype `[N, T, ...]`.
      mask: float `[N, T]`, 0…1, 1 means perturbed.
      kind: name of the perturbation, one of `perturbations.KINDS`.

    Returns:
      Of the mask's dtype, `[N, T, ...]`.
    """
    return _apply(perturbations.find(kind)(tf.convert_to_tensor(mask), _OPS), tf.convert_to_tensor(clips))


def _apply(matrix: tf.Tensor, clips: tf.Tensor) -> tf.Tensor:
    frames = tf.reshape(tf.cast(clips, matrix.dtype), (-1, clips.shape[1], np.prod(clips.shape[2:])))
    return tf.reshape(matrix @ frames, (-1, *clips.shape[1:]))


def mask_loss(scores: tf.Tensor, mask: tf.Tensor, config: MaskConfig) -> tf.Tensor:
    """Returns Eq. 1 of each clip, `[N]`: lambda_1 |m|_1 + lambda_2 TV(m) + F_c.

    Args:
      scores: F_c, probability of the target class of the perturbed clips, `[N]`.
      mask: `[N, T]`, 0…1.
      config: weights, power of the total variation, compat.
    """
    return masks.mask_loss(scores, mask, config, _OPS)


def initial_mask(
    score_fn: ScoreFn, clips: tf.Tensor, targets: np.ndarray, config: MaskConfig, batch_size: int = 0
) -> np.ndarray:
    """Returns the paper's first mask of each clip, float64 `[N, T]` of 0 and 1 (see `masks.initial_masks`)."""
    return MaskSearch(score_fn, config, batch_size).initial_mask(clips, targets)


def learn_masks(
    score_fn: ScoreFn, clips: tf.Tensor, targets: np.ndarray, config: MaskConfig, batch_size: int = 0
) -> LearntMasks:
    """Learns the mask that lowers the target's score most at the least cost (Eq. 1), for each clip by itself.

    Each call traces graphs anew; for many batches of clips keep one `MaskSearch`.

    Args:
      score_fn: clips, float `[N, T, H, W, C]` -> class probabilities `[N, K]`, differentiable. It is traced into a
        graph; a Keras model is called without `training`, which is inference mode.
      clips: `[N, T, H, W, C]`, any dtype; the search computes in float64 if they are float64, else in float32.
      targets: int `[N]`, class whose score is to fall.
      config: how.
      batch_size: clips at a time; 0 for all.

    Returns:
      Masks, loss traces and scores.

    Raises:
      errors.UserError: for clips or targets of another shape, or scores that are not finite or not one a class.
    """
    return MaskSearch(score_fn, config, batch_size).learn(clips, targets)


def best_interval(
    score_fn: ScoreFn, clips: tf.Tensor, targets: np.ndarray, config: MaskConfig, batch_size: int = 0
) -> BestIntervals:
    """Returns the exact optimum of Eq. 1 among all T (T + 1) / 2 masks that are one interval (the oracle)."""
    return MaskSearch(score_fn, config, batch_size).best_interval(clips, targets)


class _Graphs(NamedTuple):
    """The methods of a `MaskSearch` of these names, traced for clips of one shape."""

    score: tf.types.experimental.PolymorphicFunction
    prepare: tf.types.experimental.PolymorphicFunction
    score_prepared: tf.types.experimental.PolymorphicFunction
    step: tf.types.experimental.PolymorphicFunction


class MaskSearch:
    """The search on one model, for any number of batches of clips; its graphs are traced once for a shape of clips.

    Args:
      score_fn: see `learn_masks`. If it also has `prepare(clips)` and `perturbed(prepared, matrix)`, which returns what
        it would for matrix · clips, these are used: what all perturbations of a clip share is then computed once.
      config: how.
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
        self._traced: dict[tuple, _Graphs] = {}

    def initial_mask(self, clips: tf.Tensor, targets: np.ndarray) -> np.ndarray:
        """Returns the paper's first masks, float64 `[N, T]`."""
        return masks.initial_masks(_Scorer(self, clips, targets), self.config)

    def best_interval(self, clips: tf.Tensor, targets: np.ndarray) -> BestIntervals:
        """Tries every interval."""
        return masks.best_intervals(_Scorer(self, clips, targets), self.config)

    def learn(
        self,
        clips: tf.Tensor,
        targets: np.ndarray,
        oracle: BestIntervals | None = None,
        first: np.ndarray | None = None,
    ) -> LearntMasks:
        """Learns masks.

        Args:
          clips: `[N, T, H, W, C]`.
          targets: int `[N]`.
          oracle: what `best_interval` found for these clips, where it is known already.
          first: masks of 0 and 1, `[N, T]`, to start from instead of what the config says.
        """
        return masks.learn_masks(_Scorer(self, clips, targets), self.config, oracle, first)

    def scores(
        self, clips: tf.Tensor, targets: np.ndarray, numbers: np.ndarray, values: np.ndarray, kind: str
    ) -> np.ndarray:
        """Returns F_c, float64 `[M]`, of clips `numbers`, int `[M]`, under masks `values`, float `[M, T]`."""
        return _Scorer(self, clips, targets).scores(numbers, values, kind)

    def traced(self, clips: tf.Tensor, dtype: tf.DType) -> _Graphs:
        """Returns the search's graphs for clips of a shape, of any number."""
        time = clips.shape[1]
        key = (*clips.shape[1:], clips.dtype, dtype)
        if key not in self._traced:
            given, targets = tf.TensorSpec((None, *clips.shape[1:]), clips.dtype), tf.TensorSpec((None,), tf.int64)
            state, number = tf.TensorSpec((None, time), dtype), tf.TensorSpec((), dtype)
            matrix = tf.TensorSpec((None, time, time), dtype)
            prepare = tf.function(self._prepare, input_signature=(given,), autograph=False)
            prepared = prepare.get_concrete_function().structured_outputs
            prepared = tf.TensorSpec((None, *prepared.shape[1:]), prepared.dtype)
            step = (prepared, targets, (state,) * 3, (number,) * 2)
            self._traced[key] = _Graphs(
                tf.function(self._score, input_signature=(given, targets, matrix), autograph=False),
                prepare,
                tf.function(self._score_prepared, input_signature=(prepared, targets, matrix), autograph=False),
                tf.function(self._step, input_signature=step, autograph=False),
            )
        return self._traced[key]

    def _score(self, clips: tf.Tensor, targets: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Returns F_c `[N]` of clips perturbed by matrices `[N, T, T]`, in the matrices' dtype."""
        return tf.cast(_of_targets(self.score_fn(_apply(matrix, clips)), targets), matrix.dtype)

    def _score_prepared(self, prepared: tf.Tensor, targets: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """The same, of prepared clips; one clip may meet many matrices."""
        if not hasattr(self.score_fn, "prepare"):
            return self._score(prepared, targets, matrix)
        return tf.cast(_of_targets(self.score_fn.perturbed(prepared, matrix), targets), matrix.dtype)

    def _prepare(self, clips: tf.Tensor) -> tf.Tensor:
        """Returns what `_step` takes of clips."""
        return self.score_fn.prepare(clips) if hasattr(self.score_fn, "prepare") else clips

    def _step(
        self,
        prepared: tf.Tensor,
        targets: tf.Tensor,
        state: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        corrections: tuple[tf.Tensor, tf.Tensor],
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Returns the loss `[N]` before a step of Adam, and its state, of which the first is the logits, after it."""
        logits = state[0]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(logits)
            mask = tf.sigmoid(logits)
            score = self._score_prepared(prepared, targets, perturbations.find(self.config.kind)(mask, _OPS))
            loss = mask_loss(score, mask, self.config)
        masks.check_gradient(tape.gradient(score, logits) is not None)  # Of a graph; nothing is computed for it.
        gradient = tape.gradient(loss, logits)
        return loss, masks.adam_step(state, gradient, corrections, self.config.learning_rate)


class _Scorer:
    """A search with its clips (see `masks.Scorer`)."""

    def __init__(self, search: MaskSearch, clips: tf.Tensor, targets: np.ndarray) -> None:
        self._search, self._clips = search, tf.convert_to_tensor(clips)
        targets = masks.check_clips(tuple(self._clips.shape), targets)
        self.num_clips, self.time = self._clips.shape[:2]
        self._dtype = tf.float64 if self._clips.dtype == tf.float64 else tf.float32
        self._targets = tf.constant(targets)
        self._batch_size = search.batch_size or self.num_clips
        self._graphs = search.traced(self._clips, self._dtype)
        self._kept: tuple[np.ndarray, tf.Tensor] | None = None  # Which clips were prepared last, and the result.
        masks.check_probabilities(_numpy(search.score_fn(tf.cast(self._clips[:1], self._dtype))), targets)

    def scores(self, clips: np.ndarray, values: np.ndarray, kind: str) -> np.ndarray:
        matrices = perturbations.matrix(values, kind)
        parts = [self._score(clips[some], self._tensor(matrices[some])) for some in self._batches(len(clips))]
        return masks.check_finite(np.concatenate([_numpy(part) for part in parts]), "Scores")

    def descend(self, clips: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [self._descend(clips[some], self._tensor(starts[some])) for some in self._batches(len(clips))]
        found, losses = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return found, masks.check_finite(losses, "Losses")

    def _score(self, clips: np.ndarray, matrices: tf.Tensor) -> tf.Tensor:
        targets = tf.gather(self._targets, clips)
        if (clips == clips[0]).all():  # Many masks of one clip, as the oracle tries them.
            return self._graphs.score_prepared(self._prepared(clips[:1]), targets, matrices)
        return self._graphs.score(tf.gather(self._clips, clips), targets, matrices)

    def _descend(self, clips: np.ndarray, logits: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        prepared, targets = self._prepared(clips), tf.gather(self._targets, clips)
        state, losses = (logits, tf.zeros_like(logits), tf.zeros_like(logits)), []
        for step in range(self._search.config.iterations):
            corrections = tuple(self._tensor(value) for value in masks.adam_corrections(step + 1))
            loss, state = self._graphs.step(prepared, targets, state, corrections)
            losses.append(loss)
            self._search.on_step(len(logits))
        return _numpy(tf.sigmoid(state[0])), _numpy(tf.stack(losses, axis=1))

    def _batches(self, total: int) -> list[slice]:
        return [slice(start, start + self._batch_size) for start in range(0, total, self._batch_size)]

    def _prepared(self, clips: np.ndarray) -> tf.Tensor:
        if self._kept is None or not np.array_equal(self._kept[0], clips):
            self._kept = None  # Two at a time may not fit.
            self._kept = clips, self._graphs.prepare(tf.gather(self._clips, clips))
        return self._kept[1]

    def _tensor(self, values: np.ndarray | float) -> tf.Tensor:
        return tf.constant(values, self._dtype)


def _of_targets(probabilities: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    return tf.gather(probabilities, targets, axis=1, batch_dims=1)


def _numpy(tensor: tf.Tensor) -> np.ndarray:
    return tf.cast(tensor, tf.float64).numpy()
