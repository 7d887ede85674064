import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import errors
from data_prep import sampling


@pytest.mark.parametrize(
    ("n", "t", "expected"),
    [
        (5, 3, [0, 2, 4]),  # 4i/2
        (6, 3, [0, 3, 5]),  # 5i/2 = 0, 2.5, 5: the half goes up (rounding to even would give 2)
        (8, 4, [0, 2, 5, 7]),  # 7i/3 = 0, 2.33, 4.67, 7
        (4, 4, [0, 1, 2, 3]),  # n = T
        (2, 5, [0, 0, 1, 1, 1]),  # i/4 = 0, 0.25, 0.5, 0.75, 1
        (3, 4, [0, 1, 1, 2]),  # 2i/3 = 0, 0.67, 1.33, 2
        (1, 3, [0, 0, 0]),
        (9, 1, [0]),
    ],
)
def test_linspace(n, t, expected):
    np.testing.assert_array_equal(sampling.subsample(n, t), expected)


@pytest.mark.parametrize(
    ("n", "t", "expected"),
    [
        (5, 3, [0, 2, 4]),  # ceil(5i/3) = 0, 2, 4
        (10, 4, [0, 3, 5, 8]),  # ceil(10i/4) = 0, 3, 5, 8: the last frame, 9, is not in
        (4, 4, [0, 1, 2, 3]),
        (2, 5, [0, 1, 1, 1, 1]),  # ceil(2i/5) = 0, 1, 1, 2, 2, capped at 1
        (1, 3, [0, 0, 0]),
    ],
)
def test_released(n, t, expected):
    np.testing.assert_array_equal(sampling.subsample(n, t, "released"), expected)


@given(n=st.integers(1, 10_000), t=st.integers(2, 64))
def test_linspace_covers_the_whole_sequence(n, t):
    indices = sampling.subsample(n, t)
    assert indices[0] == 0 and indices[-1] == n - 1 and indices.dtype == np.int32
    steps = np.diff(indices)
    assert steps.min() >= 0 and steps.max() - steps.min() <= 1


@given(n=st.integers(1, 10_000), t=st.integers(1, 64), rule=st.sampled_from(sampling.SUBSAMPLINGS))
def test_indices_rise_inside_the_source(n, t, rule):
    indices = sampling.subsample(n, t, rule)
    assert len(indices) == t and indices.min() >= 0 and indices.max() < n and (np.diff(indices) >= 0).all()


def test_no_source_frames_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        sampling.subsample(0, 4)


def test_unknown_rules_are_refused():
    with pytest.raises(errors.UserError, match="linspace, released. Received: 'even'"):
        sampling.subsample(3, 4, "even")
    with pytest.raises(errors.UserError, match="stretch, center_crop. Received: 'fit'"):
        sampling.resize(_gray([[0]]), 1, 1, "fit")


def test_shrinking_averages_areas():
    # 3 columns to 2: the middle one goes half to either side. (2*0 + 30)/3 = 10, (30 + 2*60)/3 = 50.
    np.testing.assert_array_equal(sampling.resize(_gray([[0, 30, 60]]), 1, 2), _gray([[10, 50]]))
    np.testing.assert_array_equal(sampling.resize(_gray([[0, 10], [20, 30]]), 1, 1), _gray([[15]]))


def test_enlarging_interpolates_linearly():
    # Centers of 4 px lie at -0.25, 0.25, 0.75, 1.25 of the 2 px: 0, 25, 75, 100 with the border repeated.
    np.testing.assert_array_equal(sampling.resize(_gray([[0, 100]]), 1, 4), _gray([[0, 25, 75, 100]]))


def test_one_axis_may_shrink_while_the_other_grows():
    frame = _gray([[0, 100], [20, 120], [40, 140]])  # Column means 20 and 120.
    np.testing.assert_array_equal(sampling.resize(frame, 1, 4), _gray([[20, 45, 95, 120]]))


def test_one_pixel_fills_any_size():
    np.testing.assert_array_equal(sampling.resize(_gray([[77]]), 3, 5), np.full((3, 5, 3), 77, np.uint8))


def test_same_size_changes_nothing():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(sampling.resize(frame, 5, 7), frame)
    np.testing.assert_array_equal(sampling.resize(frame, 5, 7, "center_crop"), frame)


def test_center_crop_scales_the_shorter_side_and_cuts_the_middle_out():
    row = [0, 0, 10, 30, 50, 70, 99, 99]  # Halved: 0, 20, 60, 99; the middle two stay.
    np.testing.assert_array_equal(sampling.resize(_gray([row] * 4), 2, 2, "center_crop"), _gray([[20, 60]] * 2))
    np.testing.assert_array_equal(
        sampling.resize(_gray([[v] * 4 for v in row]), 2, 2, "center_crop"), _gray([[20] * 2, [60] * 2])
    )


@given(h=st.integers(1, 40), w=st.integers(1, 40), height=st.integers(1, 40), width=st.integers(1, 40))
def test_center_crop_gives_any_size_of_any_size(h, w, height, width):
    frame = np.full((h, w, 3), 9, np.uint8)
    np.testing.assert_array_equal(
        sampling.resize(frame, height, width, "center_crop"), np.full((height, width, 3), 9, np.uint8)
    )


def _gray(rows):
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)
