"""Eq. 1, intervals and runs by hand, and settings out of range."""

import numpy as np
import pytest

from common import errors
from common.explaining import masks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "melt"}, "kind must be one of freeze, reverse, .* Received: 'melt'"),
        ({"start": "left"}, "start must be one of centred, oracle, multi. Received: 'left'"),
        ({"compat": "tf"}, "compat must be one of paper, released. Received: 'tf'"),
        ({"lambda_1": -0.1}, "at least 0, .* Received: -0.1, 0.02, 3.0, 0.2"),
        ({"lambda_2": -0.1}, "at least 0, .* Received: 0.01, -0.1, 3.0, 0.2"),
        ({"beta": 0.5}, "beta at least 1, .* Received: 0.01, 0.02, 0.5, 0.2"),
        ({"beta": float("nan")}, "beta at least 1"),
        ({"learning_rate": 0.0}, "learning_rate above 0. Received: 0.01, 0.02, 3.0, 0.0"),
        ({"iterations": 0}, "iterations must be at least 1. Received: 0"),
        ({"area": True, "form": "hard"}, "area must be a whole number. Received: True"),
        (
            {"area": -1, "form": "hard"},
            "area must be at least 0, and 0 unless form is 'hard'. Received: -1 with 'hard'",
        ),
        ({"area": 2}, "Received: 2 with 'soft'"),
        ({"game": "win"}, "game must be one of delete, preserve. Received: 'win'"),
        ({"ends": "open"}, "ends must be one of free, counted. Received: 'open'"),
        ({"ends": "counted", "compat": "released"}, "compat must be 'paper' where ends are 'counted'. Received: 'rel"),
        ({"game": "preserve", "compat": "released"}, "compat must be 'paper' for the game 'preserve'. Received: 'rel"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(errors.UserError, match=message):
        masks.MaskConfig(**changes)


@pytest.mark.parametrize("name", ["iterations", "area"])
def test_numbers_that_count_are_whole(name):
    config = masks.MaskConfig(form="hard")
    object.__setattr__(config, name, 2.5)  # These tests check the types of calls; a user's program does not.
    with pytest.raises(errors.UserError, match=f"{name} must be a whole number. Received: 2.5"):
        config.__post_init__()


def test_the_defaults_are_the_papers():
    config = masks.MaskConfig()
    assert (config.lambda_1, config.lambda_2, config.beta) == (0.01, 0.02, 3)
    assert (config.iterations, config.learning_rate) == (300, 0.2)
    assert (config.kind, config.start, config.compat, config.game, config.ends) == (
        *("freeze", "centred", "paper", "delete"),
        "free",
    )


def test_total_variation_by_hand():
    rows = np.array([[0, 1, 1, 0.5, 0], [0.5, 0.5, 0.5, 0.5, 0.5]])
    # Differences 1, 0, 1/2, 1/2, cubed; in the released code the inner two count twice.
    for changes, expected in (
        ({}, [1 + 1 / 8 + 1 / 8, 0]),
        ({"compat": "released"}, [1 + 2 / 8 + 1 / 8, 0]),
        ({"ends": "counted"}, [1 + 1 / 8 + 1 / 8, 1 / 8 + 1 / 8]),  # From 0 and to 0: only the second row begins above.
        ({"beta": 1}, [2, 0]),
    ):
        np.testing.assert_array_equal(masks.total_variation(rows, masks.MaskConfig(**changes)), expected)


def test_where_ends_are_counted_an_interval_costs_the_same_anywhere():
    rows = np.stack([masks.interval_mask(start, start + 3, 8) for start in range(6)])
    np.testing.assert_allclose(masks.mask_cost(rows, masks.MaskConfig(ends="counted")), 0.03 + 2 * 0.02)
    np.testing.assert_allclose(masks.mask_cost(rows, masks.MaskConfig()), 0.03 + np.array([1, 2, 2, 2, 2, 1]) * 0.02)


@pytest.mark.parametrize(("time", "weights"), [(1, []), (2, [1]), (3, [1, 1]), (4, [1, 2, 1]), (6, [1, 2, 2, 2, 1])])
def test_the_released_code_counts_inner_differences_twice(time, weights):
    np.testing.assert_array_equal(masks.difference_weights(time, "released"), weights)
    np.testing.assert_array_equal(masks.difference_weights(time, "paper"), [1] * (time - 1))


def test_the_loss_by_hand():
    config = masks.MaskConfig(lambda_1=0.25, lambda_2=0.5, beta=2)
    rows = np.array([[0, 1, 0.5, 0], [1, 1, 1, 1]])
    # 0.25 · 1.5 + 0.5 · (1 + 1/4 + 1/4) + 0.125, and 0.25 · 4 + 0 + 0.5.
    np.testing.assert_array_equal(masks.mask_loss(np.array([0.125, 0.5]), rows, config), [1.25, 1.5])
    released = masks.MaskConfig(lambda_1=0.25, lambda_2=0.5, beta=2, compat="released")
    np.testing.assert_array_equal(masks.mask_loss(np.array([0.125, 0.5]), rows, released), [1.375, 1.5])


def test_to_preserve_the_loss_is_what_the_score_lacks_of_one():
    config = masks.MaskConfig(lambda_1=0.25, lambda_2=0.5, beta=2, game="preserve")
    rows = np.array([[0, 1, 0.5, 0]])
    np.testing.assert_array_equal(masks.mask_loss(np.array([0.125]), rows, config), [0.25 * 1.5 + 0.5 * 1.5 + 0.875])
    np.testing.assert_array_equal(masks.perturbed_part(rows, "preserve"), [[1, 0, 0.5, 1]])
    np.testing.assert_array_equal(masks.perturbed_part(rows, "delete"), rows)


def test_a_mask_of_one_frame_does_not_vary():
    assert masks.mask_loss(np.array([0.5]), np.ones((1, 1)), masks.MaskConfig()) == 0.51


def test_snapping_is_on_above_a_half():
    snapped = masks.snap(np.array([[0, 0.5, np.nextafter(0.5, 1), 1]]))
    np.testing.assert_array_equal(snapped, [[0, 0, 1, 1]])
    assert snapped.dtype == np.uint8


@pytest.mark.parametrize(
    ("mask", "runs"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [(0, 3)]),
        ([1, 0, 1, 1, 0, 0, 1], [(0, 1), (2, 4), (6, 7)]),
        ([0, 1, 1, 0], [(1, 3)]),
        ([1], [(0, 1)]),
    ],
)
def test_coherent_runs(mask, runs):
    assert masks.coherent_runs(np.array(mask, np.uint8)) == runs


def test_intervals_are_all_there_shortest_first():
    assert masks.intervals(3) == [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]
    assert masks.intervals(1) == [(0, 1)]
    for time in (5, 16):
        places = masks.intervals(time)
        assert len(set(places)) == len(places) == time * (time + 1) // 2
    np.testing.assert_array_equal(masks.interval_mask(1, 3, 4), [0, 1, 1, 0])
    np.testing.assert_array_equal(masks.interval_masks([(1, 3), (0, 1)], 4), [[0, 1, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("time", "windows"),
    [(1, [(0, 1)]), (2, [(0, 2)]), (5, [(0, 5), (1, 4), (2, 3)]), (6, [(0, 6), (1, 5), (2, 4)])],
)
def test_centred_windows_lose_a_frame_at_either_end(time, windows):
    assert masks.centred_windows(time) == windows
