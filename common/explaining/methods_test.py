"""Methods asked of models so small that every answer can be worked out by hand."""

import itertools
import math

import numpy as np
import pytest

from common import errors
from common.explaining import masks, methods
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig, Subject

# Every frame has a say in `mean`; frame 0 cannot freeze.
_MASK = MaskConfig(kind="mean", compat="released", beta=2.5)


class Model:
    """Scores by a function of what is kept, 1 - m [M, T]; gradients, from its derivative, are of all of Eq. 1."""

    def __init__(self, function, time, derivative=None, num_clips=1, config=_MASK):
        self.num_clips, self.time = num_clips, time
        self._function, self._derivative, self._config = function, derivative, config

    def scores(self, clip_indices, masks, kind):
        assert kind == self._config.kind
        return (clip_indices + 1) * self._function(1 - masks)

    def gradient(self, clip_indices, mask):
        slopes = np.empty(mask.shape)
        for t, step in enumerate(1e-6 * np.eye(self.time)):
            above, below = (masks.mask_cost(mask + s, self._config) for s in (step, -step))
            slopes[:, t] = (above - below) / 2e-6
        kept = 1 - masks.perturbed_part(mask, self._config.game)
        return np.zeros(len(mask)), slopes - (clip_indices[:, None] + 1) * self._derivative(kept)


_WEIGHTS = np.array([0.5, 0.0, -0.25, 0.125, 1.0])


def additive(num_clips=1):
    """The sum of the weights of the frames that are kept."""
    return Model(lambda kept: kept @ _WEIGHTS, 5, lambda kept: np.tile(_WEIGHTS, (len(kept), 1)), num_clips)


def ask(name, model, maps=None, frames=None, **values):
    subject = Subject(model, frames, lambda: maps)
    return methods.answer(methods.METHODS[name], subject, MethodConfig(**{"mask": _MASK, **values}))


@pytest.mark.parametrize("name", ["occlusion", "shapley", "gradient", "integrated_gradients"])
def test_of_a_sum_each_frame_gets_its_term(name):
    found = ask(name, additive(num_clips=2))
    np.testing.assert_allclose(found.values, [_WEIGHTS, 2 * _WEIGHTS], atol=1e-9)


def test_sampled_shapley_values_of_a_sum_are_its_terms_too():
    found = ask("shapley", additive(num_clips=2), evaluations=31)
    np.testing.assert_allclose(found.values, [_WEIGHTS, 2 * _WEIGHTS], atol=1e-12)
    assert (found.forwards <= 31 + 2).all()


def both(kept):
    return kept[:, 0] * kept[:, 2]


def either(kept):
    return 1 - (1 - kept[:, 0]) * (1 - kept[:, 2])


def majority(kept):
    return (kept[:, :3].sum(axis=1) >= 2).astype(float)


@pytest.mark.parametrize("evaluations", [31, 32])  # Of five frames there are 32 subsets.
@pytest.mark.parametrize(("game", "expected"), [(both, [1 / 2, 0, 1 / 2, 0, 0]), (either, [1 / 2, 0, 1 / 2, 0, 0])])
def test_two_frames_share_what_they_do_together(game, expected, evaluations):
    # Of an order and its reverse, each of the two comes last once: antithetic pairs are exact here.
    np.testing.assert_allclose(ask("shapley", Model(game, 5), evaluations=evaluations).values, [expected], atol=1e-12)


def test_of_three_frames_that_vote_each_has_a_third():
    expected = [[1 / 3, 1 / 3, 1 / 3, 0, 0]]
    np.testing.assert_allclose(ask("shapley", Model(majority, 5)).values, expected, atol=1e-12)
    sampled = ask("shapley", Model(majority, 5), evaluations=31).values
    np.testing.assert_allclose(sampled.sum(), 1)  # Complete in any sample: F(0) - F(1).


def test_shapley_values_are_means_over_all_orders():
    stream = np.random.default_rng(0)
    table = stream.normal(size=16)
    model = Model(lambda kept: table[(kept @ [1, 2, 4, 8]).astype(int)], 4)
    added = np.zeros(4)
    for order in itertools.permutations(range(4)):
        subset = 0
        for t in order:
            added[t] += (table[subset | 1 << t] - table[subset]) / math.factorial(4)
            subset |= 1 << t
    np.testing.assert_allclose(ask("shapley", model).values, [added])


