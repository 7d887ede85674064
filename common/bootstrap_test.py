import numpy as np
import pytest

from common import bootstrap


def test_an_estimate_leaves_nan_out():
    found = bootstrap.estimate(np.array([[1.0], [np.nan], [3.0]]), bootstrap.first)
    assert (found.value, found.clips) == (2.0, 2)
    assert (found.low, found.high) == (1.0, 3.0)  # Both drawn twice: with probability 1/4 either.


def test_no_clip_has_no_estimate_and_one_clip_no_interval():
    assert bootstrap.estimate(np.array([[np.nan]]), bootstrap.first) is None
    found = bootstrap.estimate(np.array([[0.5]]), bootstrap.first)
    assert found.value == 0.5 and np.isnan(found.low) and np.isnan(found.high)


def test_the_interval_is_that_of_the_normal_distribution_for_many_clips():
    values = np.random.default_rng(1).normal(size=(400, 1))
    found = bootstrap.estimate(values, bootstrap.first, resamples=4000)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_many_clips_are_resampled_in_parts(monkeypatch):
    values = np.random.default_rng(1).normal(size=(50, 1))
    whole = bootstrap.estimate(values, bootstrap.first, resamples=100)
    monkeypatch.setattr(bootstrap, "_CHUNK", 50 * 7)
    assert bootstrap.estimate(values, bootstrap.first, resamples=100) == whole
