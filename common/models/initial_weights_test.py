"""Initial weights: distributions, bounds by hand, one stream an array."""

import numpy as np
import pytest

from common.models import architectures, configs, initial_weights

_CONFIG = configs.ConvLSTMConfig(5, (2, 64, 64), filters=8, share_batch_norm=False)


def test_every_array_has_its_canonical_shape_and_is_float32():
    for config in (_CONFIG, configs.I3DConfig(5, (8, 32, 32), width=0.125)):
        arrays = initial_weights.initial_weights(config, seed=0)
        wanted = architectures.weights(config)
        assert list(arrays) == list(wanted)
        for name, array in arrays.items():
            assert array.shape == wanted[name].shape
            assert array.dtype == np.float32


def test_same_seed_same_numbers_other_seed_others():
    first, again, other = (initial_weights.initial_weights(_CONFIG, seed)["Logits/kernel"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_layer_more_changes_no_other_array():
    two, three = (
        initial_weights.initial_weights(configs.ConvLSTMConfig(5, (2, 64, 64), num_layers=layers), seed=1)
        for layers in (2, 3)
    )
    for name in ("ConvLSTM_1/kernel", "ConvLSTM_2/recurrent_kernel"):
        np.testing.assert_array_equal(two[name], three[name])


def test_arrays_of_equal_shape_differ():
    arrays = initial_weights.initial_weights(configs.ConvLSTMConfig(5, (2, 64, 64)), seed=1)
    assert not np.array_equal(arrays["ConvLSTM_2/recurrent_kernel"], arrays["ConvLSTM_3/recurrent_kernel"])


def test_glorot_bound_of_a_convolution():
    # Kernel 7x7x7, 3 -> 64 channels: sqrt(6 / (343 * (3 + 64))) = 0.016158
    kernel = initial_weights.initial_weights(configs.I3DConfig(5), seed=0)["Conv3d_1a_7x7/kernel"]
    assert np.abs(kernel).max() == pytest.approx(0.016158, rel=1e-3)
    assert np.abs(kernel).max() <= (6 / (343 * 67)) ** 0.5
    assert kernel.std() == pytest.approx(0.016158 / 3**0.5, rel=0.01)
    assert abs(kernel.mean()) < 1e-4


def test_glorot_bound_of_the_dense_layer():
    # 16 frames of 3x3 px of 32 channels, 174 classes: sqrt(6 / (4608 + 174)) = 0.035421
    kernel = initial_weights.initial_weights(configs.ConvLSTMConfig(174), seed=0)["Logits/kernel"]
    assert kernel.shape == (4608, 174)
    assert np.abs(kernel).max() == pytest.approx(0.035421, rel=1e-3)


def test_recurrent_kernel_has_orthonormal_columns():
    kernel = initial_weights.initial_weights(_CONFIG, seed=0)["ConvLSTM_1/recurrent_kernel"]
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)  # [5 * 5 * 8, 4 * 8]
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(32), atol=1e-6)


def test_wide_recurrent_kernel_has_orthonormal_rows():
    config = configs.ConvLSTMConfig(5, (2, 64, 64), num_layers=1, filters=8, kernel_size=(1, 3))
    matrix = initial_weights.initial_weights(config, seed=0)["ConvLSTM_1/recurrent_kernel"].reshape(24, 32)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(24), atol=1e-6)


def test_orthogonal_matrix_has_the_signs_of_a_positive_diagonal():
    # A = QR with a positive diagonal of R is unique, and Q is then uniform over orthogonal matrices.
    q = initial_weights._orthogonal((3, 2, 4), np.random.default_rng(5)).reshape(6, 4)
    a = np.random.default_rng(5).standard_normal((6, 4))
    r = q.T @ a
    np.testing.assert_allclose(r, np.triu(r), atol=1e-12)
    assert (np.diag(r) > 0).all()


def test_only_the_forget_gates_bias_is_one():
    bias = initial_weights.initial_weights(_CONFIG, seed=0)["ConvLSTM_2/bias"]
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 8))  # i, f, c, o


def test_batch_norm_starts_as_the_identity():
    arrays = initial_weights.initial_weights(_CONFIG, seed=0)
    for name, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
        np.testing.assert_array_equal(arrays[f"BatchNorm_1/{name}"], np.full(8, value))
