import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
import torch

from common.models import architectures, padding
from parity_tests import compare, tolerances, twins
from tf_impl import conv_lstm as tf_conv_lstm
from tf_impl import layers as tf_layers
from torch_impl import conv_lstm as torch_conv_lstm
from torch_impl import layers as torch_layers
from torch_impl import weights as torch_weights


def arrays(*shapes, seed=0, dtype="float64"):
    stream = np.random.default_rng(seed)
    return [stream.standard_normal(shape).astype(dtype) for shape in shapes]


def to_torch(x):
    """[N, T, H, W, C] -> [N, C, T, H, W] in channels-last memory."""
    return torch.from_numpy(x).permute(0, 4, 1, 2, 3)


def from_torch(x):
    return x.detach().permute(0, 2, 3, 4, 1).numpy()


# Every pair of sizes and strides that I3D meets, and then some: time, height, width each odd and even.
_SIZES = [(4, 6, 7), (5, 7, 8), (8, 9, 6), (7, 8, 9), (3, 5, 5), (2, 4, 10)]


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2)])
@pytest.mark.parametrize("kernel_size", [(1, 1, 1), (3, 3, 3), (7, 7, 7), (2, 4, 3)])
def test_same_convolution(kernel_size, strides, precision):
    for size in _SIZES:
        x, kernel = arrays((2, *size, 3), (*kernel_size, 3, 4), dtype=precision)
        expected = from_torch(
            torch_layers.same_conv(to_torch(x), torch_weights.from_canonical("kernel", kernel), strides)
        )
        received = tf_layers.same_conv(x, kernel, strides).numpy()
        compare.assert_close(f"{size}", expected, received, tolerances.limit("endpoints", precision))
        assert received.shape[1:4] == tuple(map(padding.same_output, size, strides))


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize(
    ("kernel_size", "strides"),
    [
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((3, 3, 3), (1, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ],
)
def test_max_pool_and_its_gradient(kernel_size, strides, precision):
    for size in _SIZES:
        # All negative: padding that counts as 0 would show. All different, so that one place takes each gradient.
        x = -1 - np.random.default_rng(3).permutation(2 * 3 * np.prod(size)).reshape(2, *size, 3).astype(precision)
        leaf = to_torch(x).requires_grad_()
        ours = torch_layers.MaxPool(kernel_size, strides)(leaf)
        (ours**2).sum().backward()
        theirs_in = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(theirs_in)
            theirs = tf_layers.MaxPool(kernel_size, strides)(theirs_in)
            total = tf.reduce_sum(theirs**2)
        compare.assert_close(f"{size}", from_torch(ours), theirs.numpy(), 0)
        compare.assert_close(f"gradient {size}", from_torch(leaf.grad), tape.gradient(total, theirs_in).numpy(), 0)


@pytest.mark.parametrize("precision", twins.PRECISIONS)
def test_batch_norm_in_training_and_its_running_statistics(precision):
    limit = tolerances.limit("endpoints", precision)
    gamma, beta = arrays((3,), (3,), seed=1, dtype=precision)
    ours = torch_layers.BatchNorm(3, getattr(torch, precision))
    theirs = tf_layers.BatchNorm(3, tf_layers.DTYPES[precision])
    with torch.no_grad():
        ours.gamma.copy_(torch.from_numpy(gamma))
        ours.beta.copy_(torch.from_numpy(beta))
    theirs.gamma.assign(gamma)
    theirs.beta.assign(beta)
    for step in range(4):
        (x,) = arrays((2, 1, 2, 2, 3), seed=10 + step, dtype=precision)  # 8 values a channel: n / (n - 1) is 8 / 7.
        expected = from_torch(ours.train()(to_torch(x)))
        compare.assert_close(f"output {step}", expected, theirs(x, training=True).numpy(), limit)
        for name in ("moving_mean", "moving_variance"):
            values = getattr(ours, name).numpy(), getattr(theirs, name).value.numpy()
            compare.assert_close(f"{name} {step}", *values, limit)
    compare.assert_close("inference", from_torch(ours.eval()(to_torch(x))), theirs(x).numpy(), limit)


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("kernel_size", [(3, 5), (5, 5), (2, 4)])
def test_conv_lstm_layer_against_torch_and_keras(kernel_size, precision):
    limit = tolerances.limit("endpoints", precision)
    filters, dtype = 3, tf_layers.DTYPES[precision]
    x, kernel, recurrent, bias = arrays(
        (2, 6, 9, 12, 2), (*kernel_size, 2, 12), (*kernel_size, 3, 12), (12,), dtype=precision
    )
    theirs = tf_conv_lstm.ConvLSTMLayer(2, filters, kernel_size, dtype)
    theirs.set_weights([kernel * 0.3, recurrent * 0.3, bias])
    received = theirs(x).numpy()
    ours = torch_conv_lstm.ConvLSTMLayer(2, filters, kernel_size, getattr(torch, precision))
    with torch.no_grad():
        for weight, value in zip(ours.parameters(), theirs.get_weights(), strict=True):
            weight.copy_(torch_weights.from_canonical("kernel" if value.ndim > 1 else "bias", value))
        hidden = ours(torch.from_numpy(x).permute(1, 0, 4, 2, 3)).permute(1, 0, 3, 4, 2)
    compare.assert_close("torch", hidden.numpy(), received, limit)
    oracle = keras.layers.ConvLSTM2D(
        filters,
        kernel_size,
        strides=2,
        padding="same",
        data_format="channels_last",
        activation="tanh",
        recurrent_activation="sigmoid",
        return_sequences=True,
        dtype=dtype,
    )
    oracle.build(x.shape)
    oracle.set_weights(theirs.get_weights())
    compare.assert_close("keras.layers.ConvLSTM2D", oracle(x).numpy(), received, limit)


def test_gates_stand_in_the_order_of_the_architecture():
    assert architectures.GATES == ("i", "f", "c", "o")
