"""Evaluation in TensorFlow: predictions; all the rest is `common.runs.evaluation_loop`."""

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from common.explaining import model_checks
from common.models import configs
from common.models.foreign import ForeignModel, log_probabilities
from common.runs import evaluation_loop
from common.runs.subjects import Classifier, Trained
from tf_impl import devices, foreign, layers, processes, weights


def evaluate(
    settings: evaluation_loop.EvaluateSettings, precision: str = "float32", device: str = "auto"
) -> Iterator[dict[str, Any] | None]:
    """Evaluates models forward and reversed, each when it is asked for (see `evaluation_loop.evaluate`).

    Args:
      settings: which models, on which clips.
      precision: "float32", "tf32" (a GPU only), "bfloat16" or "float64".
      device: "auto", "cpu" or "gpu".
    """

    def make_predict(classifier: Classifier) -> evaluation_loop.PredictBatch:
        if isinstance(classifier, Trained):
            return predictor(classifier.config, classifier.weights, precision, device)
        return foreign_predictor(classifier, precision, device)

    load = functools.partial(foreign.load, precision=precision, device=device)
    with processes.joined(device) as those:
        yield from evaluation_loop.evaluate(settings, make_predict, "tf", load, those)


def predictor(
    config: configs.ModelConfig, arrays: dict[str, np.ndarray], precision: str = "float32", device: str = "auto"
) -> evaluation_loop.PredictBatch:
    """Returns a function from clips, uint8 [N, T, H, W, 3], to logits [N, K], in inference mode.

    Args:
      config: the model.
      arrays: its canonical weights.
      precision: of the computation.
      device: "auto", "cpu" or "gpu".
    """
    found = devices.find_device(device, precision)
    place = None if tf.distribute.has_strategy() else found  # A strategy places what it replicates.
    return logits_of(weights.build_model(config, precision, device=place, arrays=arrays), config, place)


def logits_of(model: keras.Model, config: configs.ModelConfig, place: str | None) -> evaluation_loop.PredictBatch:
    """Returns a function from clips, uint8 [N, T, H, W, 3], to logits [N, K] of a model, in inference mode.

    Where the model has replicas, on several GPUs, a batch is split among them.

    Args:
      model: that is built.
      config: of that model.
      place: where it lies, if it has no replicas.
    """
    if tf.distribute.has_strategy():
        # Values of replicas have no signature; a batch of another size is traced once more at most.
        replicated = tf.function(
            lambda frames: tf.distribute.get_strategy().run(model, (frames,)), autograph=False, reduce_retracing=True
        )
        return lambda frames: processes.joined_rows(replicated(*processes.split(frames)), len(frames))
    logits = tf.function(model, input_signature=(frames_spec(config),), autograph=False)

    def predict(frames: np.ndarray) -> ArrayLike:
        with tf.device(place):
            return logits(frames)

    return predict


def foreign_predictor(
    model: ForeignModel, precision: str = "float32", device: str = "auto"
) -> evaluation_loop.PredictBatch:
    """Returns a function from clips, uint8 [N, T, H, W, 3], to log-probabilities, float64 [N, K].

    They stand for logits, whose softmax they are the logarithm of. A model whose probabilities for a clip change from
    call to call, or with the clips beside it, is refused.

    Args:
      model: that the build has loaded.
      precision: that it was loaded in; in float64 clips are float64 too.
      device: "auto", "cpu" or "gpu", where it lies.
    """
    place = devices.find_device(device, precision)
    dtype = tf.float64 if precision == "float64" else tf.float32
    traceable = tf.function(model.score_fn, autograph=False)

    @functools.cache
    def graph(*shape: int) -> Any:
        return layers.traced(traceable, tf.TensorSpec((None, *shape), dtype))

    def score(frames: np.ndarray) -> np.ndarray:
        with tf.device(place):
            probabilities = graph(*frames.shape[1:])(tf.cast(frames, dtype))
        model_checks.check_tensor(probabilities, tf.Tensor, model_checks.PROBABILITIES)
        return tf.cast(probabilities, tf.float64).numpy()

    probabilities_of = model_checks.steady(score)

    def predict(frames: np.ndarray) -> np.ndarray:
        return log_probabilities(probabilities_of(frames), len(frames))

    return predict


def frames_spec(config: configs.ModelConfig) -> tf.TensorSpec:
    """Returns the signature of a batch of clips of any size, so that one trace serves all."""
    return tf.TensorSpec((None, *config.input_shape, 3), tf.uint8)
