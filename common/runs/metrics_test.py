import json

import numpy as np
import pytest

from common.runs import metrics

# Five clips of three classes; guesses 0, 1, 1, 2, 0.
LOGITS = np.array([[3, 1, 0], [0, 2, 1], [1, 2, 0], [0, 1, 5], [2, 0, 1]], np.float64)
LABELS = np.array([0, 1, 0, 2, 2])
NAMES = ("a", "b", "c")


def test_scores_that_can_be_counted_by_hand():
    result = metrics.classification_metrics(LOGITS, LABELS, NAMES)
    assert result["top_1"] == pytest.approx(3 / 5)
    assert result["top_5"] == 1.0
    # Class a: 1 of 2 guesses right, 1 of 2 clips found; b: 1 of 2, 1 of 1; c: 1 of 1, 1 of 2.
    f1 = {"a": 0.5, "b": 2 / 3, "c": 2 / 3}
    assert {name: scores["f1"] for name, scores in result["per_class"].items()} == pytest.approx(f1)
    assert result["f1_macro"] == pytest.approx((0.5 + 2 / 3 + 2 / 3) / 3)
    assert result["f1_weighted"] == pytest.approx((2 * 0.5 + 1 * 2 / 3 + 2 * 2 / 3) / 5)
    assert result["f1_top_5_macro"] == 1.0
    assert result["confusion"] == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    json.dumps(result)


def test_classes_without_clips_or_guesses_do_not_lower_the_average():
    wide = np.concatenate([LOGITS, np.full((5, 4), -9.0)], axis=1)
    result = metrics.classification_metrics(wide, LABELS, tuple("abcdefg"))
    assert result["f1_macro"] == pytest.approx((0.5 + 2 / 3 + 2 / 3) / 3)
    assert result["per_class"]["g"]["clips"] == 0


def test_top_k_counts_classes_that_score_higher():
    scores = np.array([[6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]], np.float64)
    assert metrics.in_top_k(scores, np.array([4, 5]), 5).tolist() == [True, False]
    assert metrics.in_top_k(scores, np.array([4, 5]), 6).tolist() == [True, True]


def test_a_label_whose_score_is_nan_is_not_among_the_top():
    scores = np.array([[np.nan, 1, 2], [3, 1, np.nan]])
    assert metrics.in_top_k(scores, np.array([0, 0]), 1).tolist() == [False, True]
    assert metrics.in_top_k(scores, np.array([0, 2]), 3).tolist() == [False, False]


def test_cross_entropy_by_hand_and_without_overflow():
    assert metrics.cross_entropy(np.array([[0.0, 0.0]]), np.array([1])) == pytest.approx(np.log(2))
    assert metrics.cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])) == pytest.approx(1000.0)
