"""Grad-CAM in TensorFlow: the contract of both builds, endpoints, models within models, and graphs."""

import functools
import math
import re

import numpy as np
import pytest

from common import errors
from common.explaining import layer_axes
from common.explaining.gradcam_contract_for_tests import (
    BIAS,
    CLASS_TOKEN,
    CLIP,
    CONV_LSTM,
    HEAD,
    KERNEL,
    MATRIX,
    PATCH,
    SCALE,
    GradCamContract,
    own_clips,
    random_clips,
)
from common.explaining.gradcam_maps import GradCamConfig
from tf_impl import gradcam, weights

# isort: split
import keras
import tensorflow as tf


def _by_hand(clips):
    activations = tf.identity(clips)
    scale, matrix, bias = (tf.constant(array, clips.dtype) for array in (SCALE, MATRIX, BIAS))
    return tf.einsum("ntc,t,ck->nk", tf.reduce_mean(activations, (2, 3)), scale, matrix) + bias, activations


def _gradient_by_hand(model, clips, targets, endpoint):
    """Returns what a tape finds in the whole model, outside a graph."""
    with tf.GradientTape() as tape:
        logits, endpoints = model(clips, return_endpoints=True)
        score = tf.reduce_sum(tf.gather(logits, targets, batch_dims=1))
    return endpoints[endpoint].numpy(), tape.gradient(score, endpoints[endpoint]).numpy()


def _layers():
    keras.utils.set_random_seed(0)
    return [
        keras.layers.Conv3D(4, 3, padding="same", dtype="float64", name="conv"),
        keras.layers.ReLU(dtype="float64", name="relu"),
        keras.layers.BatchNormalization(
            epsilon=1e-3, moving_variance_initializer=_variances, dtype="float64", name="norm"
        ),
        keras.layers.GlobalAveragePooling3D(dtype="float64", name="pool"),
        keras.layers.Dropout(0.5, dtype="float64", name="drop"),
        keras.layers.Dense(5, dtype="float64", name="fc"),
    ]


def _variances(shape, dtype):
    return tf.range(1, shape[0] + 1, dtype=dtype)


def _own_model():
    """Takes [N, 4, 5, 6, 3] in float64."""
    clips = keras.Input((4, 5, 6, 3), dtype="float64")
    return keras.Model(clips, functools.reduce(lambda x, layer: layer(x), _layers(), clips))


def _own_parts(model, clips):
    conv, norm, fc = (model.get_layer(name) for name in ("conv", "norm", "fc"))
    return conv(clips).numpy(), fc.kernel.numpy().T, np.sqrt(norm.moving_variance.numpy() + 1e-3)


class Twice(keras.Model):
    def __init__(self):
        super().__init__(dtype="float64")
        self.twice, self.never = (keras.layers.Identity(name=name, dtype="float64") for name in ("twice", "never"))

    def call(self, x):
        return 3 * tf.reduce_mean(self.twice(2 * self.twice(x)), (1, 2, 3))


class Returning(keras.Model):
    def __init__(self, pack):
        super().__init__(dtype="float64")
        self.conv, self.pack = keras.layers.Conv3D(4, 3, dtype="float64", name="conv"), pack

    def call(self, x):
        return self.pack(tf.reduce_mean(self.conv(x), (1, 2, 3)))


class Permuted(keras.Model):
    def __init__(self, clips_axes, activations_axes):
        super().__init__(dtype="float64")
        keras.utils.set_random_seed(0)
        self.conv = keras.layers.Conv3D(7, 3, padding="same", dtype="float64", name="conv")
        self.out, self.head = keras.layers.Identity(dtype="float64", name="out"), keras.layers.Dense(2, dtype="float64")
        self.to_layer = layer_axes.permutation(clips_axes, "NTHWC")
        self.to_out = layer_axes.permutation("NTHWC", activations_axes)
        self.from_out = layer_axes.permutation(activations_axes, "NTHWC")

    def call(self, x):
        out = self.out(tf.transpose(self.conv(tf.transpose(x, self.to_layer)), self.to_out))
        return self.head(tf.reduce_mean(tf.nn.relu(tf.transpose(out, self.from_out)), (1, 2, 3)))


