import dataclasses

import numpy as np
import pytest

from common.clips import suites
from common.explaining import mask_search, masks, observer, perturbations
from data_prep import planted

_CONFIG = masks.MaskConfig()


def drawn(suite, count=17):
    """Returns clips of a suite's test split at half size, uint8 [N, 24, 32, 32, 3], labels [N] and sets [N, 2, 24]."""
    drawings = [planted.draw_video(suite, 0, "test", number) for number in range(count)]
    frames = np.stack([drawing.frames for drawing in drawings]).reshape(count, 24, 32, 2, 32, 2, 3).mean(axis=(3, 5))
    truths = [drawing.truth for drawing in drawings]
    return frames, np.array([one.label for one in truths]), np.stack([one.sufficient for one in truths])


def effective(frames, mask):
    """Returns in which frames freezing a mask changes a pixel, bool [T]."""
    return (perturbations.perturb(frames[None], mask[None], "freeze")[0] != frames).any(axis=(1, 2, 3))


def scored(suite):
    """Returns clips in which something happens, the observer on them, and their sets of frames that suffice."""
    frames, labels, sets = drawn(suite)
    happens = sets.any(axis=(1, 2))
    frames, labels, sets = frames[happens], labels[happens], sets[happens]
    judge = observer.Observer(suite, frames.shape[1:])
    return frames, observer.Scorer(judge, frames, labels), sets


@pytest.mark.parametrize("suite", suites.SUITES)
def test_it_is_right_forwards_and_says_the_reversal_backwards(suite):
    frames, labels, _ = drawn(suite, 18)
    judge = observer.Observer(suite, frames.shape[1:])
    assert (judge(frames).argmax(axis=1) == labels).all()
    reversal = np.where(labels == 8, 8, labels ^ 1)  # Classes 2 n and 2 n + 1 are each other's reversal.
    assert (judge(frames[:, ::-1]).argmax(axis=1) == reversal).all()
    np.testing.assert_allclose(judge(frames).sum(axis=1), 1)


def test_logits_of_a_wave_that_runs_round_in_four_steps():
    """The answers 1, i, -1, -i, 1: d is 0, -1+i, -2, -1-i, 0, and sweeps 0, 2, 2, 0; each way is 2, together 8."""
    answers = np.zeros((1, 5, 8))
    answers[0, :, 1], answers[0, :, 5] = [1, 0, -1, 0, 1], [0, 1, 0, -1, 0]
    moved = 8 / 8.5
    for order, forwards, backwards in ((slice(None), 4, 0), (slice(None, None, -1), 0, 4)):
        found = observer.logits(answers[:, order], "rare", perturbations.NUMPY_OPS)[0]
        np.testing.assert_allclose(found, [0, 0, moved + forwards, moved + backwards, 0, 0, 0, 0, 2])
    alone = answers[:, [0, 0, 2, 2, 4]]  # One frame of the event, half a period away: ways 4 and 4, no area.
    np.testing.assert_allclose(
        observer.logits(alone, "rare", perturbations.NUMPY_OPS)[0], [0, 0, moved, moved, 0, 0, 0, 0, 2]
    )


def test_logits_of_one_wave_and_then_another():
    """4 for the one and 4 for the other, half of which counts, and 0.25 of the product 16 where the order is right."""
    answers = np.zeros((1, 9, 8))
    answers[..., 0] = answers[..., 1] = 1
    answers[0, :5, 0], answers[0, :5, 4] = [1, 0, -1, 0, 1], [0, 1, 0, -1, 0]
    answers[0, 4:, 1], answers[0, 4:, 5] = [1, 0, -1, 0, 1], [0, 1, 0, -1, 0]
    found = dict(zip(suites.classes("pair"), observer.logits(answers, "pair", perturbations.NUMPY_OPS)[0], strict=True))
    moved = 2 * 8 / 8.5
    right, down, left, up = (0, 1), (1, 1), (0, -1), (1, -1)
    expected = {(right, down): 8, (down, right): 4, (right, up): 2, (left, down): 2, (left, up): 0, (up, right): 2}
    for events, value in expected.items():
        np.testing.assert_allclose(found[events], moved + value)
    assert found[()] == 2


@pytest.mark.parametrize("suite", ["rare", "edges", "distractor"])
def test_oracle_of_deletion_is_the_event_exactly(suite):
    frames, scorer, sets = scored(suite)
    found = mask_search.best_intervals(scorer, _CONFIG).masks(24)
    np.testing.assert_array_equal([effective(*pair) for pair in zip(frames, found, strict=True)], sets[:, 0])
    inner = ~(sets[:, 0, [1, 2, -3, -2]].any(axis=1))  # Nearer to an end the mask takes what changes nothing, too.
    np.testing.assert_array_equal(found[inner], sets[inner, 0])
    assert inner.any() == (suite != "edges")


@pytest.mark.parametrize("suite", ["rare", "redundant", "distractor"])
def test_least_interval_that_preserves_is_a_set_that_suffices(suite):
    frames, scorer, sets = scored(suite)
    places = masks.intervals(24)
    kept = np.stack([masks.interval_mask(*place, 24) for place in places])
    for number in range(len(frames)):
        scores = scorer.scores(np.full(len(kept), number), 1 - kept, "freeze")
        best = kept[masks.mask_loss(1 - scores, kept, _CONFIG).argmin()]
        suffices = [one for one in sets[number] if one.any() and not one[[1, 2, -3, -2]].any()]
        if len(suffices) == sets[number].any(axis=1).sum():
            assert any((best == one).all() for one in suffices)


@pytest.mark.parametrize("game", masks.GAMES)
@pytest.mark.parametrize("suite", ["rare", "edges", "distractor"])
def test_where_ends_are_counted_the_best_interval_is_the_event_wherever_it_lies(suite, game):
    _, scorer, sets = scored(suite)
    found = mask_search.best_intervals(scorer, dataclasses.replace(_CONFIG, game=game, ends="counted")).masks(24)
    np.testing.assert_array_equal(found, sets[:, 0])


def test_pair_is_lost_without_either_event_and_cheapest_without_both():
    _, scorer, sets = scored("pair")
    for number, (both, _) in enumerate(sets):
        first = both * (np.cumsum(np.diff(both, prepend=0) == 1) == 1)
        tried = np.stack([0 * both, first, both - first, both]).astype(float)
        scores = scorer.scores(np.full(4, number), tried, "freeze")
        assert scores[0] > 0.9 and max(scores[1:3]) < 0.25
        assert masks.mask_loss(scores, tried, _CONFIG).argmin() == 3


def test_redundant_event_is_kept_by_either_and_lost_without_both():
    _, scorer, sets = scored("redundant")
    for number, (first, second) in enumerate(sets):
        tried = np.stack([0 * first, first, second, first + second]).astype(float)
        scores = scorer.scores(np.full(4, number), tried, "freeze")
        np.testing.assert_allclose(scores[1:3], scores[0], atol=0.01)
        assert scores[0] > 0.85 and scores[3] < 0.1


def test_freezing_all_frames_of_an_event_leaves_nothing_and_any_frame_left_counts():
    _, scorer, sets = scored("rare")
    for number, (event, _) in enumerate(sets):
        fewer = [event * (np.arange(24) != frame) for frame in np.flatnonzero(event)]
        masked = np.stack([event, *fewer]).astype(float)
        lost, kept = (scorer.scores(np.full(len(masked), number), tried, "freeze") for tried in (masked, 1 - masked))
        assert (lost[1:] > lost[0] + 2 * _CONFIG.lambda_1).all()
        assert (kept[1:] < kept[0] - 2 * _CONFIG.lambda_1).all()
