"""ConvLSTM: the paper's size, every endpoint's shape, one step by hand, and an independent plain build in float64."""

import gc

import numpy as np
import pytest
import torch

from benchmarks import plain_torch
from common.models import architectures, configs, initial_weights
from torch_impl import conv_lstm, layers, weights

_CONFIGS = {
    "shared": configs.ConvLSTMConfig(5, (4, 37, 42), num_layers=2, filters=3),
    "own": configs.ConvLSTMConfig(5, (4, 37, 42), num_layers=2, filters=3, share_batch_norm=False),
    "kth": configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=2, filters=4, kernel_size=(3, 5), head="last_frame"),
    "even_kernel": configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=2, filters=3, kernel_size=(4, 2)),
}


def _clips(config, number=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, *config.input_shape, 3), dtype=torch.uint8, generator=generator)


def _varied_weights(config):
    """Weights in which biases, gamma, beta and the running statistics differ from channel to channel."""
    arrays = initial_weights.initial_weights(config, seed=0)
    stream = np.random.default_rng(1)
    for array in arrays.values():
        if array.ndim == 1:
            array += stream.uniform(-0.4, 0.4, array.shape).astype(np.float32)
    return arrays


def test_parameters_are_the_papers():
    model = conv_lstm.ConvLSTM(configs.PRESETS["conv_lstm_something"].model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_324_014


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
    logits, endpoints = weights.build_model(config).eval()(_clips(config), return_endpoints=True)
    assert list(endpoints) == [layer.name for layer in architectures.layers(config)]
    for layer in architectures.layers(config):
        assert endpoints[layer.name].shape == (2, *layer.output_shape)
    assert torch.equal(endpoints["Logits"], logits)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_two_steps_by_hand():
    # One pixel, one channel, one filter: SAME convolutions keep the kernel's centre, so gates are scalar sums.
    layer = conv_lstm.ConvLSTMLayer(1, 1, (3, 3), torch.float64)
    w, u, b = [0.5, -0.3, 0.8, 0.2], [0.7, 0.1, -0.6, 0.4], [0.1, 1.0, -0.2, 0.3]  # i, f, c, o
    layer.kernel.data[:, 0, 1, 1] = torch.tensor(w, dtype=torch.float64)
    layer.recurrent_kernel.data[:, 0, 1, 1] = torch.tensor(u, dtype=torch.float64)
    layer.bias.data.copy_(torch.tensor(b, dtype=torch.float64))
    x = [1.5, -2.0]
    c1 = _sigmoid(0.5 * 1.5 + 0.1) * np.tanh(0.8 * 1.5 - 0.2)
    h1 = _sigmoid(0.2 * 1.5 + 0.3) * np.tanh(c1)
    forget = _sigmoid(-0.3 * -2.0 + 0.1 * h1 + 1.0)
    c2 = forget * c1 + _sigmoid(0.5 * -2.0 + 0.7 * h1 + 0.1) * np.tanh(0.8 * -2.0 - 0.6 * h1 - 0.2)
    h2 = _sigmoid(0.2 * -2.0 + 0.4 * h1 + 0.3) * np.tanh(c2)
    y = layer(torch.tensor(x, dtype=torch.float64).reshape(2, 1, 1, 1, 1))
    np.testing.assert_allclose(y.detach().flatten().numpy(), [h1, h2], rtol=1e-13)


def test_input_stride_is_2_and_starts_at_the_first_pixel():
    # Width 4, kernel 1x3, stride 2 pads only after: windows (0 1 2) (2 3 _); weights 1, 10, 100 of the cell's gate.
    layer = conv_lstm.ConvLSTMLayer(1, 1, (1, 3), torch.float64)
    layer.kernel.data[2, 0, 0] = torch.tensor([1.0, 10, 100], dtype=torch.float64)
    x = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64) / 1000
    cell = 0.5 * np.tanh(np.array([0.321, 0.043]))
    y = layer(x.reshape(1, 1, 1, 1, 4))
    np.testing.assert_allclose(y.detach().flatten().numpy(), 0.5 * np.tanh(cell), rtol=1e-12)


