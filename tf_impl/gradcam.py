"""Grad-CAM in TensorFlow (section 3.2, Eq. 2): where in the activations of an endpoint a class score comes from.

Here are the forward pass to endpoint and logits, and the gradient between the two; Eq. 2 itself, up-sampling and
normalisation are `common/explaining/gradcam_maps.py`. Works on any callable from clips to logits and activations.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Shaped

from common import errors
from common.explaining import attention_rollout, gradcam_maps, layer_axes, model_checks
from common.explaining.gradcam_maps import GradCamConfig
from tf_impl import layers, weights

# Clips [N, T, H, W, C], uint8 or float -> logits [N, K] and activations [N, T', H', W', C'], from which the logits
# were computed. It is traced into a graph.
EndpointFn = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

LAYER_AXES = "NTHWC"  # Of what Keras' 3-D layers take and return.


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
    model: keras.Model,
    endpoint: str = "",
    clips_axes: str = "",
    activations_axes: str = "",
    grid: tuple[int, int, int] | None = None,
    class_tokens: int | None = None,
) -> EndpointFn:
    """Returns the function from clips to logits and the activations of an endpoint, in inference mode.

    Args:
      model: an I3D or a ConvLSTM of this package, or any Keras model that returns logits `[N, K]` (see
        `model_checks.find_logits`).
      endpoint: one of the model's endpoints, "" for the paper's; of any other model, a layer by its path: a name or an
        attribute of each part that leads to it, as in "encoder/blocks/3/norm", or by the end of it. Where the layer is
        called several times, the first call counts.
      clips_axes: the order of the axes in which any other model takes clips, as letters: "NCTHW", "NTHWC", "NTCHW";
        "" for `LAYER_AXES`. A model with a layer of `channels_first` must be given both orders.
      activations_axes: the order in which its layer returns activations, tokens and single frames with brackets (see
        `layer_axes`): "N(THW)C", "(NT)HWC"; "" for `LAYER_AXES`.
      grid: T', H', W' of tokens; None where the model's patches, the convolutions whose kernel is their stride, say it.
      class_tokens: tokens before those of the grid, which are left out; None for 0 or 1, whichever fits.

    Raises:
      UserError: for an endpoint that the model does not have (lists those it has), or axes that cannot be.
    """
    if isinstance(model, weights.Model):
        endpoint = gradcam_maps.find_endpoint(model.config, endpoint)

        def run_ours(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits, endpoints = model(clips, return_endpoints=True)
            return logits, endpoints[endpoint]

        return run_ours
    inputs = getattr(model, "inputs", None) or [None]  # Known of a graph of layers alone.
    if len(inputs) != 1:
        raise errors.UserError(f"Grad-CAM must be given a model with one input, clips. Received: {len(inputs)} inputs")
    named = list(_named_layers(model))
    layer = layer_axes.find_layer(endpoint, named, "/")
    _check_channels_first(named, clips_axes, activations_axes)
    axes = layer_axes.LayerAxes(activations_axes or LAYER_AXES, grid, class_tokens)
    axes.check_channels(_channels(layer))
    to_model = layer_axes.permutation(layer_axes.BORDER_AXES, clips_axes or LAYER_AXES)
    patches = _patches(named)

    def run(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        activations: list[tf.Tensor] = []

        def cut(output: Any) -> Any:
            found = model_checks.find_activations(output, tf.Tensor, axes)
            time, height, width = clips.shape[1:4]
            fold = axes.fold(tuple(found.shape), (time, height, width), patches)
            activations.append(_folded(found, fold))
            return model_checks.with_activations(output, _unfolded(activations[0], found, fold))

        with _first_call(layer, cut):
            output = model(tf.transpose(clips, to_model), training=False)
        model_checks.check_called(activations, endpoint)
        return model_checks.find_logits(output, tf.Tensor), activations[0]

    return run


def attentions(
    model: keras.Model,
    endpoints: Sequence[str],
    clips: Shaped[tf.Tensor | np.ndarray, "N T H W C"],
    clips_axes: str = "",
) -> Float[np.ndarray, "layers n heads L L"]:
    """Returns the attentions of layers, for `attention_rollout`; the model is in inference mode.

    Args:
      model: any Keras model; see `endpoint_fn`.
      endpoints: layers that return their attention (see `model_checks.find_attention`), by name as in `endpoint_fn`,
        the first one first.
      clips: what the function takes that `endpoint_fn` returns.
      clips_axes: see `endpoint_fn`.

    Raises:
      UserError: for unknown layers, and layers that return no attention.
    """
    found: list[list[np.ndarray]] = [[] for _ in endpoints]
    to_model = layer_axes.permutation(layer_axes.BORDER_AXES, clips_axes or LAYER_AXES)
    named = list(_named_layers(model))
    _check_channels_first(named, clips_axes, clips_axes)

    def recorded(outputs: list[np.ndarray]) -> Callable[[Any], Any]:
        def record(output: Any) -> Any:
            outputs.append(_full(model_checks.find_attention(output, tf.Tensor)).numpy())
            return output

        return record

    with contextlib.ExitStack() as stack:
        for endpoint, outputs in zip(endpoints, found, strict=True):
            stack.enter_context(_first_call(layer_axes.find_layer(endpoint, named, "/"), recorded(outputs)))
        model(tf.transpose(clips, to_model), training=False)
    for endpoint, outputs in zip(endpoints, found, strict=True):
        model_checks.check_called(outputs, endpoint)
    return attention_rollout.stack([outputs[0] for outputs in found])


def _named_layers(model: keras.Layer) -> Iterator[tuple[list[str], keras.Layer]]:
    """Yields the layers within a layer, each by its paths: of every part the attribute that holds it, and its name."""
    for names, layer in _parts(model):
        yield names, layer
        for inner_names, inner in _named_layers(layer):
            yield [f"{outer}/{name}" for outer in names for name in inner_names], inner


def _parts(layer: keras.Layer) -> Iterator[tuple[list[str], keras.Layer]]:
    """Yields the layers that a layer holds itself, each by its name and by the attribute (and place in it), if any."""
    attributes: dict[int, str] = {}
    parts = {id(part): part for part in layer.layers} if isinstance(layer, keras.Model) else {}
    for attribute, value in vars(layer).items():
        if attribute.startswith("_"):
            continue
        held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
        for name, part in [(attribute, value), *((f"{attribute}/{key}", part) for key, part in held)]:
            if isinstance(part, keras.Layer):
                attributes.setdefault(id(part), name)
                parts.setdefault(id(part), part)
    for key, part in parts.items():
        if not isinstance(part, keras.layers.InputLayer):  # It is never called.
            yield list(dict.fromkeys([part.name, attributes.get(key, part.name)])), part


def _check_channels_first(named: list[tuple[list[str], keras.Layer]], clips_axes: str, activations_axes: str) -> None:
    """Refuses a model with layers of `channels_first` unless both orders of axes are given: no default can be right."""
    if clips_axes and activations_axes:
        return
    for paths, layer in named:
        if getattr(layer, "data_format", None) == "channels_first":
            raise errors.UserError(
                "clips_axes and activations_axes must be given for a model with layers of channels_first. "
                f"Received: {clips_axes!r} and {activations_axes!r} for a model with {paths[0]}"
            )


def _channels(layer: keras.Layer) -> int | None:
    """Returns which axis of its output a layer says that the channels are; None for layers that do not say."""
    if isinstance(layer, keras.layers.TimeDistributed):
        inner = _channels(layer.layer)
        return inner if inner is None or inner < 0 else inner + 1
    if hasattr(layer, "data_format"):
        first = layer.data_format == "channels_first"
        # A ConvLSTM has time before them.
        return (2 if hasattr(layer, "return_sequences") else 1) if first else -1
    if isinstance(layer, keras.layers.BatchNormalization | keras.layers.LayerNormalization):
        return layer.axis if isinstance(layer.axis, int) else layer.axis[-1] if len(layer.axis) == 1 else None
    return -1 if isinstance(layer, keras.layers.Dense | keras.layers.MultiHeadAttention) else None


def _patches(named: list[tuple[list[str], keras.Layer]]) -> list[tuple[int, ...]]:
    """Returns the sizes (T, H, W) of the patches that a model cuts clips into, one for each convolution that does."""
    convs = [layer for _, layer in named if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv3D)]
    sizes = [(tuple(conv.kernel_size), tuple(conv.strides)) for conv in convs if max(conv.kernel_size) > 1]
    return [((1,) * (3 - len(kernel))) + kernel for kernel, stride in sizes if kernel == stride]


@contextlib.contextmanager
def _first_call(layer: keras.Layer, change: Callable[[Any], Any]) -> Iterator[None]:
    """Changes what a layer returns when it is first called in the current graph."""
    call, graph = layer.call, tf.compat.v1.get_default_graph()
    refused: list[errors.UserError] = []
    called = False

    @functools.wraps(call)
    def changed(*args: Any, **kwargs: Any) -> Any:
        nonlocal called
        output = call(*args, **kwargs)
        parts = output if isinstance(output, tuple | list) else [output]
        # Keras calls the layers of a model that is not built yet in a graph that it throws away.
        if called or any(getattr(part, "graph", graph) is not graph for part in parts):
            return output
        called = True
        try:
            return change(output)
        except errors.UserError as error:
            refused.append(error)  # Raised outside the layer: Keras would put its own words around it.
            return output

    own = vars(layer).get("call")
    vars(layer)["call"] = changed  # Not by assignment, which Keras would keep a record of.
    try:
        yield
    finally:
        del vars(layer)["call"]
        if own is not None:
            vars(layer)["call"] = own
    if refused:
        raise refused[0]


def _folded(output: tf.Tensor, fold: layer_axes.Fold) -> tf.Tensor:
    """Returns a layer's output as activations `[N, T', H', W', C']`, without what it has before the grid."""
    kept = _parts_of(output, fold)[1] if fold.skipped else output
    return tf.transpose(kept if fold.shape is None else tf.reshape(kept, fold.shape), fold.order)


def _unfolded(activations: tf.Tensor, output: tf.Tensor, fold: layer_axes.Fold) -> tf.Tensor:
    """Returns a layer's output with these activations: the way back from `_folded`."""
    tokens = tf.transpose(activations, fold.back)
    if fold.shape is None:
        return tokens
    skipped, kept = _parts_of(output, fold)
    joined = tf.concat([skipped, tf.reshape(tokens, tf.shape(kept))], fold.axis)
    joined.set_shape(output.shape)
    return joined


def _parts_of(output: tf.Tensor, fold: layer_axes.Fold) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the tokens that are left out, and the others."""
    before = (slice(None),) * fold.axis
    skipped, kept = (*before, slice(fold.skipped)), (*before, slice(fold.skipped, None))
    return output[skipped], output[kept]


def _full(x: tf.Tensor) -> tf.Tensor:
    """Returns float64 as it is, and anything else as float32."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
