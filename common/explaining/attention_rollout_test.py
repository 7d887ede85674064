"""Attention rollout against numbers worked out by hand."""

import numpy as np
import pytest

from common import errors
from common.explaining import attention_rollout

# Two layers of one clip and three tokens; two heads whose means are the rows in the comments.
FIRST = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0], [0, 1, 0]]]  # .5 .5 0 | 0 1 0 | 0 .5 .5
SECOND = [[[0, 0, 1]] * 3, [[0, 0, 1]] * 3]  # 0 0 1 in every row.
ATTENTIONS = np.array([[FIRST], [SECOND]], np.float64)


def test_two_layers_by_hand():
    # Half of each layer is what came in: .75 .25 0 | 0 1 0 | 0 .25 .75, then .5 0 .5 | 0 .5 .5 | 0 0 1.
    expected = [[0.375, 0.25, 0.375], [0, 0.625, 0.375], [0, 0.25, 0.75]]
    np.testing.assert_array_equal(attention_rollout.rollout(ATTENTIONS), [expected])


def test_clips_do_not_see_each_other_and_float32_stays():
    two = np.concatenate([ATTENTIONS, ATTENTIONS[:, :, :, ::-1, ::-1]], axis=1).astype(np.float32)
    held = attention_rollout.rollout(two)
    assert held.dtype == np.float32
    np.testing.assert_allclose(held[1], held[0][::-1, ::-1], rtol=1e-6)
    np.testing.assert_allclose(held.sum(-1), 1, rtol=1e-6)


def test_maps_are_what_the_class_token_holds_of_the_grid():
    np.testing.assert_array_equal(attention_rollout.rollout_maps(ATTENTIONS, (2, 1, 1)), [[[[0.25]], [[0.375]]]])


def test_without_a_class_token_maps_are_the_mean_over_tokens():
    np.testing.assert_allclose(
        attention_rollout.rollout_maps(ATTENTIONS, (1, 1, 3)), [[[[0.125, 0.375, 0.5]]]], rtol=1e-12
    )


def test_order_of_tokens():
    # The last token holds 0.75 of itself: frame 1, row 1 in either order; the others lie elsewhere.
    attentions = np.broadcast_to(np.eye(5), (1, 1, 1, 5, 5)).copy()
    attentions[0, 0, 0, 0] = [0, 0.1, 0.2, 0.3, 0.4]
    maps = [attention_rollout.rollout_maps(attentions, (2, 2, 1), axes)[0, ..., 0] for axes in ("N(THW)C", "N(HWT)C")]
    np.testing.assert_allclose(maps, [[[0.05, 0.1], [0.15, 0.2]], [[0.05, 0.15], [0.1, 0.2]]], rtol=1e-12)


def test_single_frames():
    attentions = np.broadcast_to(np.eye(3), (1, 4, 1, 3, 3)).copy()
    attentions[0, :, 0, 0] = [[0, t / 4, 1 - t / 4] for t in range(4)]
    maps = attention_rollout.rollout_maps(attentions, (2, 1, 2), "(NT)(HW)C")
    np.testing.assert_allclose(maps[..., 0, :], [[[0, 0.5], [0.125, 0.375]], [[0.25, 0.25], [0.375, 0.125]]])


@pytest.mark.parametrize(
    ("attentions", "received"),
    [
        (ATTENTIONS[0], r"\(1, 2, 3, 3\)$"),
        (ATTENTIONS[..., :2], r"\(2, 1, 2, 3, 2\)$"),
        (ATTENTIONS * 2, r"\(2, 1, 2, 3, 3\), other numbers"),
        (ATTENTIONS * np.nan, r"\(2, 1, 2, 3, 3\), other numbers"),
        (2 / 3 - ATTENTIONS, r"\(2, 1, 2, 3, 3\), other numbers"),
        (ATTENTIONS[:0], r"\(0, 1, 2, 3, 3\)$"),
    ],
)
def test_what_is_no_attention_is_refused(attentions, received):
    with pytest.raises(errors.UserError, match=rf"must be \[layers, N, heads, L, L\].* Received: {received}"):
        attention_rollout.rollout(attentions)


def test_a_grid_of_other_tokens_is_refused():
    with pytest.raises(errors.UserError, match="grid, 2 x 2 x 1, after 0 or 1 class tokens .*. Received: 3"):
        attention_rollout.rollout_maps(ATTENTIONS, (2, 2, 1))
