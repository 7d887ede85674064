"""The search on scores whose best mask is known, and what it may not do to a model, to other clips, or to memory."""

import dataclasses
import functools
import gc
import pathlib

import numpy as np
import pytest
import torch
from torch import nn

from common import errors
from common.explaining import mask_search, masks, perturbations
from common.explaining.masks import MaskConfig
from common.models import configs
from torch_impl import temporal_mask, weights

_TIME = 8
_MEMORY = pathlib.Path("/proc/self/statm")
# Best intervals to freeze frame 1, 3 or 6: an edge costs 0.02, a frame 0.01, and the ends of the clip are no edges.
_BEST = [(0, 2), (3, 4), (6, 8)]
_SCORES = ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "S")


def _motion(clips):
    """Probability of class k is how far the mean pixel moves from frame k - 1 to k: freezing frame k takes it away."""
    pixels = clips.flatten(2).mean(2)
    return torch.diff(pixels, dim=1, prepend=pixels[:, :1]).abs() / 255


class Motion(nn.Module):
    def forward(self, clips):
        return _motion(clips)


def _jumps(*frames, dtype=np.uint8):
    """Clips that are black, and of 204 = 0.8 · 255 from one frame on: class k of `_motion` is as likely as 0.8."""
    clips = np.zeros((len(frames), _TIME, 2, 2, 3), dtype)
    for clip, frame in zip(clips, frames, strict=True):
        clip[frame:] = 204
    return torch.from_numpy(clips)


@pytest.fixture(scope="module")
def model():
    config = configs.ConvLSTMConfig(4, (_TIME, 8, 8), num_layers=1, filters=3)
    return weights.build_model(config, "float64").eval().requires_grad_(False)


def _random_clips(number, dtype=np.float64):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (number, _TIME, 8, 8, 3)).astype(dtype))


def assert_same(first, second, tolerance=0.0):
    """Compares `LearntMasks`."""
    for name in ("masks", "losses", "final_loss"):
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=0, atol=tolerance, err_msg=name, strict=True
        )
    assert tuple(first.scores) == tuple(second.scores) == _SCORES
    for name in _SCORES:
        np.testing.assert_allclose(
            first.scores[name], second.scores[name], rtol=0, atol=tolerance, err_msg=name, strict=True
        )


def learn(search, clips, targets):
    """Returns what a search learns on clips."""
    return mask_search.learn_masks(search.on(clips, targets), search.config)


def initial_mask(score_fn, clips, targets, config, batch_size=0):
    """Returns where the paper's search starts, with the arguments of `temporal_mask.best_interval`."""
    scorer = temporal_mask.MaskSearch(score_fn, config, batch_size).on(clips, targets)
    return mask_search.initial_masks(scorer, config)


def loss_gradient(score_fn, clips, targets, config, batch_size=0, search=None):
    """Returns Eq. 1 and its gradient at masks of 1/4, of all clips twice; arguments as of `best_interval`."""
    scorer = (search or temporal_mask.MaskSearch(score_fn, config, batch_size)).on(clips, targets)
    return scorer.gradient(np.tile(np.arange(len(clips)), 2), np.full((2 * len(clips), _TIME), 0.25))


def part(learnt, rows):
    """Returns some rows of `LearntMasks`."""
    scores = {name: values[rows] for name, values in learnt.scores.items()}
    return mask_search.LearntMasks(learnt.masks[rows], learnt.losses[rows], learnt.final_loss[rows], scores)


