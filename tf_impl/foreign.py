"""Foreign models in TensorFlow: adapters from what `--model` names to `common.models.foreign.ForeignModel`.

An adapter knows how a file is opened, what the model takes instead of pixels, and which shape of clips. Nothing in a
file is run but operations of TensorFlow and layers of Keras.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from common import errors, files
from common.explaining import model_checks
from common.models import foreign
from common.models.foreign import ForeignModel, Inputs, Spec
from tf_impl import devices, gradcam


def load(spec: Spec, endpoint: str = "", precision: str = "float32", device: str = "auto") -> ForeignModel:
    """Loads a foreign model, in inference mode.

    Args:
      spec: what `--model` says.
      endpoint: layer for Grad-CAM; "" for what the adapter knows of the model, which may be none.
      precision: "float32", "tf32" (a GPU only), "bfloat16" or "float64".
      device: "auto", "cpu" or "gpu".

    Raises:
      errors.UserError: for a kind of the other build, a library that is not installed, weights that are not there or do
        not fit, and a model that is no classifier of clips.
    """
    foreign.check_kind(spec, "tf", endpoint)
    with tf.device(devices.find_device(device, precision)):
        if spec.kind == "python":
            return foreign.with_names(foreign.from_python(spec), spec)
        if spec.weights:
            raise errors.UserError(
                f"--weights must be left out for {spec.kind}:, which has its own. Received: {spec.weights}"
            )
        if precision not in ("float32", "tf32"):
            raise errors.UserError(
                f"--precision must be float32 for {spec.kind}:, as it was saved. Received: {precision}"
            )
        return foreign.with_names((_keras if spec.kind == "keras" else _saved_model)(spec, endpoint), spec)


class ScoreFn(foreign.Adapted):
    """An adapted model's probabilities, `[N, K]`, for clips of pixels, float `[N, T, H, W, 3]`, 0…255."""

    def __call__(self, clips: tf.Tensor) -> tf.Tensor:
        """Clips -> probabilities `[N, K]`."""
        try:
            output = self.module(tf.transpose(self.prepared(clips), self.inputs.permutation))
        except (ValueError, tf.errors.InvalidArgumentError) as error:  # What layers say of a shape that is not theirs.
            raise errors.UserError(
                f"A model must take clips of T x H x W = {foreign.shape_text(clips.shape[1:4])}. "
                f"Received: {errors.first_line(error)}"
            ) from error
        output = tf.cast(model_checks.find_logits(output, tf.Tensor), tf.float32)
        return output if self.ends_in_softmax else tf.nn.softmax(output)

    def prepared(self, clips: tf.Tensor) -> tf.Tensor:
        """Clips of pixels -> what the module takes, still `[N, T, H, W, 3]`."""
        clips = tf.cast(clips, tf.float32)
        return clips * tf.constant(self.inputs.scale, tf.float32) + tf.constant(self.inputs.shift, tf.float32)


def _keras(spec: Spec, endpoint: str) -> ForeignModel:
    """Of a file that `model.save` wrote; whatever in it is code, as lambdas are, is refused by Keras."""
    path = pathlib.Path(spec.rest)
    if path.suffix != ".keras":
        raise errors.UserError(f"--model=keras: must name a file that ends in .keras. Received: {path}")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except OSError:
        raise
    except Exception as error:  # Whatever a damaged file, or a class that is not there, sets off.
        raise errors.UserError(
            f"--model=keras: must be a model of Keras. Received: {path}: {errors.first_line(error)}"
        ) from None
    if len(getattr(model, "inputs", None) or [()]) > 1:
        names = ", ".join(given.name for given in model.inputs)
        raise errors.UserError(f"A model must take clips and nothing else. Received: {path} with {names}")
    shape = getattr(model, "input_shape", None)
    shape = shape if isinstance(shape, tuple) else (None,) * 5  # A subclass may not say.
    inputs = _inputs(spec, shape, says_range=any(map(_takes_pixels, _layers(model))))

    def call(clips: tf.Tensor) -> tf.Tensor:
        return model(clips, training=False)

    score_fn = ScoreFn(call, inputs, _ends_in_softmax(call, inputs, shape))
    endpoint = endpoint or _last_of_clips(model)
    return ForeignModel(
        spec.name,
        f"keras:{spec.name}",
        score_fn,
        clip_shape=_clip_shape(shape, inputs),
        endpoint_fn=_endpoint_fn(model, score_fn, inputs, endpoint) if endpoint else None,
        versions={"keras": keras.__version__},
        digest=files.sha256(path),
    )


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers of a model and of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _takes_pixels(layer: keras.Layer) -> bool:
    """Returns whether a layer scales what can only be pixels in 0…255; one may as well scale what was scaled before."""
    if isinstance(layer, keras.layers.Rescaling):
        return bool(np.abs(np.asarray(layer.scale)).max() < 0.02)
    if isinstance(layer, keras.layers.Normalization):
        mean = getattr(layer, "mean", None)  # Of one that has seen no data, there is none.
        return mean is not None and bool(np.abs(np.asarray(mean)).max() > 2)
    return False


def _last_of_clips(model: keras.Model) -> str:
    """Returns the name of the last layer whose output has 5 axes; "" where the model does not say."""
    for layer in reversed(getattr(model, "layers", [])):
        output = getattr(layer, "output", None) if layer.built and getattr(layer, "_inbound_nodes", ()) else None
        if len(getattr(output, "shape", ())) == 5 and not isinstance(layer, keras.layers.InputLayer):
            return str(layer.name)
    return ""


