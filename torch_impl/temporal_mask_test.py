"""The search on scores whose best mask is known, and what it may not do to a model, to other clips, or to memory."""

import functools
import gc

import numpy as np
import pytest
import torch
from torch import nn

from common.explaining.mask_contract_for_tests import (
    MEMORY,
    TIME,
    MaskContract,
    assert_same,
    check_memory_does_not_grow,
    initial_mask,
    jumps,
    learn,
    loss_gradient,
    random_clips,
)
from common.explaining.masks import MaskConfig
from common.models import configs
from torch_impl import temporal_mask, weights


def _motion(clips):
    """Probability of class k is how far the mean pixel moves from frame k - 1 to k: freezing frame k takes it away.

    Class 0 has the rest.
    """
    pixels = clips.flatten(2).mean(2)
    moves = pixels.diff(dim=1).abs() / 255
    return torch.cat([1 - moves.sum(1, keepdim=True), moves], dim=1)


class Motion(nn.Module):
    def forward(self, clips):
        return _motion(clips)


class _Prepared(Motion):
    """Keeps the pixels' means of a clip, which is all that it looks at."""

    def __init__(self):
        super().__init__()
        self.prepared = 0

    def prepare(self, clips):
        self.prepared += len(clips)
        return clips.float().flatten(2).mean(2)

    def perturbed(self, prepared, matrix):
        return _motion((matrix @ prepared[:, :, None])[..., None, None])


class _OtherwisePrepared(_Prepared):
    def perturbed(self, prepared, matrix):
        return super().perturbed(prepared, matrix) / 2


def _conv_lstm():
    config = configs.ConvLSTMConfig(4, (TIME, 8, 8), num_layers=1, filters=3)
    model = weights.build_model(config, "float64").eval().requires_grad_(False)
    return lambda clips: model(clips).softmax(1)


class TestMask(MaskContract):
    temporal_mask = temporal_mask
    tensor = staticmethod(torch.as_tensor)
    dtype = staticmethod(lambda name: getattr(torch, name))
    motion = staticmethod(_motion)
    motion_model = Motion
    prepared = _Prepared
    otherwise_prepared = _OtherwisePrepared
    conv_lstm = staticmethod(_conv_lstm)
    random = staticmethod(lambda clips: 0.5 + 0.5 * torch.rand(1))
    quarter_of_batch = staticmethod(lambda clips: len(clips) / 4)
    checks = [1, 1, 2, 1]  # Alone, again, beside another, and under the identity.

    @pytest.mark.parametrize("kind", ["freeze", "reverse"])
    def test_a_clip_does_not_see_its_batch(self, kind):
        self.check_a_clip_does_not_see_its_batch(kind)


def test_freeze_and_its_gradient_by_hand():
    clips = torch.tensor([10, 30, 70, 90], dtype=torch.uint8).reshape(1, 4, 1, 1, 1)
    mask = torch.tensor([[0, 0.5, 0.5, 0]], dtype=torch.float64, requires_grad=True)
    perturbed = temporal_mask.perturb(clips, mask, "freeze")
    np.testing.assert_array_equal(perturbed.detach().flatten(), [10, 20, 45, 90])
    # p_1 falls by 30 - 10 = 20 a unit of m_1, p_2 by half of that; p_2 by 70 - 20 = 50 a unit of m_2, p_3 by 90 - 45 of
    # m_3; nothing is before frame 0. The sum counts p_t t + 1 times.
    (perturbed.flatten() @ torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)).backward()
    np.testing.assert_array_equal(mask.grad, [[0, -2 * 20 - 3 * 10, -3 * 50, -4 * 45]])


def test_any_callable_is_a_model():
    config, results = MaskConfig(iterations=3), []
    for score_fn in (_motion, lambda clips: _motion(clips), Motion(), Motion().forward):
        results.append(temporal_mask.learn_masks(score_fn, jumps(3, 6), [3, 6], config))
    for result in results[1:]:
        assert_same(result, results[0], tolerance=1e-6)


