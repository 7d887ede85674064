"""I3D: the paper's size, every endpoint's shape, gradients at endpoints, Keras' own habits."""

import numpy as np
import pytest

from common.models import architectures, configs
from tf_impl import i3d, layers, weights

# isort: split
import keras
import tensorflow as tf

_SMALL = configs.I3DConfig(5, (9, 33, 46), dropout=0, width=0.0625)


def _clips(config, number=2, seed=0):
    stream = np.random.default_rng(seed)
    return stream.integers(0, 256, (number, *config.input_shape, 3), dtype=np.uint8)


def test_parameters_are_the_papers():
    model = i3d.I3D(configs.PRESETS["i3d_something"].model)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 12_465_614


@pytest.mark.parametrize("temporal_strides", ["paper", "original"])
@pytest.mark.parametrize("shape", [(8, 32, 32), (9, 33, 46)])
def test_endpoints_have_the_shapes_of_the_table(temporal_strides, shape):
    config = configs.I3DConfig(5, shape, temporal_strides=temporal_strides, width=0.0625)
    logits, endpoints = weights.build_model(config)(_clips(config), return_endpoints=True)
    assert list(endpoints) == [layer.name for layer in architectures.layers(config)]
    for layer in architectures.layers(config):
        assert endpoints[layer.name].shape == (2, *layer.output_shape)
    np.testing.assert_array_equal(endpoints["Logits"], logits)


@pytest.mark.parametrize("name", ["Conv3d_2c_3x3", "Mixed_3c", "Mixed_5b", "Mixed_5c"])
def test_gradient_with_respect_to_an_endpoint(name):
    model = weights.build_model(_SMALL, "float64")
    with tf.GradientTape() as tape:
        logits, endpoints = model(_clips(_SMALL), return_endpoints=True)
        score = tf.reduce_sum(logits[:, 2])
    gradient = tape.gradient(score, endpoints[name])
    assert gradient.shape == endpoints[name].shape
    assert float(tf.reduce_max(tf.abs(gradient))) > 0


def test_gradient_at_the_last_endpoint_by_hand():
    # The head is a mean over positions and a matrix: d logit_k / d activation_c = kernel[c, k] / positions.
    model = weights.build_model(_SMALL, "float64")
    with tf.GradientTape() as tape:
        logits, endpoints = model(_clips(_SMALL), return_endpoints=True)
        score = tf.reduce_sum(logits[:, 2])
    gradient = tape.gradient(score, endpoints["Mixed_5c"]).numpy()
    kernel = weights.get_weights(model)["Logits/Conv3d_0c_1x1/kernel"][0, 0, 0, :, 2]
    positions = np.prod(gradient.shape[1:4])
    np.testing.assert_allclose(gradient, np.broadcast_to(kernel / positions, gradient.shape), rtol=1e-12)


def test_gradient_with_respect_to_the_pixels():
    model, clips = weights.build_model(_SMALL), tf.constant(_clips(_SMALL), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(clips)
        logits = model(clips)
    assert float(tf.reduce_max(tf.abs(tape.gradient(logits, clips)))) > 0


def test_dropout_acts_in_training_only_and_repeats_with_its_seed():
    config = configs.I3DConfig(5, (8, 32, 32), dropout=0.5, width=0.125)
    model, clips = weights.build_model(config), _clips(config)
    layers.seed_dropout(model, 3)
    first, second = model(clips, training=True).numpy(), model(clips, training=True).numpy()
    layers.seed_dropout(model, 3)
    np.testing.assert_array_equal(model(clips, training=True), first)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(model(clips), model(clips))


def test_bfloat16_keeps_float32_weights_statistics_and_logits():
    model = weights.build_model(_SMALL, "bfloat16")
    with tf.GradientTape() as tape:
        logits, endpoints = model(_clips(_SMALL), return_endpoints=True, training=True)
        total = tf.reduce_sum(logits)
    assert {name for name, x in endpoints.items() if x.dtype == tf.bfloat16} == endpoints.keys() - {"Logits"}
    assert {variable.dtype for variable in model.weights} == {"float32"}
    gradients = tape.gradient(total, [variable.value for variable in model.trainable_variables])
    assert {gradient.dtype for gradient in (logits, *gradients)} == {tf.float32}


def test_bfloat16_is_near_float32():
    expected, received = (weights.build_model(_SMALL, p)(_clips(_SMALL)).numpy() for p in ("float32", "bfloat16"))
    np.testing.assert_allclose(received, expected, rtol=0, atol=0.02 * np.abs(expected).max())


def test_uint8_and_float_pixels_give_the_same_logits():
    model, clips = weights.build_model(_SMALL), _clips(_SMALL)
    np.testing.assert_array_equal(model(clips), model(clips.astype(np.float32)))


def test_summary_names_endpoints_and_shapes_without_a_call():
    lines = []
    weights.build_model(_SMALL).summary(line_length=120, print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    for layer in architectures.layers(_SMALL):
        assert layer.name in text and str((None, *layer.output_shape)) in text
    assert f"Trainable params: {architectures.num_parameters(_SMALL):,}" in text


# Keras reads its variables in a way that NumPy 2 will drop.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_finds_saves_and_loads(tmp_path):
    model, clips = weights.build_model(_SMALL, seed=4), _clips(_SMALL)
    model(clips, training=True)  # Running statistics differ from their start.
    assert model.get_layer("Mixed_5c") is model.Mixed_5c
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.config == _SMALL
    np.testing.assert_array_equal(loaded(clips), model(clips))


def test_deepminds_head_by_hand():
    """Pool windows of frames 0-1 and 1-2, so the middle frame counts twice; 8 columns are two windows of 7."""
    head = i3d.Head(4, 5, 0.0, (2, 7, 7), "float64")
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8, 4))
    kernel, bias = np.random.default_rng(1).normal(size=(4, 5)), np.arange(5.0)
    head.Conv3d_0c_1x1.kernel.assign(kernel.reshape(head.Conv3d_0c_1x1.kernel.shape))
    head.Conv3d_0c_1x1.bias.assign(bias)
    in_time, in_columns = np.array([1, 2, 1]) / 4, np.array([1, 2, 2, 2, 2, 2, 2, 1]) / 14
    expected = np.einsum("nthwc,t,w,ck->nk", x, in_time, in_columns, kernel) / 7 + bias
    np.testing.assert_allclose(head(x), expected, rtol=1e-12)
