"""I3D: the paper's size, every endpoint's shape, and an independent plain build in float64."""

import gc

import numpy as np
import pytest
import torch

from benchmarks import plain_torch
from common.models import architectures, configs, initial_weights
from torch_impl import i3d, layers, weights

_SMALL = configs.I3DConfig(5, (9, 33, 46), dropout=0, width=0.125)


def _clips(config, number=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, *config.input_shape, 3), dtype=torch.uint8, generator=generator)


def _varied_weights(config):
    """Weights in which gamma, beta and the running statistics differ from channel to channel."""
    arrays = initial_weights.initial_weights(config, seed=0)
    stream = np.random.default_rng(1)
    for array in arrays.values():
        if array.ndim == 1:
            array += stream.uniform(-0.4, 0.4, array.shape).astype(np.float32)
    return arrays


def test_parameters_are_the_papers():
    model = i3d.I3D(configs.PRESETS["i3d_something"].model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 12_465_614


@pytest.mark.parametrize("temporal_strides", ["paper", "original"])
@pytest.mark.parametrize("shape", [(8, 32, 32), (9, 33, 46), (16, 64, 51)])
def test_endpoints_have_the_shapes_of_the_table(temporal_strides, shape):
    config = configs.I3DConfig(5, shape, temporal_strides=temporal_strides, width=0.0625)
    model = weights.build_model(config).eval()
    logits, endpoints = model(_clips(config), return_endpoints=True)
    assert list(endpoints) == [layer.name for layer in architectures.layers(config)]
    for layer in architectures.layers(config):
        assert endpoints[layer.name].shape == (2, *layer.output_shape)
    assert torch.equal(endpoints["Logits"], logits)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("temporal_strides", "number"), [("paper", 1), ("paper", 2), ("original", 2)])
def test_float64_agrees_with_the_plain_build(temporal_strides, number, training):
    config = configs.I3DConfig(5, (9, 33, 46), dropout=0, width=0.125, temporal_strides=temporal_strides)
    arrays = _varied_weights(config)
    ours = weights.build_model(config, "float64", arrays=arrays)
    plain = plain_torch.build_model(config, arrays, torch.float64)
    clips, labels = _clips(config, number), torch.tensor([1, 3])[:number]
    logits = []
    for model in (ours, plain):
        logits.append(model.train(training)(clips))
        torch.nn.functional.cross_entropy(logits[-1], labels).backward()
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-10, atol=1e-10)
    _assert_same_gradients(ours, plain)
    received = weights.get_weights(ours)
    for name, array in plain_torch.canonical_statistics(plain).items():
        np.testing.assert_allclose(received[name], array, rtol=1e-10, atol=1e-12, err_msg=name)


def _assert_same_gradients(ours, plain):
    expected = plain_torch.canonical_gradients(plain)
    parameters = weights.trainable(ours)
    assert expected.keys() == parameters.keys()
    for name, parameter in parameters.items():
        gradient, wanted = weights.to_canonical(name, parameter.grad), expected[name]
        assert np.abs(wanted).max() > 0, name
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-10 * max(1, np.abs(wanted).max()), err_msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_gradient_with_respect_to_the_pixels_agrees_with_the_plain_build(training):
    arrays = _varied_weights(_SMALL)
    gradients = []
    ours = weights.build_model(_SMALL, "float64", arrays=arrays)
    for model in (ours, plain_torch.build_model(_SMALL, arrays, torch.float64)):
        model.train(training).requires_grad_(False)
        clips = _clips(_SMALL).double().requires_grad_()
        gradients.extend(torch.autograd.grad(model(clips)[:, 2].sum(), clips))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["Conv3d_2c_3x3", "Mixed_3c", "Mixed_5b", "Mixed_5c"])
def test_gradient_with_respect_to_an_endpoint(name):
    model = weights.build_model(_SMALL, "float64").eval().requires_grad_(False)
    clips = _clips(_SMALL).double().requires_grad_()
    logits, endpoints = model(clips, return_endpoints=True)
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), endpoints[name])
    assert gradient.shape == endpoints[name].shape
    assert gradient.abs().max() > 0


def test_gradient_at_the_last_endpoint_by_hand():
    # The head is a mean over positions and a matrix: d logit_k / d activation_c = kernel[c, k] / positions.
    model = weights.build_model(_SMALL, "float64").eval()
    logits, endpoints = model(_clips(_SMALL), return_endpoints=True)
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), endpoints["Mixed_5c"])
    kernel = weights.get_weights(model)["Logits/Conv3d_0c_1x1/kernel"][0, 0, 0, :, 2]
    positions = np.prod(gradient.shape[1:4])
    np.testing.assert_allclose(gradient.numpy(), np.broadcast_to(kernel / positions, gradient.shape), rtol=1e-12)


def test_same_input_same_numbers():
    model = weights.build_model(_SMALL)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(_clips(_SMALL)).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_dropout_acts_in_training_only_and_repeats_with_its_seed():
    config = configs.I3DConfig(5, (8, 32, 32), dropout=0.5, width=0.125)
    model, clips = weights.build_model(config), _clips(config)
    layers.seed_dropout(model, 3)
    first, second = model(clips), model(clips)
    layers.seed_dropout(model, 3)
    assert torch.equal(model(clips), first)
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(clips), model(clips))


def test_bfloat16_keeps_float32_weights_statistics_and_logits():
    model = weights.build_model(_SMALL, "bfloat16")
    logits, endpoints = model(_clips(_SMALL), return_endpoints=True)
    assert {name for name, x in endpoints.items() if x.dtype == torch.bfloat16} == endpoints.keys() - {"Logits"}
    assert {tensor.dtype for tensor in (logits, *model.parameters(), *model.buffers())} == {torch.float32}
    logits.sum().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_bfloat16_is_near_float32():
    logits = [weights.build_model(_SMALL, precision).eval()(_clips(_SMALL)) for precision in ("float32", "bfloat16")]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0.02 * logits[0].abs().max().item())


def test_uint8_and_float_pixels_give_the_same_logits():
    model = weights.build_model(_SMALL).eval()
    assert torch.equal(model(_clips(_SMALL)), model(_clips(_SMALL).float()))


def _live_tensors():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_no_graph_outlives_its_step():
    model, clips = weights.build_model(_SMALL), _clips(_SMALL)

    def step():
        _, endpoints = model(clips, return_endpoints=True)
        endpoints["Logits"].sum().backward()

    step()
    before = _live_tensors()
    for _ in range(3):
        step()
    assert _live_tensors() <= before


def test_deepminds_head_by_hand():
    """Pool windows of frames 0-1 and 1-2, so the middle frame counts twice; 8 columns are two windows of 7."""
    head = i3d.Head(4, 5, 0.0, (2, 7, 7), torch.float64).eval()
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8, 4))
    kernel, bias = np.random.default_rng(1).normal(size=(4, 5)), np.arange(5.0)
    with torch.no_grad():
        head.Conv3d_0c_1x1.kernel.copy_(torch.from_numpy(kernel.T).reshape(head.Conv3d_0c_1x1.kernel.shape))
        head.Conv3d_0c_1x1.bias.copy_(torch.from_numpy(bias))
    in_time, in_columns = np.array([1, 2, 1]) / 4, np.array([1, 2, 2, 2, 2, 2, 2, 1]) / 14
    expected = np.einsum("nthwc,t,w,ck->nk", x, in_time, in_columns, kernel) / 7 + bias
    np.testing.assert_allclose(head(torch.from_numpy(x).permute(0, 4, 1, 2, 3)).detach(), expected, rtol=1e-12)