class _Trained(nn.Module):
    """A module in which all that a search could change is: modes, gradients, running statistics, random numbers."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.drop, self.dense = nn.Dropout(0.5), nn.Linear(4, 3)
        self.calls, self.fails_at = 0, None

    def forward(self, clips):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ZeroDivisionError
        assert not any(module.training for module in self.modules())
        x = self.drop(self.norm(self.conv(clips.permute(0, 4, 1, 2, 3) / 255)).mean((2, 3, 4)))
        return self.dense(x).softmax(1)


def _state(model):
    return (
        [module.training for module in model.modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [array.tolist() for array in (*model.parameters(), *model.buffers(), torch.get_rng_state())],
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize(
    ("method", "fails_at"),
    [
        (temporal_mask.learn_masks, None),
        (temporal_mask.learn_masks, 1),
        (temporal_mask.learn_masks, 2),
        (temporal_mask.learn_masks, 11),  # The second step of the descent, after 4 + 5 calls for checks and first mask.
        (temporal_mask.best_interval, None),
        (temporal_mask.best_interval, 2),
        (functools.partial(initial_mask, temporal_mask), None),
        (functools.partial(initial_mask, temporal_mask), 2),
        (functools.partial(loss_gradient, temporal_mask), None),
        (functools.partial(loss_gradient, temporal_mask), 2),
    ],
)
def test_a_module_is_as_it_was(method, fails_at):
    model = _Trained().train()
    model.dense.eval()
    model.norm.weight.requires_grad_(False)
    before, model.fails_at = _state(model), fails_at
    arguments = (model, random_clips(3, np.uint8), [0, 1, 2], MaskConfig(iterations=3), 3)
    if fails_at:
        with pytest.raises(ZeroDivisionError):
            method(*arguments)
    else:
        method(*arguments)
        assert model.calls > 2
    assert _state(model) == before


class _Holder:
    def __init__(self, model):
        self.model = model

    def __call__(self, clips):
        return self.model.forward(clips)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: lambda clips: model(clips),
        lambda model: model.forward,
        lambda model: functools.partial(model.forward),
        lambda model: functools.partial(lambda scale, clips: model(scale * clips), 1),
        lambda model: nn.Sequential(model).__call__,
        lambda model: lambda clips: model.forward(clips),
        lambda model: _Holder(model),
    ],
    ids=["lambda", "bound method", "partial of a method", "partial", "call", "lambda of a method", "attribute"],
)
def test_a_model_behind_any_callable_is_frozen_and_left_as_it_was(wrap, train):
    model = _Trained().train(train)  # Its forward refuses to run in training mode.
    before = _state(model)
    config, clips = MaskConfig(iterations=2), random_clips(2, np.uint8)
    learnt = temporal_mask.learn_masks(wrap(model), clips, [0, 1], config)
    assert _state(model) == before
    assert_same(learnt, temporal_mask.learn_masks(model, clips, [0, 1], config))


def test_parts_of_a_model_are_frozen_in_whatever_order_they_are_called():
    model = _Trained().train()
    before = _state(model)

    def parts(clips):
        x = model.norm(model.conv(clips.permute(0, 4, 1, 2, 3) / 255)).mean((2, 3, 4))
        return (model(clips) + model.dense(model.drop(x)).softmax(1)) / 2

    clips = random_clips(2, np.uint8)
    learnt = temporal_mask.learn_masks(parts, clips, [0, 1], MaskConfig(iterations=2))
    assert _state(model) == before
    assert_same(learnt, temporal_mask.learn_masks(model, clips, [0, 1], MaskConfig(iterations=2)), tolerance=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_where_the_caller_has_gradients_off(mode):
    expected = temporal_mask.learn_masks(_motion, jumps(3), [3], MaskConfig(iterations=2))
    with mode():
        clips = torch.as_tensor(jumps(3)) * 1
        assert_same(temporal_mask.learn_masks(_motion, clips, [3], MaskConfig(iterations=2)), expected)


def test_a_model_may_keep_what_it_makes_in_its_first_call():
    class Lazy(Motion):
        scale = None

        def forward(self, clips):
            if self.scale is None:
                self.scale = torch.ones(1)
            return super().forward(clips) * self.scale

    learnt = temporal_mask.learn_masks(Lazy(), jumps(3), [3], MaskConfig(iterations=2))
    assert_same(learnt, temporal_mask.learn_masks(_motion, jumps(3), [3], MaskConfig(iterations=2)))


@pytest.mark.skipif(not MEMORY.exists(), reason="Memory in use is read from Linux' /proc.")
@pytest.mark.slow
def test_memory_does_not_grow():
    clips = torch.zeros(2, TIME, 48, 48, 3)  # 442 kB: 100 of them are 44 MB.
    search = temporal_mask.MaskSearch(Motion(), MaskConfig(iterations=2))

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    for _ in range(10):
        learn(search, clips, [1, 2])
    held = tensors()
    check_memory_does_not_grow(lambda: learn(search, clips, [1, 2]), 100, 10 << 20)
    assert tensors() <= held
