"""Grad-CAM against numbers worked out by hand, on every endpoint, and on a model of a user's own."""

import functools

import numpy as np
import pytest

from common import errors
from common.explaining import gradcam_maps
from common.explaining.gradcam_maps import GradCamConfig
from common.models import configs
from tf_impl import gradcam, weights

# isort: split
import keras
import tensorflow as tf

_I3D = configs.I3DConfig(5, (8, 33, 46), dropout=0.5, width=0.0625)
_CONV_LSTM = configs.ConvLSTMConfig(5, (4, 40, 33), num_layers=2, filters=4, dropout=0.5)
_MODELS = {"i3d": _I3D, "conv_lstm": _CONV_LSTM}

# One clip of 2 frames of 1 x 2 px and 2 channels; logits are Σ_t scale_t · mean over the frame · matrix [C, K] + bias.
_CLIP = np.array([[[[[1, 2], [3, 0]]], [[[0, 4], [2, 2]]]]], np.float64)
_SCALE, _MATRIX = np.array([2.0, 6]), np.array([[1.0, -1], [-2, 1]])
_BIAS = np.array([40.0, 0])  # Both logits are 10.


def _by_hand(clips):
    activations = tf.identity(clips)
    scale, matrix, bias = (tf.constant(array, clips.dtype) for array in (_SCALE, _MATRIX, _BIAS))
    return tf.einsum("ntc,t,ck->nk", tf.reduce_mean(activations, (2, 3)), scale, matrix) + bias, activations


def _clips(config, number=2, seed=0):
    stream = np.random.default_rng(seed)
    return stream.integers(0, 256, (number, *config.input_shape, 3), dtype=np.uint8)


@functools.cache
def _model(name):
    return weights.build_model(_MODELS[name], "float64")


@pytest.mark.parametrize(
    ("config", "target", "expected"),
    [
        # The gradient of logit k in frame t is scale_t / 2 · matrix[:, k]: (-1, 1) and (-3, 3) for class 1.
        (GradCamConfig(), 1, [[[1, 0]], [[12, 0]]]),
        (GradCamConfig(), 0, [[[0, 3]], [[0, 0]]]),
        (GradCamConfig(weights="clip"), 1, [[[2, 0]], [[8, 0]]]),
        # Probabilities are 0.5, so the gradient is 0.25 (that of logit 1 less that of logit 0): scale_t / 8 · (-2, 3).
        (GradCamConfig(score="probability"), 1, [[[1, 0]], [[9, 1.5]]]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_linear_model_by_hand(config, target, expected, dtype):
    maps = gradcam.gradcam(_by_hand, _CLIP.astype(dtype), [target], config)
    assert maps.dtype == dtype
    np.testing.assert_allclose(maps, [expected], atol=1e-5 if dtype == "float32" else 1e-12)


def test_each_clip_has_its_target():
    maps = gradcam.gradcam(_by_hand, np.concatenate([_CLIP] * 2), np.array([1, 0]), GradCamConfig())
    np.testing.assert_allclose(maps, [[[[1, 0]], [[12, 0]]], [[[0, 3]], [[0, 0]]]], atol=1e-12)


def test_activations_of_zero_give_a_map_of_zero():
    maps = gradcam.gradcam(_by_hand, np.zeros(_CLIP.shape), [1], GradCamConfig())
    np.testing.assert_array_equal(maps, np.zeros((1, 2, 1, 2)))


_ENDPOINTS = {
    # A graph of I3D takes seconds to make, so not all of its endpoints.
    "i3d": ("Conv3d_1a_7x7", "MaxPool3d_4a_3x3", "Mixed_4d"),
    "conv_lstm": ("ConvLSTM_1", "BatchNorm_1", "MaxPool_1", "ConvLSTM_2", "BatchNorm_2", "MaxPool_2"),
}


@pytest.mark.parametrize(("name", "endpoint"), [(name, endpoint) for name in _MODELS for endpoint in _ENDPOINTS[name]])
def test_endpoints_of_our_models(name, endpoint):
    assert_map_of_endpoint(name, endpoint, endpoint)


@pytest.mark.parametrize(("name", "endpoint"), [("i3d", "Mixed_5c"), ("conv_lstm", "ConvLSTM_2")])
def test_without_a_name_the_endpoint_is_the_papers(name, endpoint):
    assert_map_of_endpoint(name, "", endpoint)


def assert_map_of_endpoint(name, asked, endpoint):
    """Compares with the gradient that a tape finds in the whole model, outside a graph."""
    targets, clips = np.array([3, 1, 0, 2]), _clips(_MODELS[name], 4)
    received = gradcam.gradcam(gradcam.endpoint_fn(_model(name), asked), clips, targets, GradCamConfig())
    with tf.GradientTape() as tape:
        logits, endpoints = _model(name)(clips, return_endpoints=True)
        score = tf.reduce_sum(tf.gather(logits, targets, batch_dims=1))
    gradient = tape.gradient(score, endpoints[endpoint])
    expected = gradcam_maps.combine(endpoints[endpoint].numpy(), gradient.numpy())
    assert expected.max() > 0
    assert received.dtype == np.float64
    np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9 * expected.max())


@pytest.mark.parametrize("name", _MODELS)
def test_a_clip_does_not_see_its_batch_and_one_trace_serves_all_sizes(name):
    targets, clips = np.array([3, 1, 0]), _clips(_MODELS[name], 3)
    cam = gradcam.GradCam(gradcam.endpoint_fn(_model(name)), GradCamConfig(score="probability"))
    together = cam(clips, targets)
    alone = np.concatenate([cam(clips[i : i + 1], targets[i : i + 1]) for i in range(3)])
    assert together.max() > 0
    np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-9 * together.max())
    assert cam._traced.experimental_get_tracing_count() == 1


def test_bfloat16_gives_float32_near_that_of_float32():
    maps = []
    for precision in ("float32", "bfloat16"):
        cam = gradcam.GradCam(gradcam.endpoint_fn(weights.build_model(_CONV_LSTM, precision)), GradCamConfig())
        maps.append(cam(_clips(_CONV_LSTM), [0, 1]))
    assert maps[1].dtype == np.float32
    np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=0.05 * maps[0].max())