@pytest.mark.parametrize("channels_needing_gradient", [True, False])
def test_layer_passes_gradcheck(channels_needing_gradient):
    generator = torch.Generator().manual_seed(0)
    layer = conv_lstm.ConvLSTMLayer(2, 2, (3, 2), torch.float64)
    parameters = [torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.3 for p in layer.parameters()]
    x = torch.randn(3, 2, 2, 4, 5, generator=generator, dtype=torch.float64)

    def run(x, *parameters):
        names = [name for name, _ in layer.named_parameters()]
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    inputs = [x.requires_grad_(channels_needing_gradient), *(p.requires_grad_() for p in parameters)]
    assert torch.autograd.gradcheck(run, inputs, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", _CONFIGS)
def test_float64_agrees_with_the_plain_build(name, training):
    config = _CONFIGS[name]
    arrays = _varied_weights(config)
    ours = weights.build_model(config, "float64", arrays=arrays)
    plain = plain_torch.build_model(config, arrays, torch.float64)
    clips, labels = _clips(config), torch.tensor([1, 3])
    logits, pixel_gradients = [], []
    for model in (ours, plain):
        pixels = clips.double().requires_grad_()
        logits.append(model.train(training)(pixels))
        torch.nn.functional.cross_entropy(logits[-1], labels).backward()
        pixel_gradients.append(pixels.grad)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pixel_gradients[0], pixel_gradients[1], rtol=1e-9, atol=1e-12)
    expected = plain_torch.canonical_gradients(plain)
    parameters = weights.trainable(ours)
    assert expected.keys() == parameters.keys()
    for key, parameter in parameters.items():
        gradient, wanted = weights.to_canonical(key, parameter.grad), expected[key]
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-10 * max(1, np.abs(wanted).max()), err_msg=key)
    received = weights.get_weights(ours)
    for key, array in plain_torch.canonical_statistics(plain).items():
        np.testing.assert_allclose(received[key], array, rtol=1e-10, atol=1e-12, err_msg=key)


def test_shared_batch_norm_keeps_its_own_statistics_per_layer():
    model = weights.build_model(_CONFIGS["shared"])
    model(_clips(_CONFIGS["shared"]))
    arrays = weights.get_weights(model)
    assert not np.allclose(arrays["BatchNorm_1/moving_mean"], arrays["BatchNorm_2/moving_mean"])
    assert model.BatchNorm_1.gamma is model.BatchNorm_2.gamma is model.BatchNorm.gamma


@pytest.mark.parametrize("name", ["ConvLSTM_1", "ConvLSTM_2", "BatchNorm_2", "MaxPool_2"])
def test_gradient_with_respect_to_an_endpoint(name):
    model = weights.build_model(_CONFIGS["shared"], "float64").eval().requires_grad_(False)
    clips = _clips(_CONFIGS["shared"]).double().requires_grad_()
    logits, endpoints = model(clips, return_endpoints=True)
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), endpoints[name])
    assert gradient.shape == endpoints[name].shape
    assert gradient.abs().max() > 0


def test_dense_layer_flattens_time_height_width_channels():
    model = weights.build_model(_CONFIGS["own"], "float64").eval()
    logits, endpoints = model(_clips(_CONFIGS["own"]), return_endpoints=True)
    arrays = weights.get_weights(model)
    features = endpoints["MaxPool_2"].detach().numpy().reshape(2, -1)
    expected = features @ arrays["Logits/kernel"] + arrays["Logits/bias"]
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=1e-12)


def test_last_frame_head_reads_the_last_frame_only():
    model = weights.build_model(_CONFIGS["kth"], "float64").eval()
    logits, endpoints = model(_clips(_CONFIGS["kth"]), return_endpoints=True)
    (gradient,) = torch.autograd.grad(logits.sum(), endpoints["MaxPool_2"])
    assert gradient[:, :-1].abs().max() == 0
    assert gradient[:, -1].abs().min() > 0


def test_dropout_between_the_layers_repeats_with_its_seed():
    config = configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=2, filters=4, dropout=0.5)
    model, clips = weights.build_model(config), _clips(config)
    layers.seed_dropout(model, 3)
    first, second = model(clips), model(clips)
    layers.seed_dropout(model, 3)
    assert torch.equal(model(clips), first)
    assert not torch.equal(first, second)


def test_one_layer_has_no_dropout():
    config = configs.ConvLSTMConfig(5, (3, 32, 33), num_layers=1, filters=4, dropout=0.5)
    model, clips = weights.build_model(config), _clips(config)
    assert torch.equal(model(clips), model(clips))


def test_same_input_same_numbers():
    model = weights.build_model(_CONFIGS["shared"])
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(_clips(_CONFIGS["shared"])).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_keeps_float32_weights_and_logits_and_is_near_float32():
    config = _CONFIGS["shared"]
    model = weights.build_model(config, "bfloat16").eval()
    logits, endpoints = model(_clips(config), return_endpoints=True)
    assert {name for name, x in endpoints.items() if x.dtype == torch.bfloat16} == endpoints.keys() - {"Logits"}
    assert {tensor.dtype for tensor in (logits, *model.parameters(), *model.buffers())} == {torch.float32}
    expected = weights.build_model(config).eval()(_clips(config))
    # Measured in PyTorch: 0.012, and of 29 other batches up to 0.018.
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.04 * expected.abs().max().item())
    logits.sum().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def _live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_no_graph_outlives_its_step():
    model, clips = weights.build_model(_CONFIGS["shared"]), _clips(_CONFIGS["shared"])

    def step():
        _, endpoints = model(clips, return_endpoints=True)
        endpoints["Logits"].sum().backward()

    step()
    before = _live_tensors()
    for _ in range(3):
        step()
    assert _live_tensors() <= before