def _frame_wise():
    clips = keras.Input((4, 5, 6, 3), dtype="float64")
    frames = keras.layers.Reshape((20, 6, 3), dtype="float64", name="frames")(clips)
    return keras.Model(clips, keras.layers.GlobalAveragePooling2D(dtype="float64")(frames))


class Layer(keras.layers.Layer):
    """Returns what a function makes of its input."""

    def __init__(self, function, name=None):
        super().__init__(dtype="float64", name=name)
        self.function = function

    def call(self, x):
        return self.function(x)


class Tokens(keras.Model):
    def __init__(self, axes, class_tokens, pack):
        super().__init__(dtype="float64")
        self.patches = keras.layers.Conv3D(4, PATCH, PATCH, use_bias=False, dtype="float64")
        self.patches.build((None, 4, 4, 6, 3))
        self.patches.kernel.assign(KERNEL)
        self.tokens = Layer(pack)
        self.groups, self.class_tokens = layer_axes.LayerAxes(axes).groups, class_tokens

    def call(self, x):
        letters = "".join(self.groups)
        x = tf.transpose(self.patches(x), layer_axes.permutation("NTHWC", letters))
        sizes = iter(-1 if letter == "N" else x.shape[i] for i, letter in enumerate(letters))
        x = tf.reshape(x, [max(math.prod(next(sizes) for _ in group), -1) for group in self.groups])
        if self.class_tokens:
            shape = tf.stack([tf.shape(x)[0], self.class_tokens, 4])
            x = tf.concat([tf.fill(shape, tf.constant(CLASS_TOKEN, tf.float64)), x], 1)
        packed = self.tokens(x)
        x = tf.tanh(packed[0] if isinstance(packed, tuple | list) else packed)
        others = [axis for axis, group in enumerate(self.groups) if axis and group != "C"]
        per_answer = math.prod(2 for group in self.groups if "N" in group for letter in group if letter != "N")
        return tf.reduce_mean(tf.reshape(tf.reduce_mean(x, others), (-1, per_answer, 4)), 1) @ HEAD


class Attentive(keras.Model):
    def __init__(self, attentions):
        super().__init__(dtype="float64")
        self.parts = [
            Layer(lambda x, array=attention: (x, tf.constant(array)), f"attention_{i}")
            for i, attention in enumerate(attentions)
        ]

    def call(self, x):
        for layer in self.parts:
            x, _ = layer(x)
        return tf.reduce_mean(x, (1, 2, 3))


class Block(keras.layers.Layer):
    """A layer, no model, that holds a model in a list."""

    def __init__(self, model):
        super().__init__(dtype="float64")
        self.stages = [model]

    def call(self, x):
        return self.stages[0](x)


class Outer(keras.Model):
    def __init__(self, model):
        super().__init__(dtype="float64")
        self.backbone = Block(model)
        self.get_layer = model.get_layer  # Where `own_parts` looks.

    def call(self, x):
        return self.backbone(x)


class TestGradCam(GradCamContract):
    gradcam = gradcam
    tensor = staticmethod(tf.convert_to_tensor)
    softmax = staticmethod(tf.nn.softmax)
    build_model = staticmethod(functools.cache(weights.build_model))
    by_hand = staticmethod(_by_hand)
    gradient_by_hand = staticmethod(_gradient_by_hand)
    own_model = staticmethod(_own_model)
    own_parts = staticmethod(_own_parts)
    twice = Twice
    returning = Returning
    permuted = Permuted
    frame_wise = staticmethod(_frame_wise)
    tokens = Tokens
    attentive = Attentive
    deep = staticmethod(lambda: (Outer(Subclassed()), "backbone/stages/0/parts/0"))

    def check_batches_of_all_sizes_were_cheap(self, cam):
        assert cam._traced.experimental_get_tracing_count() == 1

    @pytest.mark.parametrize(
        ("name", "endpoint"),
        [
            # A graph of I3D takes seconds to make, so not all of its endpoints.
            *(("i3d", endpoint) for endpoint in ("Conv3d_1a_7x7", "Mixed_4d")),
            *(("conv_lstm", f"{layer}_{i}") for layer in ("ConvLSTM", "BatchNorm", "MaxPool") for i in (1, 2)),
        ],
    )
    def test_endpoints_of_our_models(self, name, endpoint):
        self.check_endpoint(name, endpoint, endpoint)

    def test_a_sequential_model(self):
        self.check_own_model(keras.Sequential([keras.Input((4, 5, 6, 3), dtype="float64"), *_layers()]))

    def test_a_model_of_a_class_that_is_not_built_yet(self):
        self.check_own_model(Subclassed())

    def test_a_layer_of_a_model_within_a_model(self):
        model, clips = _own_model(), keras.Input((4, 5, 6, 3), dtype="float64")
        middle = keras.Sequential([keras.Input((4, 5, 6, 3), dtype="float64"), model], name="middle")
        outer = keras.Model(clips, keras.layers.Identity(dtype="float64")(middle(clips)), name="outer")
        outer.get_layer = model.get_layer  # Where `own_parts` looks.
        self.check_own_model(outer, f"middle/{model.name}/conv")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(dtype="float64")
        self.parts = _layers()

    def call(self, x, training=False):
        for layer in self.parts:
            x = layer(x, training=training) if layer.name in ("norm", "drop") else layer(x)
        return x

    def get_layer(self, name):
        return next(layer for layer in self.parts if layer.name == name)


