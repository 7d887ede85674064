"""Grad-CAM against numbers worked out by hand, on every endpoint, and on a module of a user's own."""

import collections

import numpy as np
import pytest
import torch
from torch import nn

from common import errors
from common.explaining import gradcam_maps
from common.explaining.gradcam_maps import GradCamConfig
from common.models import architectures, configs
from torch_impl import gradcam, weights

_I3D = configs.I3DConfig(5, (8, 33, 46), dropout=0.5, width=0.0625)
_CONV_LSTM = configs.ConvLSTMConfig(5, (4, 40, 33), num_layers=2, filters=4, dropout=0.5)
_MODELS = {"i3d": _I3D, "conv_lstm": _CONV_LSTM}

# One clip of 2 frames of 1 x 2 px and 2 channels; logits are Σ_t scale_t · mean over the frame · matrix [C, K] + bias.
_CLIP = np.array([[[[[1, 2], [3, 0]]], [[[0, 4], [2, 2]]]]], np.float64)
_SCALE, _MATRIX = np.array([2.0, 6]), np.array([[1.0, -1], [-2, 1]])
_BIAS = np.array([40.0, 0])  # Both logits are 10.


def _by_hand(clips):
    activations = clips.clone().requires_grad_()
    scale, matrix, bias = (torch.from_numpy(array).to(clips.dtype) for array in (_SCALE, _MATRIX, _BIAS))
    return torch.einsum("ntc,t,ck->nk", activations.mean((2, 3)), scale, matrix) + bias, activations


def _clips(config, number=2, seed=0):
    stream = np.random.default_rng(seed)
    return torch.from_numpy(stream.integers(0, 256, (number, *config.input_shape, 3), dtype=np.uint8))


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
    maps = gradcam.gradcam(_by_hand, torch.from_numpy(_CLIP.astype(dtype)), [target], config)
    assert maps.dtype == dtype
    np.testing.assert_allclose(maps, [expected], atol=1e-5 if dtype == "float32" else 1e-12)


def test_each_clip_has_its_target():
    maps = gradcam.gradcam(_by_hand, torch.from_numpy(np.concatenate([_CLIP] * 2)), np.array([1, 0]), GradCamConfig())
    np.testing.assert_allclose(maps, [[[[1, 0]], [[12, 0]]], [[[0, 3]], [[0, 0]]]], atol=1e-12)


def test_activations_of_zero_give_a_map_of_zero():
    maps = gradcam.gradcam(_by_hand, torch.zeros(_CLIP.shape), [1], GradCamConfig())
    np.testing.assert_array_equal(maps, np.zeros((1, 2, 1, 2)))


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [(name, layer.name) for name in _MODELS for layer in [*architectures.layers(_MODELS[name])][:-1]],
)
def test_every_endpoint_of_our_models(name, endpoint):
    assert_map_of_endpoint(name, endpoint, endpoint)


@pytest.mark.parametrize(("name", "endpoint"), [("i3d", "Mixed_5c"), ("conv_lstm", "ConvLSTM_2")])
def test_without_a_name_the_endpoint_is_the_papers(name, endpoint):
    assert_map_of_endpoint(name, "", endpoint)


def assert_map_of_endpoint(name, asked, endpoint):
    """Compares with the gradient that autograd finds in the whole model, without a hook."""
    config, targets = _MODELS[name], np.array([3, 1, 0, 2])
    model, clips = weights.build_model(config, "float64"), _clips(config, 4)
    received = gradcam.gradcam(gradcam.endpoint_fn(model, asked), clips, targets, GradCamConfig())
    logits, endpoints = model.eval()(clips, return_endpoints=True)
    (gradient,) = torch.autograd.grad(logits[range(4), targets].sum(), endpoints[endpoint])
    expected = gradcam_maps.combine(endpoints[endpoint].detach().numpy(), gradient.numpy())
    assert expected.max() > 0
    assert received.dtype == np.float64
    np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9 * expected.max())