@pytest.mark.parametrize("kind", perturbations.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_perturb_is_the_numpy_reference(kind, dtype):
    stream = np.random.default_rng(0)
    clips, mask = stream.integers(0, 256, (3, 5, 2, 3, 3), np.uint8), stream.uniform(size=(3, 5)).astype(dtype)
    perturbed = temporal_mask.perturb(torch.from_numpy(clips), torch.from_numpy(mask), kind).numpy()
    limit = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(perturbed, perturbations.perturb(clips, mask, kind), rtol=0, atol=limit, strict=True)


def test_freeze_and_its_gradient_by_hand():
    clips = torch.tensor([10, 30, 70, 90], dtype=torch.uint8).reshape(1, 4, 1, 1, 1)
    mask = torch.tensor([[0, 0.5, 0.5, 0]], dtype=torch.float64, requires_grad=True)
    perturbed = temporal_mask.perturb(clips, mask, "freeze")
    np.testing.assert_array_equal(perturbed.detach().flatten(), [10, 20, 45, 90])
    # p_1 falls by 30 - 10 = 20 a unit of m_1, p_2 by half of that; p_2 by 70 - 20 = 50 a unit of m_2, p_3 by 90 - 45 of
    # m_3; nothing is before frame 0. The sum counts p_t t + 1 times.
    (perturbed.flatten() @ torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)).backward()
    np.testing.assert_array_equal(mask.grad, [[0, -2 * 20 - 3 * 10, -3 * 50, -4 * 45]])


def test_the_loss_by_hand():
    config = MaskConfig(lambda_1=0.25, lambda_2=0.5, beta=2)
    # 0.25 · 1.5 + 0.5 · (1 + 1/4 + 1/4) + 0.125.
    loss = temporal_mask.mask_loss(torch.tensor([0.125]), torch.tensor([[0, 1, 0.5, 0]]), config)
    np.testing.assert_array_equal(loss, [1.25])


def test_one_step_of_adam_by_hand():
    """The first window is of frames 3 and 4. With m = s in it and 1 - s outside, F_c = 0.8 (1 - m_3)."""
    learnt = temporal_mask.learn_masks(_motion, _jumps(3, dtype=np.float64), np.array([3]), MaskConfig(iterations=1))
    s = 1 / (1 + np.exp(-5))
    edge = 2 * s - 1  # |m_3 - m_2| = |m_5 - m_4|, the two differences that are not 0.
    np.testing.assert_allclose(
        learnt.losses, [[0.01 * (2 * s + 6 * (1 - s)) + 0.02 * 2 * edge**3 + 0.8 * (1 - s)]], atol=1e-12
    )
    slope = 0.02 * 3 * edge**2
    in_mask = np.array([0, 0, -slope, slope - 0.8, slope, -slope, 0, 0]) + 0.01
    gradient = in_mask * s * (1 - s)
    # Corrected for their bias, mean and square are the gradient and its square in step 1.
    logits = np.array([-5, -5, -5, 5, 5, -5, -5, -5]) - 0.2 * gradient / (abs(gradient) + 1e-8)
    mask = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(learnt.masks, [mask], rtol=0, atol=1e-12)
    np.testing.assert_allclose(learnt.scores["FS"], [0.8 * (1 - mask[3])], rtol=0, atol=1e-12)
    loss = masks.mask_loss(0.8 * (1 - mask[3:4]), mask[None], MaskConfig())
    np.testing.assert_allclose(learnt.final_loss, loss, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("start", "first"),
    [
        # The smallest window around the middle that has the frame, or the best interval.
        ("centred", [(1, 7), (3, 5), (1, 7)]),
        ("oracle", _BEST),
        ("multi", None),  # Either.
    ],
)
def test_the_search_finds_the_frame_with_the_evidence(start, first):
    frames, steps = np.array([1, 3, 6]), []
    config = MaskConfig(start=start)
    search = temporal_mask.MaskSearch(_motion, config, on_step=steps.append)
    learnt = learn(search, _jumps(*frames), frames)
    np.testing.assert_array_equal(masks.snap(learnt.masks), [masks.interval_mask(*place, _TIME) for place in _BEST])
    assert learnt.masks.shape == (3, _TIME) and learnt.losses.shape == (3, 300)
    assert sum(steps) == 3 * 300 * (2 if start == "multi" else 1)
    np.testing.assert_allclose(learnt.scores["OS"], 0.8, rtol=1e-6)
    assert learnt.scores["FS"].max() < 0.01 and learnt.scores["FS_snapped"].max() == 0
    np.testing.assert_array_equal(learnt.scores["S"], learnt.scores["FS"])
    # A run of one frame is its own reversal, frames 6 and 7 are equal, and frames 0 and 1 jump back.
    np.testing.assert_allclose(learnt.scores["RS_snapped"], [0.8, 0.8, 0.8], rtol=1e-6)
    np.testing.assert_allclose(learnt.final_loss, masks.mask_loss(learnt.scores["FS"], learnt.masks, config), atol=1e-6)
    # A soft edge varies less than one of ones and zeros.
    assert (
        learnt.final_loss < mask_search.best_intervals(search.on(_jumps(*frames), frames), search.config).losses - 0.01
    ).all()
    assert (learnt.losses[:, -1] < learnt.losses[:, 0]).all()
    if first:
        soft = np.stack([masks.interval_mask(*place, _TIME) for place in first]) * 10 - 5
        soft = 1 / (1 + np.exp(-soft))
        scores = perturbations.perturb(_jumps(*frames).numpy(), soft, "freeze")[..., 0, 0, 0]
        scores = abs(scores[range(3), frames] - scores[range(3), frames - 1]) / 255
        np.testing.assert_allclose(learnt.losses[:, 0], masks.mask_loss(scores, soft, config), atol=1e-6)