def test_what_is_sampled_depends_on_the_seed_alone():
    votes = Model(majority, 5)
    for name in ("shapley", "rise"):
        first, again, other = (ask(name, votes, evaluations=16, seed=seed).values for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_rise_is_the_mean_of_the_scores_that_keep_a_frame():
    # Of a sum: the frame's own term, and half of each other's.
    expected = [_WEIGHTS / 2 + _WEIGHTS.sum() / 2]
    exact = ask("rise", additive())
    np.testing.assert_allclose(exact.values, expected)
    assert exact.forwards.tolist() == [32]
    wide = Model(lambda kept: kept @ np.tile(_WEIGHTS, 3), 15)
    sampled = ask("rise", wide, evaluations=4000).values
    # The score's standard deviation is half of the weights' norm, 1.98 / 2; a mean is of about 2000.
    np.testing.assert_allclose(sampled, np.tile(_WEIGHTS / 2, 3)[None] + 1.5 * _WEIGHTS.sum(), atol=5 / 2000**0.5)


def test_integrated_gradients_of_a_product_are_complete():
    # dF/dm_t at m = a is -(1 - a)^4, whose integral is 1 / 5.
    product = Model(lambda kept: kept.prod(axis=1), 5, lambda kept: kept.prod(axis=1, keepdims=True) / kept)
    found = ask("integrated_gradients", product, steps=3)  # Exact for powers up to 5.
    np.testing.assert_allclose(found.values, np.full((1, 5), 1 / 5), atol=1e-9)
    assert found.forwards.tolist() == [6]


def test_the_gradient_is_that_of_the_clean_clip():
    product = Model(lambda kept: kept.prod(axis=1), 5, lambda kept: kept.prod(axis=1, keepdims=True) / kept)
    np.testing.assert_allclose(ask("gradient", product).values, np.ones((1, 5)), atol=1e-9)


@pytest.mark.parametrize("name", ["gradient", "integrated_gradients"])
def test_the_game_of_the_masks_does_not_matter(name):
    def product(kept):
        return kept.prod(axis=1)

    def derivative(kept):
        return kept.prod(axis=1, keepdims=True) / kept

    found = []
    for game in masks.GAMES:
        config = MaskConfig(kind="mean", game=game)
        found.append(ask(name, Model(product, 5, derivative, config=config), mask=config).values)
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


@pytest.mark.parametrize("changes", [{}, {"compat": "released"}, {"ends": "counted"}])
def test_the_cost_of_a_mask_has_the_gradient_that_it_has(changes):
    config = MaskConfig(lambda_1=0.3, lambda_2=0.7, beta=1.5, **changes)
    mask = np.random.default_rng(0).uniform(0.1, 1, (4, 6))
    steps = 1e-6 * np.eye(6)
    numeric = [(masks.mask_cost(mask + step, config) - masks.mask_cost(mask - step, config)) / 2e-6 for step in steps]
    np.testing.assert_allclose(methods.cost_gradient(mask, config), np.transpose(numeric), atol=1e-6)
    assert not methods.cost_gradient(np.zeros((1, 6)), MaskConfig(beta=1)).any()  # Kinks.


def test_grad_cam_s_profile_is_the_mean_of_each_frame():
    maps = np.array([[[[1, 3]], [[0, 8]]]], np.float32)  # Two coarse frames of 1x2 cells.
    found = ask("gradcam", additive(), maps)
    np.testing.assert_allclose(found.values, [[2, 2, 2, 4, 4]])  # Frame t is coarse frame floor(2 t / 5).
    np.testing.assert_allclose(ask("gradcam", additive(), maps, cam_time="linear").values[0, [0, 2, 4]], [2, 3, 4])
    assert found.forwards.tolist() == [2]


def test_baselines_ask_no_model():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 2, 2, 3), np.uint8)
    for name in ("random", "centred", "frame_difference"):
        found = ask(name, Model(None, 5, num_clips=2), frames=frames)
        assert found.values.shape == (2, 5) and found.forwards.tolist() == [0, 0], name


def test_masks_of_equal_effect_are_scored_once():
    counted = {}
    for kind in ("mean", "freeze"):
        config = MaskConfig(kind=kind)
        model = Model(lambda kept: kept @ _WEIGHTS, 5, num_clips=2, config=config)
        counted[kind] = [ask(name, model, mask=config).forwards.tolist() for name in ("occlusion", "shapley")]
    assert counted["mean"] == [[6, 6], [32, 32]]
    assert counted["freeze"] == [[5, 5], [16, 16]]  # Frame 0 cannot freeze.


def test_settings_are_checked():
    for values in ({"evaluations": 1}, {"steps": 0}, {"seed": -1}):
        with pytest.raises(errors.UserError, match="evaluations must be at least 2"):
            MethodConfig(**values)
    with pytest.raises(errors.UserError, match="cam_time must be one of repeat, linear"):
        MethodConfig(cam_time="cubic")
