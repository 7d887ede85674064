import numpy as np

from common.explaining import frame_curves


class FakeScorer:
    """The score of clip n is n plus what its frames that are left weigh; `reverse` weighs nothing."""

    num_clips, time = 2, 3

    def scores(self, clip_indices, masks, kind):
        weights = np.array([0.5, 0.25, 0.125]) * (kind == "freeze")
        return clip_indices + (1 - masks) @ weights


def test_curves_by_hand():
    # Clip 0: frame 0, then 1, then 2; clip 1: frame 2, then 1, then 0.
    orders = np.array([[[0, 1, 2]], [[2, 1, 0]]])
    found = frame_curves.curves(FakeScorer(), orders, "freeze")
    deletion, insertion = [0.875, 0.375, 0.125, 0], [0, 0.5, 0.75, 0.875]
    np.testing.assert_allclose(found[0, 0], [deletion, insertion])
    np.testing.assert_allclose(found[1, 0], [[1.875, 1.75, 1.5, 1], [1, 1.125, 1.375, 1.875]])
    np.testing.assert_array_equal(frame_curves.curves(FakeScorer(), orders, "reverse")[0], np.zeros((1, 2, 4)))


def test_equals_stay_in_the_order_of_time():
    np.testing.assert_array_equal(frame_curves.order(np.array([[1.0, 3, 1], [0, 0, 0]])), [[1, 0, 2], [0, 1, 2]])
