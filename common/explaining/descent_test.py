"""Adam by hand, and the quasi-Newton descent on losses whose lowest point is known."""

import numpy as np
import pytest

from common.explaining import descent
from common.explaining.scorer import in_step


def test_adam_by_hand():
    values, zeros = np.array([1.0, 1.0]), np.zeros(2)
    state = (values, zeros, zeros)
    # In the first step mean and square are the gradient and its square: 0.5 · 3 / (3 + 1e-8), and 0.5 / 2 where the
    # gradient is epsilon.
    state = descent.adam_step(state, np.array([3.0, 1e-8]), descent.adam_corrections(1), learning_rate=0.5)
    np.testing.assert_allclose(state[0], [0.5, 0.75], rtol=0, atol=1e-8)
    np.testing.assert_allclose(state[1], [0.3, 1e-9])
    np.testing.assert_allclose(state[2], [0.009, 1e-19])
    # Gradient -1: mean 0.9 · 0.3 - 0.1 = 0.17 of 0.19, square 0.999 · 0.009 + 0.001 = 0.009991 of 0.001999.
    state = descent.adam_step(state, np.array([-1.0, 0.0]), descent.adam_corrections(2), learning_rate=0.5)
    np.testing.assert_allclose(state[0][0], 0.5 - 0.5 * (0.17 / 0.19) / (0.009991 / 0.001999) ** 0.5, rtol=1e-7)


def test_the_corrections_of_adam():
    np.testing.assert_allclose(descent.adam_corrections(1), (0.1, 0.001), rtol=1e-12)
    np.testing.assert_allclose(descent.adam_corrections(2), (0.19, 0.001999), rtol=1e-12)


def bowl(matrix, lowest):
    """Returns (mask [T] -> loss, gradient) of 1 + half of (m - lowest) · matrix · (m - lowest)."""

    def answer(mask):
        gradient = matrix @ (mask - lowest)
        return 1 + 0.5 * (mask - lowest) @ gradient, gradient

    return answer


def descend(answers, starts, max_evaluations=300):
    """Runs a descent a loss (mask [T] -> loss, gradient); returns masks, traces, and how many were asked in a call."""
    batches = []

    def answer(rows, masks):
        batches.append(len(rows))
        found = [answers[row](mask) for row, mask in zip(rows, masks, strict=True)]
        return np.array([[loss, *gradient] for loss, gradient in found])

    searches = [descent.quasi_newton(start if start.ndim == 2 else start[None], max_evaluations) for start in starts]
    masks, traces = zip(*in_step(searches, answer), strict=True)
    return np.array(masks), traces, batches


def test_the_lowest_point_of_a_bowl_is_found():
    stream = np.random.default_rng(0)
    root = stream.normal(size=(6, 6))
    lowest = stream.uniform(0.1, 0.9, 6)
    answer = bowl(root @ root.T + np.eye(6), lowest)
    masks, (trace,), _ = descend([answer], [np.ones(6)])
    assert answer(masks[0])[0] <= 1 + 2e-4 and len(trace) < 40
    np.testing.assert_allclose(masks[0], lowest, rtol=0, atol=0.02)
    assert (np.diff(trace) <= 0).all()
    assert trace[0] == answer(np.full(6, 1 - 1e-5))[0] and trace[-1] == answer(masks[0])[0]


def test_values_reach_the_bounds_and_stay_there():
    answer = bowl(np.diag([1.0, 2, 3, 4]), np.array([-1, 0.5, 2, 0.25]))
    masks, _, _ = descend([answer], [np.full(4, 0.5)])
    np.testing.assert_allclose(masks[0][[0, 2]], [1e-5, 1 - 1e-5])
    np.testing.assert_allclose(masks[0][[1, 3]], [0.5, 0.25], atol=0.02)


def test_what_the_gradient_pushes_outwards_at_all_bounds_ends_at_once():
    answer = bowl(np.eye(2), np.array([-1.0, 2.0]))
    masks, (trace,), batches = descend([answer], [np.array([0.0, 1.0])])
    np.testing.assert_allclose(masks, [[1e-5, 1 - 1e-5]])
    assert len(trace) == 1 and batches == [1]


@pytest.mark.parametrize("loss", [1.0, 0.0])  # 0: of a score that rounds to 0, where masks cost nothing.
def test_where_the_loss_is_flat_it_ends(loss):
    masks, (trace,), _ = descend([lambda mask: (loss, np.zeros(2))], [np.full(2, 0.5)])
    assert trace.tolist() == [loss, loss] and masks[0].tolist() == [0.5, 0.5]  # The start, and the second look.


def test_a_bend_downwards_is_no_hindrance():
    def answer(mask):  # Curved downwards in the middle of 0…1, lowest at 0 and 1.
        return 2 - np.sum((mask - 0.4) ** 2), -2 * (mask - 0.4)

    masks, _, _ = descend([answer], [np.array([0.39, 0.41])])
    np.testing.assert_allclose(masks, [[1e-5, 1 - 1e-5]])


def test_a_saddle_is_left_by_the_second_look():
    def answer(mask):  # Along the first value straight to a saddle at 0.5; lower on both sides of it in the second.
        x, y = mask[0] - 0.5, mask[1] - 0.5
        return 2 + 4 * x**2 - 0.5 * y**2 + 4 * y**4 + 0.01 * y, np.array([8 * x, -y + 16 * y**3 + 0.01])

    # At y = 0.51, nearly on the ridge, the gradient in y is next to 0: the first descent ends there, at 2.
    masks, (trace,), _ = descend([answer], [np.array([0.9, 0.51])])
    assert trace[-1] == answer(masks[0])[0] < 2 - 0.01 and abs(masks[0][1] - 0.5) > 0.2


