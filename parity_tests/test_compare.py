import numpy as np
import pytest

from parity_tests import compare


def test_message_names_quantity_index_values_and_errors():
    ours, theirs = np.array([[0.0, 4.0], [1.0, 2.0]]), np.array([[0.0, 4.0], [1.5, 2.1]])
    with pytest.raises(AssertionError) as failure:
        compare.assert_close("logits", ours, theirs, 0.1)
    # 0.5 at [1, 0]; relative to the largest reference, 4.
    assert str(failure.value) == (
        "logits: torch 1 and tf 1.5 at (1, 0), absolute error 0.5, relative 0.125 (limit 0.1)"
    )
    compare.assert_close("logits", ours, theirs, 0.125)


def test_small_values_are_compared_absolutely():
    assert compare.difference("x", np.array([0.001]), np.array([0.002])).relative == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("ours", "theirs", "fault"),
    [
        (np.zeros((2, 1)), np.zeros(2), "shape (2, 1) in torch and (2,) in tf"),
        (np.zeros(2), np.zeros(2, np.float32), "dtype float64 in torch and float32 in tf"),
        (np.array([1, np.nan]), np.array([1, np.nan]), "1 values not finite in torch, first nan at (1,)"),
        (np.zeros(2), np.array([np.inf, 0]), "1 values not finite in tf, first inf at (0,)"),
    ],
)
def test_what_cannot_be_compared_is_a_fault_whatever_the_limit(ours, theirs, fault):
    assert compare.difference("x", ours, theirs).fault == fault
    with pytest.raises(AssertionError, match="x: "):
        compare.assert_close("x", ours, theirs, np.inf)


def test_the_first_of_a_chain_that_differs_is_named():
    ours = {"a": np.zeros(1), "b": np.ones(1), "c": np.ones(1)}
    theirs = {"a": np.zeros(1), "b": np.ones(1) + 0.1, "c": np.ones(1) + 9}
    with pytest.raises(AssertionError, match="endpoint b: torch 1 and tf 1.1"):
        compare.assert_all_close("endpoint", ours, theirs, 1e-3)