def test_the_first_mask_and_the_oracle():
    frames = np.array([1, 3, 6])
    first = initial_mask(_motion, _jumps(*frames), frames, MaskConfig(), batch_size=2)
    windows = [(1, 7), (3, 5), (1, 7)]
    np.testing.assert_array_equal(first, [masks.interval_mask(*window, _TIME) for window in windows])
    found = temporal_mask.best_interval(_motion, _jumps(*frames), frames, MaskConfig(), batch_size=2)
    np.testing.assert_array_equal(found.intervals, _BEST)
    np.testing.assert_allclose(found.losses, [0.04, 0.05, 0.04], rtol=1e-6)
    # Every interval that has the frame takes all of the score, and every other one nothing.
    expected = [[0.8 * (not start <= frame < stop) for start, stop in masks.intervals(_TIME)] for frame in frames]
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["freeze", "reverse"])
def test_a_clip_does_not_see_its_batch(model, kind):
    clips, targets = _random_clips(5), np.array([0, 1, 2, 3, 0])
    config = MaskConfig(kind=kind, iterations=20, start="multi")
    search = temporal_mask.MaskSearch(lambda clips: model(clips).softmax(1), config)
    together = learn(search, clips, targets)
    assert np.ptp(together.masks, axis=0).max() > 0.01
    search.batch_size = 2
    assert_same(learn(search, clips, targets), together, tolerance=1e-5)
    for row in range(5):
        rows = slice(row, row + 1)
        assert_same(learn(search, clips[rows], targets[rows]), part(together, rows), tolerance=1e-5)


def test_the_gradient_by_hand():
    """With m = 1/4 everywhere F_c = 0.8 (1 - m_k): each frame costs lambda_1, and frame k saves 0.8."""
    losses, gradients = loss_gradient(_motion, _jumps(3, 6, dtype=np.float64), [3, 6], MaskConfig(), batch_size=1)
    np.testing.assert_allclose(losses, [0.01 * 8 / 4 + 0.8 * 3 / 4] * 4, rtol=0, atol=1e-12)
    expected = np.full((4, _TIME), 0.01)
    expected[range(4), [3, 6, 3, 6]] -= 0.8
    np.testing.assert_allclose(gradients, expected, rtol=0, atol=1e-12)