def _endpoint_fn(model: keras.Model, score_fn: ScoreFn, inputs: Inputs, endpoint: str) -> gradcam.EndpointFn:
    """Returns the function from pixels to logits and activations; where a model ends in softmax, to its logarithm."""
    run = gradcam.endpoint_fn(model, endpoint, inputs.axes, _layer_axes(model, inputs))

    def run_on_pixels(clips: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        output, activations = run(score_fn.prepared(clips))
        return tf.math.log(tf.maximum(output, 1e-37)) if score_fn.ends_in_softmax else output, activations

    return run_on_pixels


def _layer_axes(model: keras.Model, inputs: Inputs) -> str:
    """Returns the order of axes of what layers return: a model may bring its clips into another one first."""
    formats = [getattr(layer, "data_format", None) for layer in _layers(model)]
    return inputs.axes if inputs.axes == "NCTHW" and "channels_last" not in formats else gradcam.LAYER_AXES


def _saved_model(spec: Spec, endpoint: str) -> ForeignModel:
    """Of a folder that `tf.saved_model.save` or `model.export` wrote: its signature for serving."""
    if endpoint:
        raise errors.UserError(
            "--cam_endpoint must be left out for saved_model:, a graph without layers, which has masks and all methods "
            f"but Grad-CAM (a .keras file has maps, too). Received: {endpoint!r}"
        )
    path = pathlib.Path(spec.rest)
    try:
        loaded = tf.saved_model.load(str(path))
        serve = loaded.signatures["serving_default"]
        ((name, given),) = serve.structured_input_signature[1].items()
        ((output, _),) = serve.structured_outputs.items()
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise errors.UserError(
            "--model=saved_model: must be a folder with a signature serving_default of one input and one output. "
            f"Received: {path}: {errors.first_line(error)}"
        ) from None
    shape = tuple(given.shape) if given.shape.rank is not None else (None,) * 5
    inputs = _inputs(spec, shape, says_range=False)

    def call(clips: tf.Tensor) -> tf.Tensor:
        return serve(**{name: tf.cast(clips, given.dtype)})[output]

    call.model = loaded  # type: ignore[attr-defined]  # A signature does not keep the variables that it reads.
    return ForeignModel(
        spec.name,
        f"saved_model:{spec.name}",
        ScoreFn(call, inputs, _ends_in_softmax(call, inputs, shape)),
        clip_shape=_clip_shape(shape, inputs),
        versions={"saved_by": str(loaded.tensorflow_version)},
        digest=foreign.digest_of([path / "saved_model.pb", *sorted((path / "variables").glob("*"))]),
    )


def _inputs(spec: Spec, shape: tuple[int | None, ...], says_range: bool) -> Inputs:
    """Returns what a model takes: the order of its axes from its shape, the range from its layers or the user."""
    if len(shape) != 5 or 3 not in (shape[1], shape[2], shape[4], *(() if shape[4] else (3,))):
        raise errors.UserError(
            f"A model must take clips [N, T, H, W, 3], or with the 3 channels before or after T. Received: {shape}"
        )
    if not spec.pixels and not says_range:
        raise errors.UserError(
            f"--pixels must say which range of pixels {spec.name} takes, {', '.join(foreign.PIXELS)}: "
            "no layer of it does. Received: none"
        )
    axes = "NTHWC" if shape[4] in (3, None) else "NCTHW" if shape[1] == 3 else "NTCHW"
    return dataclasses.replace(foreign.in_range(spec.pixels or "0..255"), axes=axes)


def _clip_shape(shape: tuple[int | None, ...], inputs: Inputs) -> tuple[int | None, int | None, int | None]:
    time, height, width = (shape[inputs.axes.index(axis)] for axis in "THW")
    return time, height, width


def _ends_in_softmax(call: Callable[[tf.Tensor], tf.Tensor], inputs: Inputs, shape: tuple[int | None, ...]) -> bool:
    """Returns whether a model returns probabilities, by showing it clips of noise."""
    score_fn, own = ScoreFn(call, inputs), _clip_shape(shape, inputs)
    tried = list(dict.fromkeys(tuple(size or other for size, other in zip(own, some, strict=True)) for some in _SHAPES))
    for sizes in tried:
        stream = np.random.default_rng(0)
        noise = [stream.uniform(low, high, (1, *sizes, 3)).astype(np.float32) for low, high in _LEVELS]
        try:
            outputs = [call(tf.transpose(score_fn.prepared(clip), inputs.permutation)) for clip in noise]
        except errors.UserError:
            raise
        except Exception as error:  # Of layers that want larger clips, or others.
            reason = errors.first_line(error)
        else:
            return foreign.are_probabilities(
                np.concatenate([model_checks.find_logits(output, tf.Tensor).numpy() for output in outputs])
            )
    raise errors.UserError(f"A model must take clips of {foreign.shape_text(tried[-1])} px. Received: {reason}")


# T, H, W of the noise by which logits are told from probabilities, where a model takes any: some want large clips.
_SHAPES = ((16, 64, 64), (32, 224, 224))
# Its levels: of one clip alone, logits may lie in 0…1.
_LEVELS = ((0, 255), (0, 64), (96, 160), (192, 255))
