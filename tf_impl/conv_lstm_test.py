"""ConvLSTM: the paper's size, every endpoint's shape, two steps by hand, Keras' own layer, Keras' habits."""

import numpy as np
import pytest

from common.models import architectures, configs
from tf_impl import conv_lstm, layers, weights

# isort: split
import keras
import tensorflow as tf

_CONFIGS = {
    "shared": configs.ConvLSTMConfig(5, (4, 37, 42), num_layers=2, filters=3),
    "own": configs.ConvLSTMConfig(5, (4, 37, 42), num_layers=2, filters=3, share_batch_norm=False),
    "kth": configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=2, filters=4, kernel_size=(3, 5), head="last_frame"),
    "even_kernel": configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=2, filters=3, kernel_size=(4, 2)),
}


def _clips(config, number=2, seed=0):
    stream = np.random.default_rng(seed)
    return stream.integers(0, 256, (number, *config.input_shape, 3), dtype=np.uint8)


def test_parameters_are_the_papers():
    model = conv_lstm.ConvLSTM(configs.PRESETS["conv_lstm_something"].model)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 1_324_014


@pytest.mark.parametrize(
    "config",
    [
        *_CONFIGS.values(),
        configs.ConvLSTMConfig(5, (2, 63, 70), filters=2),
        configs.ConvLSTMConfig(5, (2, 63, 64), filters=2, kernel_size=(1, 1)),
        configs.ConvLSTMConfig(5, (1, 64, 65), filters=2, kernel_size=(4, 2)),
    ],
)
def test_endpoints_have_the_shapes_of_the_table(config):
    logits, endpoints = weights.build_model(config)(_clips(config), return_endpoints=True)
    assert list(endpoints) == [layer.name for layer in architectures.layers(config)]
    for layer in architectures.layers(config):
        assert endpoints[layer.name].shape == (2, *layer.output_shape)
    np.testing.assert_array_equal(endpoints["Logits"], logits)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_two_steps_by_hand():
    # One pixel, one channel, one filter: SAME convolutions keep the kernel's centre, so gates are scalar sums.
    layer = conv_lstm.ConvLSTMLayer(1, 1, (3, 3), "float64")
    kernels = np.zeros((2, 3, 3, 1, 4))
    kernels[:, 1, 1, 0] = [0.5, -0.3, 0.8, 0.2], [0.7, 0.1, -0.6, 0.4]  # i, f, c, o
    layer.set_weights([*kernels, np.array([0.1, 1.0, -0.2, 0.3])])
    c1 = _sigmoid(0.5 * 1.5 + 0.1) * np.tanh(0.8 * 1.5 - 0.2)
    h1 = _sigmoid(0.2 * 1.5 + 0.3) * np.tanh(c1)
    forget = _sigmoid(-0.3 * -2.0 + 0.1 * h1 + 1.0)
    c2 = forget * c1 + _sigmoid(0.5 * -2.0 + 0.7 * h1 + 0.1) * np.tanh(0.8 * -2.0 - 0.6 * h1 - 0.2)
    h2 = _sigmoid(0.2 * -2.0 + 0.4 * h1 + 0.3) * np.tanh(c2)
    y = layer(tf.reshape(tf.constant([1.5, -2.0], "float64"), (1, 2, 1, 1, 1)))
    np.testing.assert_allclose(y.numpy().ravel(), [h1, h2], rtol=1e-13)


def test_input_stride_is_2_and_starts_at_the_first_pixel():
    # Width 4, kernel 1x3, stride 2 pads only after: windows (0 1 2) (2 3 _); weights 1, 10, 100 of the cell's gate.
    layer = conv_lstm.ConvLSTMLayer(1, 1, (1, 3), "float64")
    kernel = np.zeros((1, 3, 1, 4))
    kernel[0, :, 0, 2] = 1, 10, 100
    layer.kernel.assign(kernel)
    cell = 0.5 * np.tanh(np.array([0.321, 0.043]))
    y = layer(tf.reshape(tf.constant([1.0, 2, 3, 4], "float64") / 1000, (1, 1, 1, 4, 1)))
    np.testing.assert_allclose(y.numpy().ravel(), 0.5 * np.tanh(cell), rtol=1e-12)