def _own_model(sequential=False):
    """Takes [N, 4, 5, 6, 3] in float64."""
    keras.utils.set_random_seed(0)
    clips = keras.Input((4, 5, 6, 3), dtype="float64")
    layers = [
        keras.layers.Conv3D(4, 3, padding="same", dtype="float64", name="conv"),
        keras.layers.ReLU(dtype="float64", name="relu"),
        keras.layers.BatchNormalization(epsilon=1e-3, dtype="float64", name="norm"),
        keras.layers.GlobalAveragePooling3D(dtype="float64", name="pool"),
        keras.layers.Dropout(0.5, dtype="float64", name="drop"),
        keras.layers.Dense(5, dtype="float64", name="fc"),
    ]
    if sequential:
        return keras.Sequential([clips, *layers])
    return keras.Model(clips, functools.reduce(lambda x, layer: layer(x), layers, clips))


def _own_clips():
    return np.random.default_rng(1).random((2, 4, 5, 6, 3))


@pytest.mark.parametrize("sequential", [False, True])
def test_a_users_own_model(sequential):
    model, clips, targets = _own_model(sequential), _own_clips(), np.array([4, 2])
    variance = np.array([1.0, 2, 3, 4])
    model.get_layer("norm").moving_variance.assign(variance)
    maps = gradcam.gradcam(gradcam.endpoint_fn(model, "conv"), clips, targets, GradCamConfig())
    activations = model.get_layer("conv")(clips).numpy()
    slope = model.get_layer("fc").kernel.numpy().T[targets] / np.sqrt(variance + 1e-3)
    gradients = (activations > 0) * slope[:, None, None, None] / (4 * 5 * 6)
    expected = np.maximum((activations * gradients.mean((2, 3), keepdims=True)).sum(-1), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)


