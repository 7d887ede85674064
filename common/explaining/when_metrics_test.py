"""Metrics of answers so small that every number can be worked out by hand."""

import itertools
import types

import numpy as np
import pytest

from common.clips.clip_store import ClipStore
from common.explaining import when_metrics
from common.explaining.when_metrics import Truth


def measure(values, event, *sufficient, selected=None):
    """The metrics of one clip, name -> number."""
    values, event = np.array([values], float), np.array([event]) != 0
    sets = np.array([sufficient]) != 0 if sufficient else event[:, None]
    chosen = when_metrics.selection(values) if selected is None else np.array([selected]) != 0
    return {name: array[0] for name, array in when_metrics.measure(values, chosen, Truth(event, sets)).items()}


@pytest.mark.parametrize(
    ("values", "pointing", "precision"),
    [
        ([0, 3, 2, 1], 1, 1),
        ([3, 2, 1, 0], 0, 1 / 2),  # Frames 0 and 1 are the highest, 1 is in the event.
        ([0, 2, 2, 2], 2 / 3, 2 / 3),  # Two of three equal frames are drawn.
        ([3, 2, 2, 0], 0, 1 / 2),  # Frame 0, and one of two that both lie in the event.
        ([1, 0, 0, 1], 0, 0),
        ([5, 5, 5, 5], 1 / 2, 1 / 2),
    ],
)
def test_pointing_and_precision(values, pointing, precision):
    found = measure(values, [0, 1, 1, 0])
    assert found["pointing"] == pytest.approx(pointing)
    assert found["precision"] == pytest.approx(precision)
    assert found["pointing_random"] == found["precision_random"] == 1 / 2


def test_average_precision():
    # Ranked 0, 1, 3, 2: the event is found at ranks 2 and 4.
    found = measure([9, 8, 1, 2], [0, 1, 1, 0])
    assert found["auprc"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    # A positive at rank 1, 2, 3, 4 has on average a precision of 1, (1 + 1/3) / 2, (1 + 2/3) / 3, (1 + 3/3) / 4.
    assert found["auprc_random"] == pytest.approx((1 + 2 / 3 + 5 / 9 + 1 / 2) / 4)


def test_average_precision_of_equals_is_that_of_their_orders_on_average():
    event = np.array([0, 1, 1, 0, 1]) == 1
    values = np.array([2.0, 2, 2, 1, 1])
    orders = [
        when_metrics.average_precision(event, values + 0.1 * np.array(order))
        for order in itertools.permutations(range(5))
    ]
    assert when_metrics.average_precision(event, values) == pytest.approx(np.mean(orders))
    for constant in (0.0, 1.0):  # It says nothing, so it is at chance.
        found = measure([constant] * 5, event)
        assert found["auprc"] == pytest.approx(found["auprc_random"])
    assert when_metrics.average_precision(np.ones(3, bool), np.arange(3.0)) == 1


def test_without_equals_average_precision_is_scikit_learns():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    stream = np.random.default_rng(0)
    for _ in range(20):
        event, values = stream.random(16) < 0.4, stream.random(16)
        event[0] = True
        expected = sklearn_metrics.average_precision_score(event, values)
        assert when_metrics.average_precision(event, values) == pytest.approx(expected)


def test_the_selection_is_what_lies_above_the_middle_of_the_values():
    chosen = when_metrics.selection(np.array([[0, 4, 2, 3], [-1, -3, -1, -2], [7, 7, 7, 7.0]]))
    np.testing.assert_array_equal(chosen, np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]]) == 1)
    for largest in (1.7e308, np.finfo(np.float64).max):  # Whose sum is infinite.
        chosen = when_metrics.selection(np.array([[0, largest, largest], [-largest, largest, -largest]]))
        np.testing.assert_array_equal(chosen, np.array([[0, 1, 1], [0, 1, 0]]) == 1)


def test_temporal_iou():
    found = measure([0, 3, 3, 0], [0, 0, 1, 1])
    assert found["temporal_iou"] == pytest.approx(1 / 3)
    assert found["temporal_iou_random"] == pytest.approx((0 + 1 / 3 + 1) / 3)  # Two frames at three places.
    # What a tool selects itself counts, whatever its values.
    assert measure([0, 3, 3, 0], [0, 0, 1, 1], selected=[0, 0, 1, 1])["temporal_iou"] == 1
    nothing = measure([1, 1, 1, 1], [0, 0, 1, 1])
    assert nothing["temporal_iou"] == nothing["temporal_iou_random"] == 0


def test_where_either_of_two_occurrences_suffices_either_answer_is_right():
    first, second = [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]
    event = [1, 1, 0, 0, 1, 1]
    for answer in (first, second, event):
        found = measure(answer, event, first, second)
        assert found["pointing"] == found["precision"] == found["temporal_iou"] == 1
    assert measure(event, event, first, second)["auprc"] == 1
    assert measure(first, event, first, second)["auprc"] < 1  # It did not find all of it.
    assert measure(first, event, first, second)["precision_random"] == pytest.approx(4 / 6)
    # Two frames at five places: IoU 1, 1/3, 0, 1/3, 1 with the nearer occurrence; 2/4, 1/5, 0, 1/5, 2/4 with both.
    assert measure(first, event, first, second)["temporal_iou_random"] == pytest.approx((1 + 1 / 3 + 1 / 3 + 1) / 5)


def test_a_set_without_frames_is_none():
    padded = measure([0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0])
    assert padded == measure([0, 1, 0], [0, 1, 0]) and padded["exact"] == 1


@pytest.mark.parametrize("sets", [0, 2])
def test_the_truth_of_a_store(sets):
    class Store(ClipStore):
        """What `truth_of` needs of one: three clips, the first of which has its event twice."""

        info = types.SimpleNamespace(layout=types.SimpleNamespace(sufficient_sets=sets, object_mask_shape=(1, 1)))
        columns = {
            "salient": np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
            "sufficient": np.array([[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]),
        }

        def __init__(self):
            pass

        def places(self, video_ids):
            return [int(video_id) for video_id in video_ids]

        def column(self, name):
            assert name == "salient" or sets
            return self.columns[name]

    truth = when_metrics.truth_of(Store(), ("2", "0"))
    assert truth.event.dtype == truth.sufficient.dtype == bool
    np.testing.assert_array_equal(truth.event, [[0, 0, 0], [1, 0, 1]])
    if sets:
        np.testing.assert_array_equal(truth.sufficient, [[[0, 0, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]])
    else:
        np.testing.assert_array_equal(truth.sufficient, truth.event[:, None])


def test_where_nothing_happens_nothing_is_measured():
    found = measure([0, 1, 2], [0, 0, 0])
    assert found.pop("selected") == 1
    assert len(found) == 10 and np.isnan(list(found.values())).all()


def test_what_is_selected():
    event, first = [0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0]
    found = measure([0, 0, 3, 3, 3, 3], event)
    assert (found["selected"], found["inside"], found["exact"]) == (4, 3 / 4, 0)
    assert measure(event, event)["exact"] == measure(first, event, first)["exact"] == 1
    assert measure(first, event)["exact"] == 0 and measure(first, event)["inside"] == 1
    nothing = measure([0] * 6, event)
    assert nothing["selected"] == nothing["exact"] == 0 and np.isnan(nothing["inside"])


def test_chance_is_the_mean_over_all_orders():
    event = np.array([0, 1, 1, 0, 0]) == 1
    orders = [measure(values, event) for values in itertools.permutations(range(5))]
    for name in ("pointing", "precision", "auprc"):
        assert np.mean([found[name] for found in orders]) == pytest.approx(orders[0][f"{name}_random"]), name