@pytest.mark.parametrize("name", _MODELS)
def test_a_clip_does_not_see_its_batch(name):
    config, targets = _MODELS[name], np.array([3, 1, 0])
    cam = gradcam.GradCam(
        gradcam.endpoint_fn(weights.build_model(config, "float64")), GradCamConfig(score="probability")
    )
    clips = _clips(config, 3)
    together = cam(clips, targets)
    alone = np.concatenate([cam(clips[i : i + 1], targets[i : i + 1]) for i in range(3)])
    assert together.max() > 0
    np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-9 * together.max())


def test_bfloat16_gives_float32_near_that_of_float32():
    maps = []
    for precision in ("float32", "bfloat16"):
        cam = gradcam.GradCam(gradcam.endpoint_fn(weights.build_model(_CONV_LSTM, precision)), GradCamConfig())
        maps.append(cam(_clips(_CONV_LSTM), [0, 1]))
    assert maps[1].dtype == np.float32
    np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=0.05 * maps[0].max())


def _own_module():
    """Takes [N, 3, T, H, W]; the ReLU writes into the convolution's output."""
    torch.manual_seed(0)
    layers = {
        "conv": nn.Conv3d(3, 4, 3, padding=1),
        "relu": nn.ReLU(inplace=True),
        "norm": nn.BatchNorm3d(4),
        "pool": nn.AdaptiveAvgPool3d(1),
        "flat": nn.Flatten(),
        "drop": nn.Dropout(0.5),
        "fc": nn.Linear(4, 5),
    }
    return nn.Sequential(collections.OrderedDict(layers)).double()


def _own_clips():
    return torch.rand(2, 4, 5, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_users_own_module():
    model, clips, targets = _own_module(), _own_clips(), np.array([4, 2])
    model.norm.running_var.copy_(torch.tensor([1.0, 2, 3, 4]))
    maps = gradcam.gradcam(gradcam.endpoint_fn(model, "conv"), clips, targets, GradCamConfig())
    with torch.no_grad():
        activations = model.conv(clips.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).numpy()
        slope = (model.fc.weight[targets] / torch.sqrt(model.norm.running_var + 1e-5)).numpy()
    gradients = (activations > 0) * slope[:, None, None, None] / (4 * 5 * 6)
    expected = np.maximum((activations * gradients.mean((2, 3), keepdims=True)).sum(-1), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)


class _ChannelsLast(nn.Module):
    """The own module behind the border's layout."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.dense(x).mean((1, 2, 3)))


def test_a_users_own_module_with_channels_last():
    model, clips, targets = _ChannelsLast().double(), _own_clips(), np.array([4, 2])
    maps = gradcam.gradcam(
        gradcam.endpoint_fn(model, "dense", channels_first=False), clips, targets, GradCamConfig(weights="clip")
    )
    with torch.no_grad():
        expected = torch.einsum("nthwc,nc->nthw", model.dense(clips), model.head.weight[targets] / 120).relu()
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)


class _Twice(nn.Module):
    """Calls a layer twice and another one never; logits are six times the means of the channels."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Identity()
        self.never = nn.Identity()

    def forward(self, x):
        return 3 * self.twice(2 * self.twice(x)).mean((2, 3, 4))


def test_of_several_calls_the_first_counts():
    clips = _own_clips()
    maps = gradcam.gradcam(gradcam.endpoint_fn(_Twice(), "twice"), clips, [0, 2], GradCamConfig())
    expected = torch.stack([clips[0, ..., 0], clips[1, ..., 2]]) * 6 / 120
    np.testing.assert_allclose(maps, expected, rtol=1e-12)


def _state(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [buffer.clone() for buffer in model.buffers()],
    )


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_model_is_as_it_was(ours, fails):
    model, clips, endpoint = (
        (weights.build_model(_I3D), _clips(_I3D), "Mixed_4b") if ours else (_own_module(), _own_clips(), "conv")
    )
    model.train()
    last = model.Logits if ours else model.fc
    last.eval()
    next(last.parameters()).requires_grad_(False)
    before = _state(model)
    if fails:

        def fail(*_):
            raise ZeroDivisionError

        handle = last.register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            gradcam.gradcam(gradcam.endpoint_fn(model, endpoint), clips, [0, 1], GradCamConfig())
        handle.remove()
    else:
        gradcam.gradcam(gradcam.endpoint_fn(model, endpoint), clips, [0, 1], GradCamConfig())
    after = _state(model)
    assert after[:4] == before[:4]
    assert all(torch.equal(*buffers) for buffers in zip(after[4], before[4], strict=True))


def test_nothing_is_kept_before_the_endpoint():
    sizes = []
    model, clips = weights.build_model(_I3D), _clips(_I3D)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        gradcam.gradcam(gradcam.endpoint_fn(model), clips, [0, 1], GradCamConfig())
    shape = architectures.layers(_I3D)[-2].output_shape
    # What the head keeps is no larger than its input, and the input of the network is far larger.
    assert sizes and max(sizes) <= 2 * np.prod(shape) < clips.numel()


def test_the_graph_begins_at_the_endpoint_even_if_the_clips_require_gradients():
    clips = _clips(_I3D).float().requires_grad_()
    logits, _ = gradcam.endpoint_fn(weights.build_model(_I3D))(clips)
    assert logits.requires_grad
    assert torch.autograd.grad(logits.sum(), clips, allow_unused=True) == (None,)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode):
    cam = gradcam.GradCam(gradcam.endpoint_fn(weights.build_model(_I3D)), GradCamConfig())
    clips = _clips(_I3D)
    expected = cam(clips, [0, 1])
    with mode():
        np.testing.assert_array_equal(cam(clips.clone(), [0, 1]), expected)