def test_of_several_calls_the_first_counts():
    clips = keras.Input((4, 5, 6, 3), dtype="float64")
    layer = keras.layers.Identity(name="twice", dtype="float64")
    model = keras.Model(clips, 3 * keras.ops.mean(layer(2 * layer(clips)), (1, 2, 3)))
    maps = gradcam.gradcam(gradcam.endpoint_fn(model, "twice"), _own_clips(), [0, 2], GradCamConfig())
    expected = np.stack([_own_clips()[0, ..., 0], _own_clips()[1, ..., 2]]) * 6 / 120
    np.testing.assert_allclose(maps, expected, rtol=1e-12)


@pytest.mark.parametrize("ours", [True, False])
def test_the_model_is_as_it_was(ours):
    model, clips, endpoint = (
        (_model("conv_lstm"), _clips(_CONV_LSTM), "ConvLSTM_1") if ours else (_own_model(), _own_clips(), "conv")
    )
    before = [np.array(tf.convert_to_tensor(variable)) for variable in model.variables]
    gradcam.gradcam(gradcam.endpoint_fn(model, endpoint), clips, [0, 1], GradCamConfig())
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(tf.convert_to_tensor(variable), value)


def test_clips_of_another_shape_or_dtype_have_a_trace_of_their_own():
    cam = gradcam.GradCam(_by_hand, GradCamConfig())
    for clips, traces in (
        (_CLIP, 1),
        (np.repeat(_CLIP, 3, axis=2), 2),
        (_CLIP, 2),
        (_CLIP.astype(np.float32), 3),
        (tf.constant(_CLIP), 3),
    ):
        maps = cam(clips, [1])
        assert cam._traced.experimental_get_tracing_count() == traces
        np.testing.assert_allclose(maps[0, :, 0] * clips.shape[2], [[1, 0], [12, 0]], atol=1e-5)


def test_unknown_endpoint_of_our_model():
    with pytest.raises(errors.UserError, match=r"one of ConvLSTM_1, .*, MaxPool_2. Received: 'Mixed_5c'"):
        gradcam.endpoint_fn(weights.build_model(_CONV_LSTM), "Mixed_5c")


@pytest.mark.parametrize("name", ["", "conv3d"])
def test_unknown_endpoint_of_a_users_model(name):
    with pytest.raises(errors.UserError, match=f"conv, relu, norm, pool, drop, fc. Received: '{name}'"):
        gradcam.endpoint_fn(_own_model(), name)


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv3D(4, 3, name="conv")

    def call(self, x):
        return keras.ops.mean(self.conv(x), (1, 2, 3))


def _two_inputs():
    clips = [keras.Input((4, 5, 6, 3), name=name) for name in ("a", "b")]
    return keras.Model(clips, keras.layers.Add(name="conv")(clips))


def _not_built():
    return keras.Sequential([keras.layers.Conv3D(4, 3, name="conv")])


@pytest.mark.parametrize("make", [_Subclassed, _two_inputs, _not_built])
def test_models_without_one_graph_from_clips_to_logits(make):
    with pytest.raises(errors.UserError, match="functional or Sequential model with one input.* Received: .*, conv: "):
        gradcam.endpoint_fn(make(), "conv")


def test_a_layer_whose_output_is_not_of_clips():
    fn = gradcam.endpoint_fn(_own_model(), "pool")
    with pytest.raises(errors.UserError, match=r"not of single frames.*Received: \(None, 4\) and \(None, 5\)"):
        gradcam.gradcam(fn, _own_clips(), [0, 1], GradCamConfig())


def test_activations_that_the_logits_do_not_depend_on():
    def constant(clips):
        return tf.zeros((tf.shape(clips)[0], 2)), clips

    def elsewhere(clips):
        logits, _ = _by_hand(clips)
        return logits, tf.identity(clips)

    for endpoint_fn in (constant, elsewhere):
        with pytest.raises(errors.UserError, match="computed from the endpoint's activations. Received: no gradient"):
            gradcam.gradcam(endpoint_fn, _CLIP, [1], GradCamConfig())


@pytest.mark.parametrize("targets", [[2], [-1], [0, 1], [0.0]])
def test_targets_that_are_no_classes(targets):
    with pytest.raises(errors.UserError, match="targets must be 1 class numbers in 0…1"):
        gradcam.gradcam(_by_hand, _CLIP, targets, GradCamConfig())
