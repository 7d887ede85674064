"""Grad-CAM in PyTorch: the contract of both builds, every endpoint, and what it may not do to a module."""

import collections
import math

import numpy as np
import pytest
import torch
from torch import nn

from common import errors
from common.explaining import layer_axes
from common.explaining.gradcam_contract_for_tests import (
    BIAS,
    CLASS_TOKEN,
    CLIP,
    HEAD,
    I3D,
    KERNEL,
    MATRIX,
    MODELS,
    PATCH,
    SCALE,
    GradCamContract,
    own_clips,
    random_clips,
)
from common.explaining.gradcam_maps import GradCamConfig
from common.models import architectures
from torch_impl import gradcam, weights


def _by_hand(clips):
    activations = clips.clone().requires_grad_()
    scale, matrix, bias = (torch.from_numpy(array).to(clips.dtype) for array in (SCALE, MATRIX, BIAS))
    return torch.einsum("ntc,t,ck->nk", activations.mean((2, 3)), scale, matrix) + bias, activations


def _gradient_by_hand(model, clips, targets, endpoint):
    """Returns what autograd finds in the whole model, without a hook."""
    logits, endpoints = model.eval()(clips, return_endpoints=True)
    (gradient,) = torch.autograd.grad(logits[range(len(clips)), targets].sum(), endpoints[endpoint])
    return endpoints[endpoint].detach().numpy(), gradient.numpy()


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
    layers["norm"].running_var.copy_(torch.tensor([1.0, 2, 3, 4]))
    return nn.Sequential(collections.OrderedDict(layers)).double()


def _own_parts(model, clips):
    with torch.no_grad():
        activations = model.conv(torch.from_numpy(clips).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return activations.numpy(), model.fc.weight.numpy(), torch.sqrt(model.norm.running_var + 1e-5).numpy()


class _Twice(nn.Module):
    """Calls a layer twice and another one never; logits are six times the means of the channels."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Identity()
        self.never = nn.Identity()

    def forward(self, x):
        return 3 * self.twice(2 * self.twice(x)).mean((2, 3, 4))


class _Returning(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.conv, self.pack = nn.Conv3d(3, 4, 3).double(), pack

    def forward(self, x):
        return self.pack(self.conv(x).mean((2, 3, 4)))


class _Permuted(nn.Module):
    def __init__(self, clips_axes, activations_axes):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = nn.Conv3d(3, 7, 3, padding=1).double(), nn.Identity()
        self.head = nn.Linear(7, 2).double()
        self.to_layer = layer_axes.permutation(clips_axes, "NCTHW")
        self.to_out = layer_axes.permutation("NCTHW", activations_axes)
        self.from_out = layer_axes.permutation(activations_axes, "NTHWC")

    def forward(self, x):
        out = self.out(self.conv(x.permute(self.to_layer)).permute(self.to_out))
        return self.head(out.permute(self.from_out).relu().mean((1, 2, 3)))


class _FrameWise(nn.Module):
    """Convolves single frames, and runs an LSTM over time."""

    def __init__(self):
        super().__init__()
        self.frames = nn.Conv2d(3, 4, 3).double()
        self.lstm = nn.LSTM(4, 5, batch_first=True).double()

    def forward(self, x):
        frames = self.frames(x.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        return self.lstm(frames.unflatten(0, (len(x), -1)))[0][:, -1]


class _Layer(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class _Tokens(nn.Module):
    def __init__(self, axes, class_tokens, pack):
        super().__init__()
        self.patches = nn.Conv3d(3, 4, PATCH, PATCH, bias=False).double()
        self.patches.weight.data = torch.from_numpy(KERNEL).permute(4, 3, 0, 1, 2).contiguous()
        self.tokens = _Layer(pack)
        self.groups, self.class_tokens = layer_axes.LayerAxes(axes).groups, class_tokens

    def forward(self, x):
        letters = "".join(self.groups)
        x = self.patches(x.permute(0, 4, 1, 2, 3)).permute(layer_axes.permutation("NCTHW", letters))
        sizes = iter(x.shape)
        x = x.reshape([math.prod(next(sizes) for _ in group) for group in self.groups])
        if self.class_tokens:
            x = torch.cat([torch.full((len(x), self.class_tokens, 4), CLASS_TOKEN, dtype=torch.float64), x], 1)
        packed = self.tokens(x)
        x = torch.tanh(packed[0] if isinstance(packed, tuple | list) else packed)
        others = [axis for axis, group in enumerate(self.groups) if axis and group != "C"]
        return x.mean(others).reshape(2, -1, 4).mean(1) @ torch.from_numpy(HEAD)


class _Attentive(nn.Module):
    def __init__(self, attentions):
        super().__init__()
        for i, attention in enumerate(attentions):
            self.add_module(f"attention_{i}", _Layer(lambda x, array=attention: (x, torch.from_numpy(array))))

    def forward(self, x):
        for layer in self.children():
            x, _ = layer(x)
        return x.mean((1, 2, 3))


def _deep():
    """A module in a wrapper, compiled, in another module, and wrapped again."""
    inner = _own_module()
    outer = nn.Sequential(collections.OrderedDict(net=torch.compile(nn.DataParallel(inner), backend="eager")))
    wrapped = torch.compile(nn.DataParallel(outer), backend="eager")
    wrapped.conv, wrapped.fc, wrapped.norm = inner.conv, inner.fc, inner.norm  # Where `own_parts` looks.
    return wrapped, "net.conv"


class TestGradCam(GradCamContract):
    gradcam = gradcam
    tensor = staticmethod(torch.as_tensor)
    softmax = staticmethod(lambda logits: logits.softmax(1))
    build_model = staticmethod(weights.build_model)
    by_hand = staticmethod(_by_hand)
    gradient_by_hand = staticmethod(_gradient_by_hand)
    own_model = staticmethod(_own_module)
    own_parts = staticmethod(_own_parts)
    twice = _Twice
    returning = _Returning
    permuted = _Permuted
    frame_wise = _FrameWise
    tokens = _Tokens
    attentive = _Attentive
    deep = staticmethod(_deep)

    @pytest.mark.parametrize(
        ("name", "endpoint"),
        [(name, layer.name) for name in MODELS for layer in [*architectures.layers(MODELS[name])][:-1]],
    )
    def test_every_endpoint_of_our_models(self, name, endpoint):
        self.check_endpoint(name, endpoint, endpoint)


class _ChannelsLast(nn.Module):
    """Works in the border's layout."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.dense(x).mean((1, 2, 3)))


def test_a_users_own_module_with_channels_last():
    torch.manual_seed(0)
    model, clips, targets = _ChannelsLast().double(), torch.from_numpy(own_clips()), np.array([4, 2])
    maps = gradcam.gradcam(
        gradcam.endpoint_fn(model, "dense", "NTHWC", "NTHWC"), clips, targets, GradCamConfig(weights="clip")
    )
    with torch.no_grad():
        expected = torch.einsum("nthwc,nc->nthw", model.dense(clips), model.head.weight[targets] / 120).relu()
    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)


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
        (weights.build_model(I3D), torch.from_numpy(random_clips(I3D)), "Mixed_4b")
        if ours
        else (_own_module(), torch.from_numpy(own_clips()), "conv")
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


