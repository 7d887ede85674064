"""The oracle and single flips, on scores that the tests set or make of a mask's effect, against brute force."""

import dataclasses
import itertools

import numpy as np
import pytest

from common import errors
from common.explaining import binary_masks, mask_search, masks, perturbations
from common.explaining.mask_search_test import FakeScorer
from common.explaining.masks import MaskConfig


def evidence_in(*frames, time=16):
    """A score of 0.9 that each perturbed frame of these lowers by its share, and that others lower by little."""

    def score(clip, mask, kind):
        shares = np.full(time, 0.002)
        shares[list(frames)] = 0.9 / len(frames)
        return max(0.95 - float(shares @ mask), 0.0)

    return score


def _effect(clip, mask, kind):
    """A score that depends on a mask through its perturbation alone; bumpy in the interval's ends."""
    stream = np.random.default_rng(clip)
    moved = perturbations.matrix(mask[None], kind)[0] @ stream.uniform(0, 1, (len(mask), 3))
    return float(np.clip(3 * np.abs(np.diff(moved, axis=0)).mean(), 0, 1))


@pytest.mark.parametrize("game", masks.GAMES)
@pytest.mark.parametrize("event", [(0, 2), (3, 4), (6, 9), (11, 16), (0, 16)])
def test_from_coarse_to_fine_the_event_is_found_with_a_third_of_the_intervals(event, game):
    score, config = evidence_in(*range(*event)), MaskConfig(kind="mean", game=game, oracle="coarse")
    found = binary_masks.best_intervals(FakeScorer(score, time=16), config)
    full = binary_masks.best_intervals(FakeScorer(score, time=16), MaskConfig(kind="mean", game=game))
    assert tuple(found.intervals[0]) == tuple(full.intervals[0]) == event
    assert found.losses[0] == full.losses[0] and np.isfinite(full.scores).all()
    tried = np.isfinite(found.scores[0])
    assert tried.sum() <= 60
    np.testing.assert_array_equal(found.scores[0, tried], full.scores[0, tried])


def test_from_coarse_to_fine_each_clip_goes_its_own_way():
    config = MaskConfig(kind="mean", oracle="coarse")
    scores = [evidence_in(3), evidence_in(8, 9), evidence_in(1, 14)]
    scorer = FakeScorer(lambda clip, mask, kind: scores[clip](clip, mask, kind), num_clips=3, time=16)
    together = binary_masks.best_intervals(scorer, config)
    assert len({tuple(place) for place in together.intervals}) == 3
    for clip in range(3):
        found = binary_masks.best_intervals(FakeScorer(scores[clip], time=16), config)
        np.testing.assert_array_equal(found.intervals[0], together.intervals[clip])
        np.testing.assert_array_equal(found.scores[0], together.scores[clip])


def test_from_coarse_to_fine_all_stops_are_tried_where_the_best_begins():
    # The score leaps with the frame that is shown last, as where it is kept and the rest frozen: of all stops 11 alone
    # is good, and nothing near 14, the best of the others, leads there.
    def loss(start, stop):
        return (0.1 if stop == 11 else 0.7) + 0.01 * abs(start - 5) + max(0.02 * (14 - stop), 0.001 * (stop - 14))

    search = binary_masks.coarse_to_fine(16, MaskConfig(game="preserve"))
    places, tried = next(search), 0
    with pytest.raises(StopIteration) as finished:
        while True:
            tried += len(places)
            places = search.send(np.array([loss(*place) for place in places.tolist()]))
    assert finished.value.value == ((5, 11), loss(5, 11)) and tried <= 72


def test_from_coarse_to_fine_short_ones_are_tried_at_the_end_of_the_best():
    # Frozen from the clip's start or from frame 4 on, where it costs more at its ends and is shorter: nothing between
    # them undoes the class.
    def score(clip, mask, kind):
        start, stop = np.flatnonzero(mask)[[0, -1]] + [0, 1]
        return 0.01 * start if start <= 2 and 5 <= stop <= 12 else 0.0 if (start, stop) == (4, 6) else 1.0

    config = MaskConfig(kind="mean", oracle="coarse")
    found = binary_masks.best_intervals(FakeScorer(score, time=24), config)
    assert tuple(found.intervals[0]) == (4, 6) and np.isfinite(found.scores).sum() <= 60


@pytest.mark.parametrize("best", [(0, 1), (15, 16), (7, 16)])
def test_from_coarse_to_fine_free_ends_are_tried(best):
    # The score falls a little towards (6, 13) and leaps at one interval that reaches an end of the clip, and so saves
    # a step of the total variation.
    def score(clip, mask, kind):
        start, stop = np.flatnonzero(mask)[[0, -1]] + [0, 1]
        return 0.01 if (start, stop) == best else min(0.2 + 0.02 * (abs(start - 6) + abs(stop - 13)), 0.9)

    found = binary_masks.best_intervals(FakeScorer(score, time=16), MaskConfig(kind="mean", oracle="coarse"))
    assert tuple(found.intervals[0]) == best


