"""Layers against numbers worked out by hand."""

import numpy as np
import pytest

from common import errors
from common.models import architectures
from tf_impl import layers

# isort: split
import keras
import tensorflow as tf


def _line(values, axis):
    """Values along one of the axes T, H, W of a `[1, T, H, W, 1]` tensor."""
    shape = [1, 1, 1, 1, 1]
    shape[axis + 1] = len(values)
    return tf.constant(np.array(values, np.float64).reshape(shape))


def _triple(number, axis):
    return tuple(number if other == axis else 1 for other in range(3))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        # Input 1, 2, 3, …; kernel weights 1, 10, 100, so that a sum says which values it met.
        (4, 3, 1, [210, 321, 432, 43]),  # _12 123 234 34_
        (4, 3, 2, [321, 43]),  # 123 34_: nothing before, one after
        (5, 3, 2, [210, 432, 54]),  # _12 234 45_
        (4, 2, 2, [21, 43]),
        (5, 2, 2, [21, 43, 5]),  # 12 34 5_
        (4, 1, 2, [1, 3]),
        (1, 3, 2, [10]),
    ],
)
def test_same_convolution_by_hand(axis, size, kernel, stride, expected):
    conv = layers.SameConv3D(1, 1, _triple(kernel, axis), _triple(stride, axis), "float64")
    weights = np.array([10.0**power for power in range(kernel)])
    conv.kernel.assign(weights.reshape((*_triple(kernel, axis), 1, 1)))
    x = _line([1.0 + index for index in range(size)], axis)
    np.testing.assert_allclose(conv(x), _line(expected, axis), rtol=0, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("values", "kernel", "stride", "expected"),
    [
        ([-5, -1, -7, -2], 3, 1, [-1, -1, -1, -2]),  # Never 0: padding does not count.
        ([-5, -6, -7, -2], 3, 2, [-5, -2]),  # (-5 -6 -7) (-7 -2 _)
        ([-5, -6, -7, -2, -3], 3, 2, [-5, -2, -2]),  # (_ -5 -6) (-6 -7 -2) (-2 -3 _)
        ([-5, -6, -7, -2], 2, 2, [-5, -2]),
        ([-5, -6, -7, -2, -3], 2, 2, [-5, -2, -3]),  # (-3 _)
        ([-4], 3, 2, [-4]),
    ],
)
def test_max_pool_by_hand(axis, values, kernel, stride, expected):
    pool = layers.MaxPool(_triple(kernel, axis), _triple(stride, axis))
    np.testing.assert_array_equal(pool(_line(values, axis)), _line(expected, axis))


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (2, 2, 2)])
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_max_pool_frame_by_frame_then_in_time_is_tensorflows_3d_pool(kernel, strides):
    for sizes in ((1, 2, 3), (4, 5, 6), (7, 7, 8)):
        x = -tf.random.stateless_uniform((2, *sizes, 3), (1, 2))
        np.testing.assert_array_equal(layers.MaxPool(kernel, strides)(x), tf.nn.max_pool3d(x, kernel, strides, "SAME"))