def test_unknown_endpoint_of_our_model():
    with pytest.raises(errors.UserError, match=r"one of ConvLSTM_1, .*, MaxPool_2. Received: 'Mixed_5c'"):
        gradcam.endpoint_fn(weights.build_model(_CONV_LSTM), "Mixed_5c")


@pytest.mark.parametrize("name", ["", "conv3d"])
def test_unknown_endpoint_of_a_users_module(name):
    with pytest.raises(errors.UserError, match=f"one of conv, relu, norm, pool, flat, drop, fc. Received: '{name}'"):
        gradcam.endpoint_fn(_own_module(), name)


def test_a_layer_that_is_not_called():
    with pytest.raises(errors.UserError, match="must call the endpoint. Received: no call of 'never'"):
        gradcam.gradcam(gradcam.endpoint_fn(_Twice(), "never"), _own_clips(), [0, 1], GradCamConfig())


class _FrameWise(nn.Module):
    """Convolves single frames, and runs an LSTM over time."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x):
        frames = self.conv(x.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        return self.lstm(frames.unflatten(0, (len(x), -1)))[0][:, -1]


@pytest.mark.parametrize(("endpoint", "received"), [("conv", r"\(8, 4, 3, 4\)"), ("lstm", "tuple")])
def test_layers_whose_output_is_not_of_clips(endpoint, received):
    model = _FrameWise().double()
    with pytest.raises(errors.UserError, match=f"one output, 5 axes, of clips. Received: {received}"):
        gradcam.gradcam(gradcam.endpoint_fn(model, endpoint), _own_clips(), [0, 1], GradCamConfig())


def test_activations_that_the_logits_do_not_depend_on():
    def constant(clips):
        return torch.zeros(len(clips), 2), clips.clone().requires_grad_()

    def elsewhere(clips):
        logits, _ = _by_hand(clips)
        return logits, clips.clone().requires_grad_()

    def detached(clips):
        logits, activations = _by_hand(clips)
        return logits, activations.detach()

    for endpoint_fn in (constant, elsewhere, detached):
        with pytest.raises(errors.UserError, match="computed from the endpoint's activations. Received: no gradient"):
            gradcam.gradcam(endpoint_fn, torch.from_numpy(_CLIP), [1], GradCamConfig())


@pytest.mark.parametrize("targets", [[2], [-1], [0, 1], [0.0]])
def test_targets_that_are_no_classes(targets):
    with pytest.raises(errors.UserError, match="targets must be 1 class numbers in 0…1"):
        gradcam.gradcam(_by_hand, torch.from_numpy(_CLIP), targets, GradCamConfig())