def test_an_inner_model_itself_and_its_layers_are_offered():
    clips = keras.Input((4, 5, 6, 3), dtype="float64")
    inner = keras.Sequential(
        [keras.Input((4, 5, 6, 3), dtype="float64"), keras.layers.ReLU(dtype="float64", name="relu")], name="inner"
    )
    model = keras.Model(clips, keras.ops.mean(inner(clips), (1, 2, 3)))
    with pytest.raises(errors.UserError, match=r"endpoint must be one of inner, inner/relu. Received: 'elu'"):
        gradcam.endpoint_fn(model, "elu")
    maps = [
        gradcam.gradcam(gradcam.endpoint_fn(model, name), own_clips(), [0, 2], GradCamConfig())
        for name in ("inner", "inner/relu", "relu")
    ]
    np.testing.assert_allclose(maps, [np.stack([own_clips()[0, ..., 0], own_clips()[1, ..., 2]]) / 120] * 3, rtol=1e-12)


class ChannelsFirst(keras.Model):
    """Calls a layer that wants channels first, a pool of one px: on a CPU there is no such convolution outside XLA."""

    def __init__(self):
        super().__init__()
        self.pool = keras.layers.AveragePooling3D((1, 1, 1), data_format="channels_first")
        self.out = keras.layers.ReLU()

    def call(self, x):
        return tf.reduce_mean(self.out(self.pool(x)), (2, 3, 4))


@pytest.mark.parametrize("given", [{}, {"clips_axes": "NCTHW"}, {"activations_axes": "NCTHW"}])
def test_a_model_with_channels_first_must_be_told_its_axes(given):
    with pytest.raises(errors.UserError, match="must be given for a model with layers of channels_first. .* with aver"):
        gradcam.endpoint_fn(ChannelsFirst(), "out", **given)


@pytest.mark.parametrize("endpoint", ["pool", "out"])
def test_channels_first_are_channels(endpoint):
    fn = gradcam.endpoint_fn(ChannelsFirst(), endpoint, "NCTHW", "NCTHW")
    maps = gradcam.gradcam(fn, own_clips().astype(np.float32), [0, 2], GradCamConfig())
    np.testing.assert_allclose(maps, np.stack([own_clips()[0, ..., 0], own_clips()[1, ..., 2]]) / 120, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "axes", "channels"),
    [
        (keras.layers.UpSampling3D(2, data_format="channels_first"), "NTHWC", 1),
        (keras.layers.ConvLSTM2D(2, 3, return_sequences=True, data_format="channels_first"), "NCTHW", 2),
        (keras.layers.TimeDistributed(keras.layers.Conv2D(2, 3, data_format="channels_first")), "NTHWC", 2),
        (keras.layers.TimeDistributed(keras.layers.Dense(2)), "NTCHW", 4),
        (keras.layers.Conv2D(2, 3, data_format="channels_first"), "(NT)HWC", 1),
        (keras.layers.BatchNormalization(axis=1), "NTHWC", 1),
        (keras.layers.Dense(2), "NC(THW)", 2),
    ],
)
def test_every_layer_that_knows_its_channels_is_asked(layer, axes, channels):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = layer

    with pytest.raises(errors.UserError, match=rf"has its channels, axis {channels}. Received: '{re.escape(axes)}'"):
        gradcam.endpoint_fn(Model(), "layer", "NTHWC", axes)


