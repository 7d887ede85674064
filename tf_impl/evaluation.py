"""Evaluation in TensorFlow: predictions; all the rest is `common.runs.evaluation_loop`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from common.models import configs
from common.runs import evaluation_loop
from tf_impl import devices, weights


def evaluate(
    settings: evaluation_loop.EvaluateSettings, precision: str = "float32", device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """Evaluates runs forward and reversed, each when it is asked for (see `evaluation_loop.evaluate`).

    Args:
      settings: which runs, on which clips.
      precision: "float32", "tf32" (a GPU only), "bfloat16" or "float64".
      device: "auto", "cpu" or "gpu".
    """

    def make_predict(model: configs.ModelConfig, arrays: dict[str, np.ndarray]) -> evaluation_loop.PredictBatch:
        return predictor(model, arrays, precision, device)

    return evaluation_loop.evaluate(settings, make_predict, framework="tf")


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
    place = devices.find_device(device, precision)
    model = weights.build_model(config, precision, device=place, arrays=arrays)
    logits = tf.function(model, input_signature=(frames_spec(config),), autograph=False)

    def predict(frames: np.ndarray) -> ArrayLike:
        with tf.device(place):
            return logits(frames).numpy()

    return predict


def frames_spec(config: configs.ModelConfig) -> tf.TensorSpec:
    """Returns the signature of a batch of clips of any size, so that one trace serves all."""
    return tf.TensorSpec((None, *config.input_shape, 3), tf.uint8)
