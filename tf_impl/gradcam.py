"""Grad-CAM in TensorFlow (section 3.2, Eq. 2): where in the activations of an endpoint a class score comes from.

Here are the forward pass to endpoint and logits, and the gradient between the two; Eq. 2 itself, up-sampling and
normalisation are `common/explaining/gradcam_maps.py`. Works on any callable from clips to logits and activations.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Shaped

from common import errors
from common.explaining import gradcam_maps, model_checks
from common.explaining.gradcam_maps import GradCamConfig
from tf_impl import layers, weights

# Clips [N, T, H, W, C], uint8 or float -> logits [N, K] and activations [N, T', H', W', C'], from which the logits
# were computed. It is traced into a graph.
EndpointFn = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

LAYER_AXES = "NTHWC"  # Of what Keras' 3-D layers take and return.
_CHANNELS = {"channels_first": 1, "channels_last": 4}  # Which axis they are.


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
          UserError: for a target that is not a class; for activations that are not `[N, T', H', W', C']` of the clips,
            not used or not finite; for probabilities where logits are wanted.
        """
        clips = tf.convert_to_tensor(clips)
        specs = tf.TensorSpec((None, *clips.shape[1:]), clips.dtype), tf.TensorSpec((None,), tf.int64)
        try:
            outcome = self._traced.get_concrete_function(*specs)
        except errors.UserError:
            raise
        except Exception:
            # What cannot be traced may return no tensors at all, as `model.predict`: then that is what is wrong.
            model_checks.check_endpoint(self._endpoint_fn(clips), tf.Tensor)
            raise
        num_classes = outcome.structured_outputs[0].shape[1]
        chosen = gradcam_maps.check_targets(targets, clips.shape[0], num_classes)
        logits, activations, gradients = outcome(clips, tf.constant(chosen))
        gradcam_maps.check_logits(logits.numpy(), self._config.score)
        return gradcam_maps.combine(activations.numpy(), gradients.numpy(), self._config.weights)

    def _outcome(self, clips: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns logits, activations, and the gradient of the targets' scores in the activations."""
        logits, activations = model_checks.check_endpoint(self._endpoint_fn(clips), tf.Tensor)
        layers.check_constant(logits.graph)
        gradcam_maps.check_shapes(tuple(clips.shape), tuple(activations.shape), tuple(logits.shape))
        scores = _full(logits)
        if self._config.score == "probability":
            scores = tf.nn.softmax(scores)
        # In a graph, and of what lies between the two alone: a tape would have to record all before the activations.
        score = tf.reduce_sum(tf.gather(scores, targets, batch_dims=1))
        (gradients,) = tf.gradients(score, activations)
        if gradients is None:
            raise errors.UserError("Logits must be computed from the endpoint's activations. Received: no gradient")
        return _full(logits), _full(activations), _full(gradients)


def endpoint_fn(
    model: keras.Model, endpoint: str = "", clips_axes: str = LAYER_AXES, activations_axes: str = LAYER_AXES
) -> EndpointFn:
    """Returns the function from clips to logits and the activations of an endpoint, in inference mode.

    Args:
      model: an I3D or a ConvLSTM of this package, or any Keras model from clips to logits `[N, K]`.
      endpoint: one of the model's endpoints, "" for the paper's; of any other model, a layer by its name, or within an
        inner model by "inner/layer". Where the layer is called several times, the first call counts.
      clips_axes: the order of the axes in which any other model takes clips, as letters: "NCTHW", "NTHWC", "NTCHW".
      activations_axes: the order in which its layer returns activations.

    Raises:
      UserError: for an endpoint that the model does not have (lists those it has), or axes that cannot be.
    """
    if isinstance(model, weights.Model):
        endpoint = gradcam_maps.find_endpoint(model.config, endpoint)

        def run_ours(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits, endpoints = model(clips, return_endpoints=True)
            return logits, endpoints[endpoint]

        return run_ours
    layer = _find(model, endpoint)
    gradcam_maps.check_axes(activations_axes, _channels(layer))
    to_model = gradcam_maps.permutation(gradcam_maps.BORDER_AXES, clips_axes)

    def run(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with _recorded(layer, activations_axes) as outputs:
            logits = model(tf.transpose(clips, to_model), training=False)
        model_checks.check_called(outputs, endpoint)
        activations = model_checks.check_layer(outputs[0], tf.Tensor)
        return model_checks.check_tensor(logits, tf.Tensor, model_checks.LOGITS), activations

    return run


def _find(model: keras.Model, endpoint: str) -> keras.layers.Layer:
    """Returns the layer of a name; refuses models with other inputs than clips, and names of no layer or of several."""
    inputs = getattr(model, "inputs", None) or [None]  # Known of a graph of layers alone.
    if len(inputs) != 1:
        raise errors.UserError(f"Grad-CAM must be given a model with one input, clips. Received: {len(inputs)} inputs")
    named = list(_named_layers(model))
    errors.check_choice("endpoint", endpoint, [name for name, _ in named])
    found = [layer for name, layer in named if name == endpoint]
    if len(found) > 1:
        raise errors.UserError(f"endpoint must be the name of one layer. Received: {endpoint!r}, of {len(found)}")
    return found[0]


def _named_layers(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields a model's layers by name, and those of a model within it by "its name/theirs"."""
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):  # It is never called.
            yield layer.name, layer
        if isinstance(layer, keras.Model):
            yield from ((f"{layer.name}/{name}", inner) for name, inner in _named_layers(layer))


def _channels(layer: keras.layers.Layer) -> int | None:
    """Returns which axis of its output a layer says that the channels are; None for layers that do not say."""
    says = isinstance(layer, keras.layers.Conv3D | keras.layers.MaxPooling3D | keras.layers.AveragePooling3D)
    return _CHANNELS[layer.data_format] if says else None


@contextlib.contextmanager
def _recorded(layer: keras.layers.Layer, axes: str) -> Iterator[list]:
    """Yields a list to which the first output of a layer is appended, clips in the border's order of axes."""
    to_border = gradcam_maps.permutation(axes, gradcam_maps.BORDER_AXES)
    to_layer = gradcam_maps.permutation(gradcam_maps.BORDER_AXES, axes)
    outputs: list = []
    call, graph = layer.call, tf.compat.v1.get_default_graph()

    @functools.wraps(call)
    def record(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        # Keras calls the layers of a model that is not built yet in a graph that it throws away.
        if outputs or getattr(output, "graph", graph) is not graph:
            return output
        if not isinstance(output, tf.Tensor) or output.shape.rank != 5:
            outputs.append(output)  # Refused outside the layer: Keras would put its own words around the error's.
            return output
        outputs.append(tf.transpose(output, to_border))
        return tf.transpose(outputs[0], to_layer)

    own = vars(layer).get("call")
    vars(layer)["call"] = record  # Not by assignment, which Keras would keep a record of.
    try:
        yield outputs
    finally:
        del vars(layer)["call"]
        if own is not None:
            vars(layer)["call"] = own


def _full(x: tf.Tensor) -> tf.Tensor:
    """Returns float64 as it is, and anything else as float32."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