def test_to_preserve_the_gradient_by_hand():
    """With m = 1/4 of a frame kept everywhere F_c = 0.8 m_k."""
    config = MaskConfig(game="preserve")
    losses, gradients = loss_gradient(_motion, _jumps(3, 6, dtype=np.float64), [3, 6], config)
    np.testing.assert_allclose(losses, [0.01 * 8 / 4 + 1 - 0.8 / 4] * 4, rtol=0, atol=1e-12)
    expected = np.full((4, _TIME), 0.01)
    expected[range(4), [3, 6, 3, 6]] -= 0.8
    np.testing.assert_allclose(gradients, expected, rtol=0, atol=1e-12)


def test_to_preserve_the_search_keeps_the_frame_with_the_evidence():
    frames, config = np.array([1, 3, 6]), MaskConfig(game="preserve")
    search = temporal_mask.MaskSearch(_motion, config)
    learnt = learn(search, _jumps(*frames), frames)
    np.testing.assert_array_equal(masks.snap(learnt.masks), [masks.interval_mask(*place, _TIME) for place in _BEST])
    assert learnt.scores["FS_snapped"].min() > 0.799 and learnt.scores["FS"].min() > 0.75
    assert (learnt.losses[:, -1] < learnt.losses[:, 0]).all()
    found = mask_search.best_intervals(search.on(_jumps(*frames), frames), config)
    np.testing.assert_array_equal(found.intervals, _BEST)
    np.testing.assert_allclose(found.losses, [0.2 + 0.04, 0.2 + 0.05, 0.2 + 0.04], rtol=1e-6)


@pytest.mark.parametrize("game", masks.GAMES)
def test_a_search_that_stops_is_as_low_after_a_few_evaluations(game):
    frames, config = np.array([1, 3, 6, 3]), MaskConfig(start="oracle", game=game, iterations=100)
    search = temporal_mask.MaskSearch(_motion, config)
    adam = learn(search, _jumps(*frames), frames)
    search = temporal_mask.MaskSearch(_motion, dataclasses.replace(config, stop="converged"))
    found = learn(search, _jumps(*frames), frames)
    assert (found.final_loss <= 1.001 * adam.final_loss).all() and found.losses.shape == adam.losses.shape
    evaluations = np.isfinite(found.losses).sum(axis=1)
    assert 1 < evaluations.min() and evaluations.max() <= 40
    last = found.losses[range(4), evaluations - 1]
    np.testing.assert_allclose(last, found.final_loss, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(masks.snap(found.masks), masks.snap(adam.masks))


@pytest.mark.parametrize("game", masks.GAMES)
def test_hard_masks_and_masks_of_a_given_number_of_frames(game):
    frames = np.array([1, 3, 6])
    for area, expected in ((0, _BEST), (2, [(0, 2), (2, 4), (6, 8)])):  # Of equals the earliest.
        config = MaskConfig(form="hard", area=area, game=game, oracle="coarse")
        found = learn(temporal_mask.MaskSearch(_motion, config), _jumps(*frames), frames)
        np.testing.assert_array_equal(found.masks, [masks.interval_mask(*place, _TIME) for place in expected])
        np.testing.assert_array_equal(found.scores["FS"], found.scores["FS_snapped"])


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


def test_a_model_that_scores_prepared_clips_otherwise_is_refused():
    with pytest.raises(errors.UserError, match="Received: 0.4 for the identity, 0.8 for the clip"):
        temporal_mask.learn_masks(_OtherwisePrepared(), _jumps(3), [3], MaskConfig(iterations=2))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_all_masks_of_a_clip_share_is_prepared_once(batch_size):
    model = _Prepared()
    targets = np.array([2, 5])
    search = temporal_mask.MaskSearch(model, MaskConfig(iterations=3), batch_size)
    found = mask_search.best_intervals(search.on(_jumps(*targets), targets), search.config)
    assert model.prepared == 2
    expected = temporal_mask.best_interval(_motion, _jumps(*targets), targets, MaskConfig(iterations=3))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(found.intervals, expected.intervals)


def test_pixels_of_any_dtype_give_the_same():
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=3))
    learnt = [learn(search, _random_clips(2, dtype), [3, 1]) for dtype in (np.uint8, np.int32, np.float32)]
    assert_same(learnt[0], learnt[1])
    assert_same(learnt[0], learnt[2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_search_computes_in_float64_where_the_clips_are(dtype):
    received = set()

    def score_fn(clips):
        received.add(clips.dtype)
        return _motion(clips)

    learnt = temporal_mask.learn_masks(score_fn, _jumps(3, dtype=dtype), [3], MaskConfig(iterations=2))
    assert received == {getattr(torch, dtype)}
    assert learnt.masks.dtype == learnt.losses.dtype == np.float64
    assert np.array_equal(learnt.masks, learnt.masks.astype(np.float32)) == (dtype == "float32")


def test_any_callable_is_a_model():
    config, results = MaskConfig(iterations=3), []
    for score_fn in (_motion, lambda clips: _motion(clips), Motion(), Motion().forward):
        results.append(temporal_mask.learn_masks(score_fn, _jumps(3, 6), [3, 6], config))
    for result in results[1:]:
        assert_same(result, results[0], tolerance=1e-6)


def test_targets_may_be_any_integers_in_any_container():
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    results = [
        learn(search, _jumps(3, 6), targets)
        for targets in ([3, 6], (3, 6), np.array([3, 6], np.uint8), torch.tensor([3, 6]))
    ]
    for result in results[1:]:
        assert_same(result, results[0])


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
        (initial_mask, None),
        (initial_mask, 2),
        (loss_gradient, None),
        (loss_gradient, 2),
    ],
)
def test_a_module_is_as_it_was(method, fails_at):
    model = _Trained().train()
    model.dense.eval()
    model.norm.weight.requires_grad_(False)
    before, model.fails_at = _state(model), fails_at
    arguments = (model, _random_clips(3, np.uint8), [0, 1, 2], MaskConfig(iterations=3), 3)
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
    config, clips = MaskConfig(iterations=2), _random_clips(2, np.uint8)
    learnt = temporal_mask.learn_masks(wrap(model), clips, [0, 1], config)
    assert _state(model) == before
    assert_same(learnt, temporal_mask.learn_masks(model, clips, [0, 1], config))