@pytest.mark.parametrize("time", [1, 2, 3, 5, 8, 13, 32])
def test_from_coarse_to_fine_for_any_number_of_frames(time):
    score = evidence_in(time // 2, time=time)
    coarse, full = (
        binary_masks.best_intervals(FakeScorer(score, time=time), MaskConfig(kind="mean", oracle=oracle))
        for oracle in ("coarse", "full")
    )
    np.testing.assert_array_equal(coarse.intervals, full.intervals)
    assert coarse.intervals[0][1] - coarse.intervals[0][0] == (1 if time >= 8 else time)  # The whole clip has no edge.


def test_the_share_of_exact_answers_is_known_from_a_full_oracle():
    # The best interval of clip 1, one frame, lies where no grid would look: all around it the score stays.
    scores = [evidence_in(5, 6), lambda clip, mask, kind: 1 - float(mask[2]) * float(mask.sum() == 1)]
    scorer = FakeScorer(lambda clip, mask, kind: scores[clip](clip, mask, kind), num_clips=2, time=16)
    config = MaskConfig(kind="mean", lambda_1=0.02)
    full = binary_masks.best_intervals(scorer, config)
    assert full.intervals.tolist() == [[5, 7], [2, 3]]
    asked = len(scorer.asked)
    exact, tried = binary_masks.coarse_share(full, 16, config)
    coarse = binary_masks.best_intervals(scorer, dataclasses.replace(config, oracle="coarse"))
    assert exact.tolist() == (coarse.losses == full.losses).tolist() and exact[0]
    assert tried.tolist() == np.isfinite(coarse.scores).sum(axis=1).tolist() and len(scorer.asked) > asked


def test_the_next_best_interval_is_not_near_the_best_and_was_tried():
    config = MaskConfig(lambda_1=0, lambda_2=0)
    scores = np.full(21, 0.9)
    column = {place: number for number, place in enumerate(masks.intervals(6))}
    for place, score in {(1, 3): 0.1, (0, 4): 0.2, (2, 3): 0.2, (0, 5): 0.3, (3, 6): 0.25, (5, 6): np.nan}.items():
        scores[column[place]] = score
    found = binary_masks.BestIntervals(np.array([[1, 3]]), np.array([0.1]), scores[None])
    assert binary_masks.next_best(found, 6, config).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_an_interval_that_costs_more_than_the_best_loss_is_not_tried():
    # The first round tries all pairs of 0, 4, 8, 12 and 16. (4, 8) has a loss of 0.01 · 4 + 0.02 · 2 = 0.08, and every
    # other one of the rounds after it that is longer than 4 frames costs at least that much, but for those at an edge.
    scorer = FakeScorer(lambda clip, mask, kind: float(mask[4:8].min() < 1), time=16)
    found = binary_masks.best_intervals(scorer, MaskConfig(kind="mean", oracle="coarse"))
    assert tuple(found.intervals[0]) == (4, 8) and found.losses[0] == pytest.approx(0.08)
    tried = {place for place, score in zip(masks.intervals(16), found.scores[0], strict=True) if np.isfinite(score)}
    first = set(itertools.combinations((0, 4, 8, 12, 16), 2))
    assert first < tried and all(stop - start <= 4 or 0 in (start, 16 - stop) for start, stop in tried - first)


def test_of_a_given_length_every_interval_is_tried():
    scorer = FakeScorer(evidence_in(5, 6, 7), time=16)
    for oracle in masks.ORACLES:
        config = MaskConfig(kind="mean", form="hard", area=2, oracle=oracle)
        found = binary_masks.best_intervals(scorer, config)
        assert tuple(found.intervals[0]) == (5, 7) and np.isfinite(found.scores).sum() == 15


def test_an_area_of_more_frames_than_there_are_is_refused():
    with pytest.raises(errors.UserError, match="area must be at most the 6 frames of a clip. Received: 7"):
        binary_masks.best_intervals(FakeScorer(evidence_in(1, time=6)), MaskConfig(form="hard", area=7))


def learn(score, time=16, num_clips=1, **values):
    """Returns the mask that is learnt with these settings, `form` "hard"."""
    config = MaskConfig(kind="mean", form="hard", **values)
    return mask_search.learn_masks(FakeScorer(score, num_clips=num_clips, time=time), config)


@pytest.mark.parametrize("game", masks.GAMES)
def test_single_flips_split_an_interval(game):
    # Two frames far apart: an interval of both has 10 frames, the mask of them alone costs 0.02 + 4 · 0.02.
    learnt = learn(evidence_in(3, 12), game=game, lambda_1=0.05)
    assert np.flatnonzero(learnt.masks[0]).tolist() == [3, 12]
    trace = learnt.losses[0][np.isfinite(learnt.losses[0])]
    assert len(trace) > 1 and (np.diff(trace) < 0).all() and trace[-1] == learnt.final_loss[0]
    assert learnt.losses.shape == (1, 300)


@pytest.mark.parametrize("game", masks.GAMES)
@pytest.mark.parametrize("area", [0, 3])
def test_no_flip_is_left_that_lowers_the_loss(game, area):
    config = MaskConfig(kind="freeze", form="hard", game=game, area=area, lambda_1=0.02)
    learnt = mask_search.learn_masks(FakeScorer(_effect, num_clips=2, time=7), config)
    assert set(np.unique(learnt.masks)) <= {0, 1}
    every = np.array(list(itertools.product((0.0, 1.0), repeat=7)))
    for clip in range(2):
        scores = [_effect(clip, masks.perturbed_part(mask[None], game)[0], "freeze") for mask in every]
        losses = masks.mask_loss(np.array(scores), every, config)
        differ = np.abs(every - learnt.masks[clip]).sum(axis=1)
        near = (differ == 2) & (every.sum(axis=1) == area) if area else differ == 1
        assert near.any() and losses[near].min() >= learnt.final_loss[clip] - 1e-12
        assert learnt.masks[clip].sum() == area or not area
        np.testing.assert_allclose(losses[differ == 0], learnt.final_loss[clip], rtol=0, atol=1e-12)


def test_of_a_given_number_of_frames_the_mask_need_not_be_an_interval():
    learnt = learn(evidence_in(3, 12), area=2)
    assert np.flatnonzero(learnt.masks[0]).tolist() == [3, 12]
    assert learn(evidence_in(3, 12), area=16).masks.all()
