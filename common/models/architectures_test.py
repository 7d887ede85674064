"""The architecture tables: the paper's parameter counts, the endpoints' names and shapes, FLOPs."""

import pytest

from common.models import architectures, configs


def _layer(config, name):
    return next(layer for layer in architectures.layers(config) if layer.name == name)


def test_i3d_has_the_papers_parameter_count():
    assert architectures.num_parameters(configs.PRESETS["i3d_something"].model) == 12_465_614


def test_conv_lstm_has_the_papers_parameter_count():
    assert architectures.num_parameters(configs.PRESETS["conv_lstm_something"].model) == 1_324_014


def test_conv_lstm_parameters_by_hand():
    # 120x160 -> stride 60x80 -> pool 30x40 -> stride 15x20 -> pool 7x10; four gates of 32 filters are 128 channels.
    config = configs.PRESETS["conv_lstm_kth"].model
    assert _layer(config, "MaxPool_2").output_shape == (32, 7, 10, 32)
    kernels = 3 * 5 * 128 * (3 + 32 + 32 + 32)  # Input and recurrent kernel of two layers.
    biases, batch_norm, dense = 2 * 128, 2 * 32, 7 * 10 * 32 * 6 + 6
    assert architectures.num_parameters(config) == kernels + biases + batch_norm + dense == 203_846


def test_own_batch_norm_adds_a_gamma_and_a_beta_a_layer():
    shared = architectures.num_parameters(configs.ConvLSTMConfig(174))
    own = architectures.num_parameters(configs.ConvLSTMConfig(174, share_batch_norm=False))
    assert own - shared == 2 * 64  # Three layers instead of one, 32 + 32 each.


@pytest.mark.parametrize(
    ("strides", "name", "shape"),
    [
        ("paper", "Conv3d_1a_7x7", (16, 112, 112, 64)),
        ("paper", "MaxPool3d_3a_3x3", (16, 28, 28, 192)),
        ("paper", "Mixed_4f", (16, 14, 14, 832)),
        ("paper", "Mixed_5c", (8, 7, 7, 1024)),
        ("original", "Conv3d_1a_7x7", (8, 112, 112, 64)),
        ("original", "Mixed_4f", (4, 14, 14, 832)),
        ("original", "Mixed_5c", (2, 7, 7, 1024)),
    ],
)
def test_i3d_endpoint_shapes(strides, name, shape):
    assert _layer(configs.I3DConfig(174, temporal_strides=strides), name).output_shape == shape


def test_i3d_endpoints_are_deepminds():
    names = [layer.name for layer in architectures.layers(configs.I3DConfig(174))]
    mixed = [f"Mixed_{number}" for number in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")]
    assert [name for name in names if name.startswith("Mixed")] == mixed
    assert names[:5] == ["Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "MaxPool3d_3a_3x3"]
    assert names[-1] == "Logits"


def test_one_convolution_of_an_inception_block_has_deepminds_odd_name():
    names = architectures.weights(configs.I3DConfig(174))
    assert "Mixed_5b/Branch_2/Conv3d_0a_3x3/kernel" in names
    assert "Mixed_5c/Branch_2/Conv3d_0b_3x3/kernel" in names


def test_flops_of_a_convolution_by_hand():
    # 16 * 112 * 112 positions, 7 * 7 * 7 * 3 values each, 64 filters, 2 operations.
    assert _layer(configs.I3DConfig(174), "Conv3d_1a_7x7").flops == 2 * 16 * 112 * 112 * 343 * 3 * 64


def test_flops_of_a_conv_lstm_layer_by_hand():
    # Input and recurrent convolution at 112 x 112: 25 * 3 and 25 * 32 values, 4 * 32 filters.
    flops = _layer(configs.ConvLSTMConfig(174), "ConvLSTM_1").flops
    assert flops == 2 * 16 * 112 * 112 * (75 + 800) * 128


def test_description_ends_with_the_number_of_parameters():
    lines = architectures.describe(configs.I3DConfig(174)).splitlines()
    assert lines[-1] == "trainable parameters: 12,465,614"
    assert lines[-2] == "forward pass of one clip: 131.50 GFLOPs (2 per multiply-add)"


def test_width_rounds_half_up_and_keeps_at_least_one_channel():
    config = configs.I3DConfig(174, width=0.03125)  # 48 * 0.03125 = 1.5, 16 * 0.03125 = 0.5
    kernels = architectures.weights(config)
    assert kernels["Mixed_5c/Branch_2/Conv3d_0a_1x1/kernel"].shape[-1] == 2
    assert kernels["Mixed_3b/Branch_2/Conv3d_0a_1x1/kernel"].shape[-1] == 1