@pytest.mark.parametrize("kernel_size", [(5, 5), (3, 5), (4, 2)])
def test_layer_is_keras_conv_lstm_2d(kernel_size):
    stream = np.random.default_rng(0)
    layer = conv_lstm.ConvLSTMLayer(2, 3, kernel_size, "float64")
    layer.set_weights([stream.standard_normal(weight.shape) * 0.3 for weight in layer.weights])
    x = stream.standard_normal((2, 5, 9, 12, 2))
    oracle = keras.layers.ConvLSTM2D(
        3,
        kernel_size,
        strides=2,
        padding="same",
        data_format="channels_last",
        activation="tanh",
        recurrent_activation="sigmoid",
        return_sequences=True,
        dtype="float64",
    )
    oracle.build(x.shape)
    oracle.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), oracle(x), rtol=0, atol=1e-12)


def test_shared_batch_norm_keeps_its_own_statistics_per_layer():
    model = weights.build_model(_CONFIGS["shared"])
    model(_clips(_CONFIGS["shared"]), training=True)
    arrays = weights.get_weights(model)
    assert not np.allclose(arrays["BatchNorm_1/moving_mean"], arrays["BatchNorm_2/moving_mean"])
    assert model.BatchNorm_1.gamma is model.BatchNorm_2.gamma is model.BatchNorm.gamma


@pytest.mark.parametrize("name", ["ConvLSTM_1", "ConvLSTM_2", "BatchNorm_2", "MaxPool_2"])
def test_gradient_with_respect_to_an_endpoint(name):
    model = weights.build_model(_CONFIGS["shared"], "float64")
    with tf.GradientTape() as tape:
        logits, endpoints = model(_clips(_CONFIGS["shared"]), return_endpoints=True)
        score = tf.reduce_sum(logits[:, 2])
    gradient = tape.gradient(score, endpoints[name])
    assert gradient.shape == endpoints[name].shape
    assert float(tf.reduce_max(tf.abs(gradient))) > 0


def test_dense_layer_flattens_time_height_width_channels():
    model = weights.build_model(_CONFIGS["own"], "float64")
    logits, endpoints = model(_clips(_CONFIGS["own"]), return_endpoints=True)
    arrays = weights.get_weights(model)
    features = endpoints["MaxPool_2"].numpy().reshape(2, -1)
    np.testing.assert_allclose(logits, features @ arrays["Logits/kernel"] + arrays["Logits/bias"], rtol=1e-12)


def test_last_frame_head_reads_the_last_frame_only():
    model = weights.build_model(_CONFIGS["kth"], "float64")
    with tf.GradientTape() as tape:
        logits, endpoints = model(_clips(_CONFIGS["kth"]), return_endpoints=True)
    gradient = np.abs(tape.gradient(logits, endpoints["MaxPool_2"]))
    assert gradient[:, :-1].max() == 0
    assert gradient[:, -1].min() > 0


def test_dropout_between_the_layers_repeats_with_its_seed():
    config = configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=2, filters=4, dropout=0.5)
    model, clips = weights.build_model(config), _clips(config)
    layers.seed_dropout(model, 3)
    first, second = model(clips, training=True).numpy(), model(clips, training=True).numpy()
    layers.seed_dropout(model, 3)
    np.testing.assert_array_equal(model(clips, training=True), first)
    assert not np.array_equal(first, second)


def test_bfloat16_keeps_float32_weights_and_logits_and_is_near_float32():
    config = _CONFIGS["shared"]
    model = weights.build_model(config, "bfloat16")
    logits, endpoints = model(_clips(config), return_endpoints=True)
    assert {name for name, x in endpoints.items() if x.dtype == tf.bfloat16} == endpoints.keys() - {"Logits"}
    assert logits.dtype == tf.float32 and {variable.dtype for variable in model.weights} == {"float32"}
    expected = weights.build_model(config)(_clips(config)).numpy()
    # Measured in PyTorch: 0.012, and of 29 other batches up to 0.018.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.04 * np.abs(expected).max())


# Keras reads its variables in a way that NumPy 2 will drop.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["shared", "kth"])
def test_keras_finds_saves_and_loads(name, tmp_path):
    model, clips = weights.build_model(_CONFIGS[name], seed=4), _clips(_CONFIGS[name])
    model(clips, training=True)  # Running statistics differ from their start.
    assert model.get_layer("ConvLSTM_2") is model.ConvLSTM_2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.config == _CONFIGS[name]
    np.testing.assert_array_equal(loaded(clips), model(clips))
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