def test_clips_that_have_converged_leave_the_batch():
    easy, hard = bowl(np.eye(3), np.zeros(3)), bowl(np.diag([1.0, 30, 900]), np.array([0.3, 0.6, 0.2]))
    starts = [np.zeros(3), np.ones(3)]
    masks, traces, batches = descend([easy, hard], starts)
    assert batches[0] == 2 and set(batches[1:]) == {1} and len(traces[0]) == 1 and len(traces[1]) == len(batches)
    for row, answer in enumerate((easy, hard)):
        np.testing.assert_array_equal(descend([answer], starts[row : row + 1])[0], masks[row : row + 1])


def test_of_several_starts_the_one_that_leads_lowest_is_followed():
    def answer(mask):  # Two valleys in the first value, at 0.2 and, deeper, at 0.8; a bowl in the second.
        x = mask[0]
        loss = 2 + 40 * (x - 0.2) ** 2 * (x - 0.8) ** 2 - 0.2 * x + (mask[1] - 0.3) ** 2
        slope = 80 * (x - 0.2) * (x - 0.8) * (2 * x - 1) - 0.2
        return loss, np.array([slope, 2 * (mask[1] - 0.3)])

    low, high = np.array([0.1, 0.9]), np.array([0.9, 0.9])
    ends = [answer(descend([answer], [start])[0][0])[0] for start in (low, high)]
    assert ends[1] < ends[0] - 0.05
    for starts in ([low, high], [high, low]):
        masks, (trace,), batches = descend([answer], [np.array(starts)])
        assert answer(masks[0])[0] == trace[-1] <= ends[1] * 1.0001 and masks[0][0] > 0.7
        assert len(trace) == len(batches) and (np.diff(trace) <= 0).all()


def test_a_start_that_is_close_and_in_another_valley_stays_in_the_race():
    def answer(mask):  # Valleys at 0.2 and, deeper by 0.05, at 0.8 in the first value; a shallow bowl in the second.
        x, y = mask
        loss = 2 + 40 * (x - 0.2) ** 2 * (x - 0.8) ** 2 - (x - 0.2) / 12 + 0.25 * y**2
        return loss, np.array([80 * (x - 0.2) * (x - 0.8) * (2 * x - 1) - 1 / 12, 0.5 * y])

    # The second start leads lower, but when a step first promises little it is still above the end of the other.
    masks, _, _ = descend([answer], [np.array([[0.15, 0.0], [0.85, 0.6]])])
    assert masks[0][0] > 0.7 and answer(masks[0])[0] < 1.96


def test_starts_that_may_win_go_to_the_end(monkeypatch):
    monkeypatch.setattr(descent, "_RACE", (0.5, 0.5))  # After both rounds neither has moved.
    monkeypatch.setattr(descent, "_CLOSE", 0.2)

    def answer(mask):  # Valleys at 0.2 and, deeper, at 0.8 in the first value; a bowl in the second.
        x, y = mask
        loss = 2 + 40 * (x - 0.2) ** 2 * (x - 0.8) ** 2 - (x - 0.2) / 12 + y**2
        return loss, np.array([80 * (x - 0.2) * (x - 0.8) * (2 * x - 1) - 1 / 12, 2 * y])

    low, deep = [0.2, 0.0], [0.8, 0.6]
    assert answer(low)[0] < answer(deep)[0] - 0.3
    masks, _, _ = descend([answer], [np.array([low, deep])])
    assert masks[0][0] > 0.7 and answer(masks[0])[0] < 1.96


def test_side_by_side_descents_go_the_same_way():
    answer = bowl(np.diag([1.0, 30, 900]), np.array([0.3, 0.6, 0.2]))
    starts = np.array([[1.0, 1, 1], [0, 0, 0], [0.5, 1, 0]])
    found = []
    for together in (False, True):
        batches = []

        def answers(_, masks, batches=batches):
            batches.append(len(masks))
            return np.array([[loss, *gradient] for loss, gradient in map(answer, masks)])

        ((mask, trace),) = in_step([descent.quasi_newton(starts, 300, together)], answers)
        assert len(trace) == sum(batches) and max(batches) == (3 if together else 1)
        found.append((mask, trace))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_several_starts_ask_for_no_more_either(limit, together):
    answer = bowl(np.diag([1.0, 30, 900]), np.array([0.3, 0.6, 0.2]))
    counts = []

    def answers(_, masks):
        counts.append(len(masks))
        return np.array([[loss, *gradient] for loss, gradient in map(answer, masks)])

    search = descent.quasi_newton(np.array([[1.0, 1, 1], [0, 0, 0]]), limit, together)
    ((mask, trace),) = in_step([search], answers)
    assert 0 < len(trace) == sum(counts) <= limit and trace[-1] == answer(mask)[0]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_it_ends_after_so_many_evaluations_at_the_latest(limit):
    answer = bowl(np.diag([1.0, 30, 900]), np.array([0.3, 0.6, 0.2]))
    masks, (trace,), batches = descend([answer], [np.ones(3)], limit)
    assert len(trace) == len(batches) == limit and trace[-1] == answer(masks[0])[0]