def test_max_pool_gives_its_gradient_to_one_of_several_equal_maxima():
    # TensorFlow's own 3-D pool, outside a graph on a CPU, gives it to all: 8 * 27 less what the border cuts off.
    x = tf.ones((1, 2, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.MaxPool((3, 3, 3), (1, 1, 1))(x)
    assert float(tf.reduce_sum(tape.gradient(y, x))) == 8


def test_batch_norm_statistics_by_hand():
    # Values 1, 2, 3, 6: mean 3, squares of deviations 4 + 1 + 0 + 9 = 14, biased variance 3.5, unbiased 14 / 3.
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
        norm = layers.BatchNorm(1, dtype)
        y = norm(tf.reshape(tf.constant([1.0, 2, 3, 6], dtype), (4, 1, 1, 1, 1)), training=True)
        assert float(norm.moving_mean.value[0]) == pytest.approx(0.99 * 0 + 0.01 * 3, rel=tolerance)
        assert float(norm.moving_variance.value[0]) == pytest.approx(0.99 * 1 + 0.01 * 14 / 3, rel=tolerance)
        expected = (np.array([1, 2, 3, 6]) - 3) / np.sqrt(3.5 + 1e-3)
        np.testing.assert_allclose(y.numpy().ravel(), expected, atol=tolerance)


def test_batch_norm_in_inference_uses_running_statistics_and_keeps_them():
    norm = layers.BatchNorm(1, "float64")
    for name, value in (("moving_mean", 2), ("moving_variance", 4), ("gamma", 3), ("beta", -1)):
        getattr(norm, name).assign([value])
    y = norm(tf.fill((1, 1, 1, 1, 1), tf.constant(5.0, "float64")))
    assert float(y[0, 0, 0, 0, 0]) == pytest.approx(3 * (5 - 2) / (4 + 1e-3) ** 0.5 - 1, rel=1e-12)
    assert float(norm.moving_mean.value[0]) == 2


def test_batch_norm_does_not_train_on_one_value_per_channel():
    with pytest.raises(
        errors.UserError, match=r"more than one value for each channel. Received: activations \(1, 1, 1, 1, 4"
    ):
        layers.BatchNorm(4, "float32")(tf.zeros((1, 1, 1, 1, 4)), training=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_norm_keeps_the_activations_dtype_and_float32_statistics(dtype):
    norm = layers.BatchNorm(2, layers.DTYPES[dtype])
    assert norm(tf.cast(tf.random.stateless_normal((2, 3, 4, 5, 2), (0, 0)), dtype), training=True).dtype == dtype
    assert norm.moving_mean.dtype == norm.moving_variance.dtype == "float32"


def _unit():
    stream = np.random.default_rng(1)
    unit = layers.Unit3D(3, architectures.Conv("unit", 4, (3, 3, 3), (1, 2, 2)), "float64")
    for variable in unit.weights:
        variable.assign(stream.random(variable.shape) - 0.3 * (len(variable.shape) > 1))
    return unit, tf.constant(stream.random((2, 4, 5, 6, 3)))


@pytest.mark.parametrize("training", [True, False])
def test_unit_equals_its_three_steps(training):
    unit, x = _unit()
    expected = tf.nn.relu(unit.batch_norm(unit.conv(x), training=training))
    np.testing.assert_allclose(unit(x, training=training), expected, rtol=1e-12, atol=1e-12)


def test_normalization_by_hand():
    pixels = tf.constant([0, 51, 255], tf.uint8)
    one = layers.normalize(pixels, "minus_one_to_one", "float64")
    np.testing.assert_allclose(one, [-1, 51 / 127.5 - 1, 1], rtol=1e-15)
    np.testing.assert_array_equal(layers.normalize(pixels, "raw", "float32"), [0, 51, 255])


def test_normalization_rounds_to_bfloat16_last():
    # 254.4 / 127.5 - 1 = 0.99529; bfloat16 keeps 254 of 254.4, which would give 0.99216.
    value = layers.normalize(tf.constant([254.4]), "minus_one_to_one", "bfloat16")
    assert float(value[0]) == float(tf.cast(254.4 / 127.5 - 1, tf.bfloat16))


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    y = layers.Dropout(0.7)(tf.ones((4, 25_000)), training=True).numpy()
    assert sorted(set(y.flatten().tolist())) == pytest.approx([0, 1 / 0.3])
    assert np.mean(y == 0) == pytest.approx(0.7, abs=0.01)


def test_dropout_in_inference_is_the_identity():
    np.testing.assert_array_equal(layers.Dropout(0.7)(tf.ones(10)), np.ones(10))


class _Two(layers.Layer):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dropout(0.5), layers.Dropout(0.5)


def _drop(layer):
    return layer(tf.ones((2, 500)), training=True).numpy()


def test_dropout_after_the_same_seed_is_the_same():
    model = _Two()
    layers.seed_dropout(model, 7)
    first, second = _drop(model.first), _drop(model.first)
    layers.seed_dropout(model, 7)
    np.testing.assert_array_equal(_drop(model.first), first)
    assert not np.array_equal(first, second)
    layers.seed_dropout(model, 8)
    assert not np.array_equal(_drop(model.first), first)


def test_dropout_layers_of_a_model_draw_different_masks():
    model = _Two()
    layers.seed_dropout(model, 7)
    assert not np.array_equal(_drop(model.first), _drop(model.second))


def test_a_traced_dropout_follows_its_seed_without_a_new_trace():
    model = _Two()
    traced = tf.function(lambda x: model.first(x, training=True), autograph=False)
    masks = []
    for seed in (1, 2, 1):
        layers.seed_dropout(model, seed)
        masks.append(traced(tf.ones((2, 500))).numpy())
    assert traced.experimental_get_tracing_count() == 1
    assert np.array_equal(masks[0], masks[2]) and not np.array_equal(masks[0], masks[1])


def test_walk_finds_layers_by_the_attributes_that_lead_to_them():
    unit, _ = _unit()
    assert [path for path, _ in layers.walk(unit)] == [(), ("conv",), ("batch_norm",)]
    assert all(isinstance(layer, keras.Layer) for _, layer in layers.walk(unit))