def _noise(clips):
    return (_motion(clips) * (0.9 + 0.1 * torch.rand(1))).clip(0, 1)


def _by_batch(clips):
    return _motion(clips) * len(clips) / 4


@pytest.mark.parametrize(("score_fn", "when"), [(_noise, "from call to call"), (_by_batch, "with another clip beside")])
def test_a_score_that_depends_on_more_than_the_clip_is_refused(score_fn, when):
    with pytest.raises(errors.UserError, match=f"must depend on that clip alone, .* they change by .* {when}"):
        temporal_mask.learn_masks(score_fn, _jumps(3, 6), [3, 6], MaskConfig(iterations=2))


def test_the_model_is_checked_once_a_search():
    calls = []

    def score_fn(clips):
        calls.append(len(clips))
        return _motion(clips)

    search = temporal_mask.MaskSearch(score_fn, MaskConfig(iterations=2))
    for expected in ([1, 1, 2, 1], [1]):  # Alone, again, beside another, and under the identity.
        calls.clear()
        search.on(_jumps(3, 6), [3, 6])
        assert calls == expected


def test_parts_of_a_model_are_frozen_in_whatever_order_they_are_called():
    model = _Trained().train()
    before = _state(model)

    def parts(clips):
        x = model.norm(model.conv(clips.permute(0, 4, 1, 2, 3) / 255)).mean((2, 3, 4))
        return (model(clips) + model.dense(model.drop(x)).softmax(1)) / 2

    clips = _random_clips(2, np.uint8)
    learnt = temporal_mask.learn_masks(parts, clips, [0, 1], MaskConfig(iterations=2))
    assert _state(model) == before
    assert_same(learnt, temporal_mask.learn_masks(model, clips, [0, 1], MaskConfig(iterations=2)), tolerance=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_where_the_caller_has_gradients_off(mode):
    expected = temporal_mask.learn_masks(_motion, _jumps(3), [3], MaskConfig(iterations=2))
    with mode():
        clips = _jumps(3) * 1
        assert_same(temporal_mask.learn_masks(_motion, clips, [3], MaskConfig(iterations=2)), expected)


def test_a_model_may_keep_what_it_makes_in_its_first_call():
    class Lazy(Motion):
        scale = None

        def forward(self, clips):
            if self.scale is None:
                self.scale = torch.ones(1)
            return super().forward(clips) * self.scale

    learnt = temporal_mask.learn_masks(Lazy(), _jumps(3), [3], MaskConfig(iterations=2))
    assert_same(learnt, temporal_mask.learn_masks(_motion, _jumps(3), [3], MaskConfig(iterations=2)))


def _resident_bytes():
    return int(_MEMORY.read_text().split()[1]) * 4096


@pytest.mark.skipif(not _MEMORY.exists(), reason="Memory in use is read from Linux' /proc.")
def test_memory_does_not_grow():
    clips = torch.zeros(2, _TIME, 48, 48, 3)  # 442 kB: 100 of them are 44 MB.
    search = temporal_mask.MaskSearch(Motion(), MaskConfig(iterations=2))

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    for _ in range(10):
        learn(search, clips, [1, 2])
    held, resident = tensors(), _resident_bytes()
    for _ in range(100):
        learn(search, clips, [1, 2])
    assert tensors() == held
    assert _resident_bytes() - resident < 10 << 20


def _logits(clips):
    return _motion(clips) * 10 - 5


def _nan_when_perturbed(clips):
    return torch.where(clips.flatten(1).sum(1, keepdim=True) < 5 * 204 * 12, torch.nan, _motion(clips))


def _nan_gradient(clips):
    return torch.sqrt(_motion(clips))  # Where nothing moves, its slope has no value.


_WRONG = "Clips must be \\[N, T, H, W, C\\] and targets N class indices. Received: "


@pytest.mark.parametrize(
    ("score_fn", "frames", "targets", "message"),
    [
        (_logits, 3, [3], r"probabilities, 0…1 \(softmax of logits\). Received: -5…3"),
        (lambda clips: _motion(clips) * torch.nan, 3, [3], r"probabilities, 0…1 .* Received: nan…nan"),
        (lambda clips: _motion(clips)[:, 3], 3, [3], r"probabilities \[N, K\]. Received: \(1,\) for one clip"),
        (lambda clips: clips, 3, [3], r"probabilities \[N, K\]. Received: \(1, 8, 2, 2, 3\) for one clip"),
        (_nan_when_perturbed, 3, [3], "Scores must be finite. Received: nan in row 1"),
        (_nan_gradient, 3, [3], "Losses must be finite. Received: nan in row 0"),
        (_motion, 3, [8], "Targets must be classes 0…7. Received: 8…8"),
        (_motion, 3, [-1], "Targets must be classes 0…7. Received: -1…-1"),
        (_motion, 3, [3, 3], _WRONG + r"\(1, 8, 2, 2, 3\) and int64 \(2,\)"),
        (_motion, 3, [3.0], _WRONG + r"\(1, 8, 2, 2, 3\) and float64 \(1,\)"),
        (_motion, 3, 3, _WRONG + r"\(1, 8, 2, 2, 3\) and int64 \(\)"),
    ],
)
def test_what_is_not_probabilities_or_targets_is_refused(score_fn, frames, targets, message):
    with pytest.raises(errors.UserError, match=message):
        temporal_mask.learn_masks(score_fn, _jumps(frames), targets, MaskConfig(iterations=2))


@pytest.mark.parametrize("shape", [(0, 8, 2, 2, 3), (1, 0, 2, 2, 3), (1, 8)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(errors.UserError, match=_WRONG):
        temporal_mask.learn_masks(_motion, torch.zeros(shape), [3] * shape[0], MaskConfig(iterations=2))
