"""Grad-CAM in TensorFlow (section 3.2, Eq. 2): where in the activations of an endpoint a class score comes from.

Here are the forward pass to endpoint and logits, and the gradient between the two; Eq. 2 itself, up-sampling and
normalisation are `common/explaining/gradcam_maps.py`. Works on any callable from clips to logits and activations.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Shaped

from common import errors
from common.explaining import gradcam_maps
from common.explaining.gradcam_maps import GradCamConfig
from tf_impl import weights

# Clips [N, T, H, W, C], uint8 or float -> logits [N, K] and activations [N, T', H', W', C], from which the logits were
# computed in inference mode. It is traced into a graph.
EndpointFn = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def gradcam(
    endpoint_fn: EndpointFn, clips: Shaped[tf.Tensor | np.ndarray, "N T H W C"], targets: Any, config: GradCamConfig
) -> Float[np.ndarray, "N t h w"]:
    """Returns coarse Grad-CAM maps (see `GradCam`, which many batches should share)."""
    return GradCam(endpoint_fn, config)(clips, targets)


class GradCam:
    """Coarse Grad-CAM maps of one endpoint, batch after batch.

    It holds one graph for each shape and dtype of a clip, which serves batches of any size.

    Args:
      endpoint_fn: from clips to logits and activations.
      config: weights and score; the endpoint is the function's.
    """

    def __init__(self, endpoint_fn: EndpointFn, config: GradCamConfig) -> None:
        self._endpoint_fn, self._config = endpoint_fn, config
        self._traced = tf.function(self._outcome, autograph=False)

    def __call__(
        self, clips: Shaped[tf.Tensor | np.ndarray, "N T H W C"], targets: Any
    ) -> Float[np.ndarray, "N t h w"]:
        """Explains clips; what comes out for a clip does not depend on the others.

        Args:
          clips: what the function takes.
          targets: class to explain of each clip, int `[N]`.

        Returns:
          Maps at least 0, not normalised; float64 where the activations are, else float32.

        Raises:
          UserError: for a target that is not a class, or activations that are not `[N, T', H', W', C]` or not used.
        """
        clips = tf.convert_to_tensor(clips)
        specs = tf.TensorSpec((None, *clips.shape[1:]), clips.dtype), tf.TensorSpec((None,), tf.int64)
        outcome = self._traced.get_concrete_function(*specs)
        num_classes = outcome.structured_outputs[0].shape[1]
        chosen = gradcam_maps.check_targets(targets, clips.shape[0], num_classes)
        _, activations, gradients = outcome(clips, tf.constant(chosen))
        return gradcam_maps.combine(activations.numpy(), gradients.numpy(), self._config.weights)

    def _outcome(self, clips: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns logits, activations, and the gradient of the targets' scores in the activations."""
        logits, activations = self._endpoint_fn(clips)
        gradcam_maps.check_shapes(tuple(activations.shape), tuple(logits.shape))
        scores = _full(logits)
        if self._config.score == "probability":
            scores = tf.nn.softmax(scores)
        # In a graph, and of what lies between the two alone: a tape would have to record all before the activations.
        score = tf.reduce_sum(tf.gather(scores, targets, batch_dims=1))
        (gradients,) = tf.gradients(score, activations)
        if gradients is None:
            raise errors.UserError("Logits must be computed from the endpoint's activations. Received: no gradient")
        return logits, _full(activations), _full(gradients)


def endpoint_fn(model: keras.Model, endpoint: str = "") -> EndpointFn:
    """Returns the function from clips to logits and the activations of an endpoint, in inference mode.

    Args:
      model: an I3D or a ConvLSTM of this package, or any functional or Sequential model from clips `[N, T, H, W, C]`
        to logits `[N, K]`.
      endpoint: one of the model's endpoints, "" for the paper's; of any other model, a layer by its name. Where the
        layer is called several times, the first call counts.

    Raises:
      UserError: for an endpoint that the model does not have; lists those it has.
    """
    if isinstance(model, weights.Model):
        endpoint = gradcam_maps.find_endpoint(model.config, endpoint)

        def run(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits, endpoints = model(clips, return_endpoints=True)
            return logits, endpoints[endpoint]

        return run
    names = [layer.name for layer in model.layers]
    errors.check_choice("endpoint", endpoint, names)
    parts = _parts(model, endpoint)
    return lambda clips: parts(clips, training=False)


def _parts(model: keras.Model, endpoint: str) -> keras.Model:
    """Returns the model from clips to logits and a layer's output."""
    try:
        (clips,), (logits,), activations = model.inputs, model.outputs, model.get_layer(endpoint).output
        return keras.Model(clips, (logits, activations))
    except (AttributeError, TypeError, ValueError) as error:
        raise errors.UserError(
            "Grad-CAM must be given a functional or Sequential model with one input and one output, and a "
            "layer within it. "
            f"Received: {model.name}, {endpoint}: {error}"
        ) from None


def _full(x: tf.Tensor) -> tf.Tensor:
    """Returns float64 as it is, and anything else as float32."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