def test_a_name_of_two_layers_is_refused():
    model = Subclassed()
    model.other = keras.layers.Conv3D(4, 3, name="conv")
    with pytest.raises(errors.UserError, match="must be the name of one layer .* Received: 'conv', of 2"):
        gradcam.endpoint_fn(model, "conv")


def test_a_model_of_two_inputs_is_refused():
    clips = [keras.Input((4, 5, 6, 3), name=name) for name in ("a", "b")]
    model = keras.Model(clips, keras.layers.Add(name="conv")(clips))
    with pytest.raises(errors.UserError, match="a model with one input, clips. Received: 2 inputs"):
        gradcam.endpoint_fn(model, "conv")


def test_of_two_outputs_the_one_of_two_axes_is_the_logits():
    clips = keras.Input((4, 5, 6, 3), dtype="float64")
    x = keras.layers.ReLU(dtype="float64", name="relu")(clips)
    model = keras.Model(clips, [x, keras.ops.mean(x, (1, 2, 3))])
    maps = gradcam.gradcam(gradcam.endpoint_fn(model, "relu"), own_clips(), [0, 2], GradCamConfig())
    np.testing.assert_allclose(maps, np.stack([own_clips()[0, ..., 0], own_clips()[1, ..., 2]]) / 120, rtol=1e-12)


def test_predict_is_no_endpoint_function():
    with pytest.raises(errors.UserError, match="must return two tensors, logits .* Received: ndarray$"):
        gradcam.gradcam(functools.partial(_own_model().predict, verbose=0), own_clips(), [0, 1], GradCamConfig())


def _state(model):
    return [np.array(tf.convert_to_tensor(variable)).tolist() for variable in model.variables], [
        vars(layer).get("call") for layer in model.layers
    ]


@pytest.mark.parametrize("ours", [True, False])
def test_the_model_is_as_it_was(ours):
    model = TestGradCam.build_model(CONV_LSTM, "float64") if ours else _own_model()
    clips, endpoint = (random_clips(CONV_LSTM), "ConvLSTM_1") if ours else (own_clips(), "conv")
    before = _state(model)
    gradcam.gradcam(gradcam.endpoint_fn(model, endpoint), clips, [0, 1], GradCamConfig())
    assert _state(model) == before


def test_a_model_that_fails_is_as_it_was():
    def fail(logits):
        raise ZeroDivisionError

    model = Returning(fail)
    with pytest.raises(ZeroDivisionError):
        gradcam.gradcam(gradcam.endpoint_fn(model, "conv"), own_clips(), [0, 1], GradCamConfig())
    assert "call" not in vars(model.conv)


def test_a_function_that_calls_a_model_in_training_mode_is_refused_and_the_model_as_it_was():
    model = _own_model()
    before = _state(model)

    def endpoint_fn(clips):
        activations = tf.identity(clips)
        return model(activations, training=True), activations

    with pytest.raises(errors.UserError, match=r"must not change its variables .*training=False.* in \d+ places"):
        gradcam.gradcam(endpoint_fn, own_clips(), [0, 1], GradCamConfig())
    assert _state(model) == before


def test_clips_of_another_shape_or_dtype_have_a_trace_of_their_own():
    cam = gradcam.GradCam(_by_hand, GradCamConfig())
    for clips, traces in (
        (CLIP, 1),
        (np.repeat(CLIP, 3, axis=2), 2),
        (CLIP, 2),
        (CLIP.astype(np.float32), 3),
        (tf.constant(CLIP), 3),
    ):
        maps = cam(clips, [1])
        assert cam._traced.experimental_get_tracing_count() == traces
        np.testing.assert_allclose(maps[0, :, 0] * clips.shape[2], [[1, 0], [12, 0]], atol=1e-5)


def test_logits_that_depend_on_nothing():
    with pytest.raises(errors.UserError, match="computed from the endpoint's activations. Received: no gradient"):
        gradcam.gradcam(lambda clips: (tf.zeros((tf.shape(clips)[0], 2)), clips), CLIP, [1], GradCamConfig())