def test_a_function_of_a_users_own_is_in_inference_mode_and_its_model_as_it_was():
    model, clips = _own_module().train(), torch.from_numpy(own_clips())
    before = _state(model)

    def endpoint_fn(clips):
        activations = model.conv(clips.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return model[1:](activations.permute(0, 4, 1, 2, 3).clone()), activations

    maps = gradcam.gradcam(endpoint_fn, clips, [4, 2], GradCamConfig())
    after = _state(model)
    assert after[:4] == before[:4]
    assert all(torch.equal(*buffers) for buffers in zip(after[4], before[4], strict=True))
    expected = gradcam.gradcam(gradcam.endpoint_fn(model, "conv"), clips, [4, 2], GradCamConfig())
    np.testing.assert_allclose(maps, expected, rtol=1e-12)


def test_nothing_is_kept_before_the_endpoint():
    sizes = []
    model, clips = weights.build_model(I3D), torch.from_numpy(random_clips(I3D))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        gradcam.gradcam(gradcam.endpoint_fn(model), clips, [0, 1], GradCamConfig())
    shape = architectures.layers(I3D)[-2].output_shape
    # What the head keeps is no larger than its input, and the input of the network is far larger.
    assert sizes and max(sizes) <= 2 * np.prod(shape) < clips.numel()


def test_the_graph_begins_at_the_endpoint_even_if_the_clips_require_gradients():
    clips = torch.from_numpy(random_clips(I3D)).float().requires_grad_()
    logits, _ = gradcam.endpoint_fn(weights.build_model(I3D))(clips)
    assert logits.requires_grad
    assert torch.autograd.grad(logits.sum(), clips, allow_unused=True) == (None,)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode):
    cam = gradcam.GradCam(gradcam.endpoint_fn(weights.build_model(I3D)), GradCamConfig())
    clips = torch.from_numpy(random_clips(I3D))
    expected = cam(clips, [0, 1])
    with mode():
        np.testing.assert_array_equal(cam(clips.clone(), [0, 1]), expected)


@pytest.mark.parametrize(("endpoint", "received"), [("frames", r"\(8, 4, 3, 4\)"), ("lstm", r"\(2, 4, 5\)")])
def test_layers_whose_output_is_not_of_clips(endpoint, received):
    with pytest.raises(errors.UserError, match=f"output has the axes NCTHW .* Received: {received}"):
        gradcam.gradcam(
            gradcam.endpoint_fn(_FrameWise(), endpoint), torch.from_numpy(own_clips()), [0, 1], GradCamConfig()
        )


def test_activations_that_the_logits_do_not_depend_on():
    def constant(clips):
        return torch.zeros(len(clips), 2), clips.clone().requires_grad_()

    def detached(clips):
        logits, activations = _by_hand(clips)
        return logits, activations.detach()

    for endpoint_fn in (constant, detached):
        with pytest.raises(errors.UserError, match="computed from the endpoint's activations. Received: no gradient"):
            gradcam.gradcam(endpoint_fn, torch.from_numpy(CLIP), [1], GradCamConfig())
