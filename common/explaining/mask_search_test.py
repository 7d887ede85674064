"""The search for masks with a scorer whose scores the tests set, so that every choice can be worked out by hand."""

import numpy as np
import pytest

from common import errors
from common.explaining import mask_search, masks, perturbations


class FakeScorer:
    """Scores by a function (clip, mask [T], kind) -> score, and remembers what it was asked."""

    def __init__(self, function, num_clips=1, time=6, descent=None):
        self.num_clips, self.time = num_clips, time
        self._function, self._descent = function, descent
        self.asked = []

    def scores(self, clip_indices, masks, kind):
        assert len(clip_indices) == len(masks)
        self.asked += [(int(clip), tuple(mask), kind) for clip, mask in zip(clip_indices, masks, strict=True)]
        scores = [self._function(int(clip), mask, kind) for clip, mask in zip(clip_indices, masks, strict=True)]
        return np.array(scores, float)

    def descend(self, clip_indices, start_logits):
        self.clips, self.starts = clip_indices, start_logits
        return self._descent


def by_length(*scores):
    """Scores of clips by the number of frames masked: one dict a clip."""
    return FakeScorer(lambda clip, mask, kind: scores[clip][int(mask.sum())], len(scores), time=max(scores[0]))


@pytest.mark.parametrize(
    ("scores", "paper", "released"),
    [
        # Score of the clean clip, and with 6, 4 and 2 frames in the middle masked. Where the full mask leaves 0 of 1, a
        # window keeps its drop when it leaves 0.1 at most.
        ((1, 0, 0.05, 0.5), 4, 2),
        ((1, 0, 0.5, 0.75), 6, 4),
        ((1, 0, 0, 0), 2, 2),
        ((1, 0, 0.5, 0.05), 2, 4),  # The smallest that keeps, though a larger one does not.
        ((0.5, 0.25, 0.2, 0.26), 2, 2),  # Relative to the drop of the full mask: 0.24 of 0.25.
        ((0.5, 0.25, 0.26, 0.3), 4, 2),
    ],
)
def test_the_search_starts_at_the_window_that_keeps_nine_tenths(scores, paper, released):
    scorer = by_length(dict(zip((0, 6, 4, 2), scores, strict=True)))
    for compat, length in (("paper", paper), ("released", released)):
        start = mask_search.initial_masks(scorer, masks.MaskConfig(compat=compat))
        gap = (6 - length) // 2
        np.testing.assert_array_equal(start, [[0] * gap + [1] * length + [0] * gap])


def test_nine_tenths_exactly_are_kept():
    start = mask_search.initial_masks(by_length({0: 10, 5: 0, 3: 1, 1: 1.125}), masks.MaskConfig())
    np.testing.assert_array_equal(start, [[0, 1, 1, 1, 0]])


@pytest.mark.parametrize(
    ("scores", "length"),
    [
        # Score of the clean clip, and with all frames, all but 2 and all but 4 in the middle perturbed. Of 0.25 that
        # perturbing all leaves and 1, a window that is kept holds nine tenths of the difference when it leaves 0.925.
        ((1, 0.25, 0.5, 0.75), 6),
        ((1, 0.25, 0.5, 0.925), 4),
        ((1, 0.25, 0.95, 0.9), 2),  # The smallest that holds, though a larger one does not.
    ],
)
def test_to_preserve_the_search_starts_at_the_window_that_holds_nine_tenths(scores, length):
    scorer = by_length(dict(zip((0, 6, 4, 2), scores, strict=True)))
    start = mask_search.initial_masks(scorer, masks.MaskConfig(game="preserve", kind="mean"))
    gap = (6 - length) // 2
    np.testing.assert_array_equal(start, [[0] * gap + [1] * length + [0] * gap])


@pytest.mark.parametrize("game", masks.GAMES)
def test_just_nine_tenths_of_the_drop_are_enough(game):
    """Of four frames whose shares of the score are 0, 0.6, 0.3 and 0.1, the two in the middle have nine tenths."""
    scorer = FakeScorer(lambda clip, mask, kind: 1 - mask @ np.array([0, 0.6, 0.3, 0.1]), time=4)
    start = mask_search.initial_masks(scorer, masks.MaskConfig(game=game, kind="mean"))
    np.testing.assert_array_equal(start, [[0, 1, 1, 0]])


@pytest.mark.parametrize("game", masks.GAMES)
@pytest.mark.parametrize("full", [0.5, 0.75])
def test_without_a_drop_the_search_starts_at_the_middle_half(full, game):
    clip = {0: 0.5, 8: full, 6: 0, 4: 0, 2: 0}
    start = mask_search.initial_masks(by_length(clip), masks.MaskConfig(game=game))
    np.testing.assert_array_equal(start, [[0, 0, 1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("full", "windows", "length"),
    [
        # The clean score is 0.5, and the full mask raises it by 0.25 or leaves it.
        (0.75, (0, 0, 0), 6),  # 0.5 / -0.25 = -2 is below 0.9 at once.
        (0.75, (1, 0.75, 0.5), 2),  # Ratios 2, 1 and 0 of two negatives: the first that fails is the last.
        (0.75, (1, 0.6, 0.5), 4),  # 2, 0.4.
        (0.5, (0, 0, 0), 2),  # Infinite ratios: none fails.
        (0.5, (0.5, 0.5, 0.5), 2),  # 0 / 0 is not below 0.9.
        (0.5, (0.6, 0, 0), 6),  # Minus infinity is.
    ],
)
def test_without_a_drop_the_released_code_divides_all_the_same(full, windows, length):
    clip = dict(zip((0, 8, 6, 4, 2), (0.5, full, *windows), strict=True))
    start = mask_search.initial_masks(by_length(clip), masks.MaskConfig(compat="released"))
    gap = (8 - length) // 2
    np.testing.assert_array_equal(start, [[0] * gap + [1] * length + [0] * gap])


def test_the_released_code_measures_against_the_frozen_clip_whatever_the_kind():
    # Reversed, the full mask takes 0.1 of 1; frozen, all of it. A window that takes 0.5 keeps the former drop only.
    def score(clip, mask, kind):
        if not mask.any():
            return 1.0
        return {"freeze": 0.0, "reverse": 0.9 if mask.all() else 0.5}[kind]

    starts = {}
    for compat in masks.COMPATS:
        config = masks.MaskConfig(kind="reverse", compat=compat)
        starts[compat] = mask_search.initial_masks(FakeScorer(score, time=6), config)
    np.testing.assert_array_equal(starts["paper"], [[0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(starts["released"], [[0, 1, 1, 1, 1, 0]])  # 0.5 of 1 fails at once.


@pytest.mark.parametrize(
    ("time", "released", "paper"), [(1, 1, 1), (2, 2, 2), (3, 3, 1), (4, 2, 2), (5, 3, 1), (15, 3, 1)]
)
def test_the_released_code_stops_at_three_frames_of_an_odd_number(time, released, paper):
    for compat, length in (("released", released), ("paper", paper)):
        scorer = FakeScorer(lambda clip, mask, kind: float(not mask.any()), time=time)
        start = mask_search.initial_masks(scorer, masks.MaskConfig(kind="mean", compat=compat))
        gap = (time - length) // 2
        np.testing.assert_array_equal(start, [[0] * gap + [1] * length + [0] * gap])


def test_clips_start_each_where_their_own_scores_say():
    scorer = by_length({0: 1, 4: 0, 2: 0}, {0: 1, 4: 0, 2: 1}, {0: 0, 4: 1, 2: 1})
    start = mask_search.initial_masks(scorer, masks.MaskConfig(kind="reverse"))
    np.testing.assert_array_equal(start, [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
    assert {kind for _, _, kind in scorer.asked} == {"reverse"}
    assert len(scorer.asked) == 3 * 3  # No mask, and two windows, of three clips.


def _effect(clip, mask, kind):
    """A score that depends on a mask through its perturbation alone, as a model's does; differs between clips."""
    frames = np.random.default_rng(clip).uniform(0, 1, len(mask))
    perturbed = perturbations.matrix(mask[None], kind)[0] @ frames
    return float(np.abs(np.diff(perturbed)).mean())


@pytest.mark.parametrize("compat", masks.COMPATS)
@pytest.mark.parametrize("kind", ["freeze", "reverse", "mean"])
def test_the_best_interval_is_what_brute_force_finds(kind, compat):
    config = masks.MaskConfig(kind=kind, compat=compat)
    found = mask_search.best_intervals(FakeScorer(_effect, num_clips=4, time=7), config)
    places = masks.intervals(7)
    assert found.intervals.shape == (4, 2) and found.scores.shape == (4, 28)
    for clip in range(4):
        scores = [_effect(clip, masks.interval_mask(*place, 7), kind) for place in places]
        inner = 2 if compat == "released" else 1

        def edges(start, stop, inner=inner):  # An interval differs from its neighbours where it begins and ends.
            return sum(1 if edge in (1, 6) else inner for edge in (start, stop) if 0 < edge < 7)

        losses = [
            0.01 * (place[1] - place[0]) + 0.02 * edges(*place) + score
            for place, score in zip(places, scores, strict=True)
        ]
        np.testing.assert_allclose(found.scores[clip], scores, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.losses[clip], min(losses), rtol=0, atol=1e-12)
        assert tuple(found.intervals[clip]) == places[int(np.argmin(losses))]
    np.testing.assert_array_equal(found.masks(7)[1], masks.interval_mask(*found.intervals[1], 7))


@pytest.mark.parametrize(
    ("kind", "effects"),
    [
        ("freeze", 1 + 6),  # Frame 0 cannot freeze: (0, n) does what (1, n) does, and (0, 1) nothing.
        ("reverse", 1 + 6),  # A frame alone is its own reversal.
        ("mean", 10),
    ],
)
def test_intervals_of_equal_effect_are_scored_once(kind, effects):
    scorer = FakeScorer(_effect, num_clips=2, time=4)
    mask_search.best_intervals(scorer, masks.MaskConfig(kind=kind))
    assert len(scorer.asked) == 2 * effects


@pytest.mark.parametrize("kind", ["freeze", "reverse", "mean"])
def test_to_preserve_the_best_interval_is_the_one_to_keep(kind):
    config = masks.MaskConfig(kind=kind, game="preserve")
    found = mask_search.best_intervals(FakeScorer(_effect, num_clips=2, time=7), config)
    places = masks.intervals(7)
    for clip in range(2):
        kept = [_effect(clip, 1 - masks.interval_mask(*place, 7), kind) for place in places]
        edges = [(start > 0) + (stop < 7) for start, stop in places]
        losses = [
            0.01 * (stop - start) + 0.02 * edge + 1 - score
            for (start, stop), edge, score in zip(places, edges, kept, strict=True)
        ]
        np.testing.assert_allclose(found.scores[clip], kept, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.losses[clip], min(losses), rtol=0, atol=1e-12)
        assert tuple(found.intervals[clip]) == places[int(np.argmin(losses))]


def test_of_equally_good_intervals_the_shortest_then_earliest_is_taken():
    config = masks.MaskConfig(lambda_1=0, lambda_2=0, kind="mean")
    scorer = FakeScorer(lambda clip, mask, kind: 0.5 * (mask.sum() < 2), time=4)
    np.testing.assert_array_equal(mask_search.best_intervals(scorer, config).intervals, [[0, 2]])


def _ends(rows):
    """What a descent returns that ends at the masks [M, T] whatever its starts; losses of row i are i, twice."""
    return np.array(rows, float), np.repeat(np.arange(len(rows), dtype=float)[:, None], 2, axis=1)


def test_a_learnt_mask_is_scored_under_either_perturbation_and_snapped():
    def score(clip, mask, kind):
        return 100 * clip + {"freeze": 10, "reverse": 20}[kind] + mask.sum()

    learnt_rows = [[0, 0.75, 0.75, 0], [1, 0.25, 1, 1]]
    scorer = FakeScorer(score, num_clips=2, time=4, descent=_ends(learnt_rows))
    config = masks.MaskConfig(kind="reverse", lambda_1=1, lambda_2=0)
    learnt = mask_search.learn_masks(scorer, config)
    np.testing.assert_array_equal(learnt.masks, learnt_rows)
    np.testing.assert_array_equal(learnt.losses, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(learnt.final_loss, [21.5 + 1.5, 123.25 + 3.25])
    expected = {
        "OS": [20, 120],
        "FS": [11.5, 113.25],
        "RS": [21.5, 123.25],
        "FS_snapped": [12, 113],
        "RS_snapped": [22, 123],
        "S": [21.5, 123.25],
    }
    assert learnt.scores.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(learnt.scores[name], values, err_msg=name)


def test_to_preserve_a_learnt_mask_is_scored_with_all_else_perturbed():
    def score(clip, mask, kind):
        return {"freeze": 0.0, "reverse": 0.5}[kind] + mask.sum() / 16

    scorer = FakeScorer(score, time=4, descent=_ends([[0.75, 0.75, 0, 0]]))
    config = masks.MaskConfig(kind="reverse", game="preserve", lambda_1=1, lambda_2=0)
    learnt = mask_search.learn_masks(scorer, config)
    np.testing.assert_array_equal(learnt.masks, [[0.75, 0.75, 0, 0]])
    expected = {"OS": 0.5, "FS": 2.5 / 16, "RS": 0.5 + 2.5 / 16, "FS_snapped": 2 / 16, "RS_snapped": 0.5 + 2 / 16}
    for name, value in (expected | {"S": expected["RS"]}).items():
        np.testing.assert_array_equal(learnt.scores[name], [value], err_msg=name)
    np.testing.assert_array_equal(learnt.final_loss, [1.5 + 1 - expected["RS"]])


def _zero_score_inside(start, stop):
    """A score that only a mask which covers start…stop - 1 takes away."""
    return lambda clip, mask, kind: float(mask[start:stop].min() < 1)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("centred", [[-5, 5, 5, 5, 5, -5]]),
        ("oracle", [[-5, -5, -5, 5, 5, -5]]),
        ("multi", [[-5, 5, 5, 5, 5, -5], [-5, -5, -5, 5, 5, -5]]),
    ],
)
def test_the_starts_are_logits_of_five(start, expected):
    rows = np.zeros((len(expected), 6))
    scorer = FakeScorer(_zero_score_inside(3, 5), descent=_ends(rows))
    mask_search.learn_masks(scorer, masks.MaskConfig(kind="mean", start=start, lambda_2=0))
    np.testing.assert_array_equal(scorer.starts, expected)
    np.testing.assert_array_equal(scorer.clips, [0] * len(expected))


@pytest.mark.parametrize(
    ("game", "frames", "first"),
    [
        ("delete", (3, 5), [0, 1, 1, 1, 1, 0]),
        ("preserve", (3, 5), [0.5] * 6),
        ("delete", (2, 4), [1, 1, 1, 1, 1, 0]),  # The window is the best interval: the best of those far from it.
    ],
)
def test_a_search_that_stops_has_two_starts(game, frames, first):
    asked, best = [], masks.interval_mask(*frames, 6)

    def gradient(clip_indices, tried):
        asked.append(tried)
        return np.ones(len(tried)), np.zeros_like(tried)

    def score(clip, mask, kind):  # To be deleted, the class is there while one of the frames is; to be preserved, all.
        inside = mask[best == 1]
        return float((inside.min() if game == "delete" else inside.max()) < 1)

    scorer = FakeScorer(score)
    scorer.gradient = gradient
    config = masks.MaskConfig(kind="mean", start="multi", stop="converged", game=game, lambda_2=0)
    mask_search.learn_masks(scorer, config)
    np.testing.assert_allclose(np.concatenate(asked)[:2], [first, best], atol=1e-4)


def test_of_two_starts_each_clip_keeps_its_better_end():
    # Rows: the centred start of clips 0 to 2, then the oracle's. The score is the last value, 1 where that is whole.
    rows = [[0.5, 0.9], [0.5, 0.1], [0.5, 0.25], [0.75, 0.2], [0.75, 0.4], [0.75, 0.25]]
    scorer = FakeScorer(
        lambda clip, mask, kind: mask[-1] if 0 < mask[-1] < 1 else 1.0, num_clips=3, time=2, descent=_ends(rows)
    )
    learnt = mask_search.learn_masks(scorer, masks.MaskConfig(kind="mean", start="multi", lambda_1=0, lambda_2=0))
    np.testing.assert_array_equal(scorer.clips, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(learnt.masks, [[0.75, 0.2], [0.5, 0.1], [0.5, 0.25]])  # Of equals the paper's.
    np.testing.assert_array_equal(learnt.final_loss, [0.2, 0.1, 0.25])
    np.testing.assert_array_equal(learnt.losses, [[3, 3], [1, 1], [2, 2]])


def test_with_several_starts_the_result_is_never_worse_than_the_oracle():
    scorer = FakeScorer(_zero_score_inside(3, 5), descent=_ends(np.full((2, 6), 0.5)))
    learnt = mask_search.learn_masks(scorer, masks.MaskConfig(kind="mean", start="multi", lambda_1=0, lambda_2=0))
    np.testing.assert_array_equal(learnt.masks, [[0, 0, 0, 1, 1, 0]])
    assert learnt.final_loss == 0 and learnt.losses.tolist() == [[1, 1]]  # The trace of the oracle's start.


def test_an_oracle_that_the_caller_has_is_not_sought_again():
    config = masks.MaskConfig(kind="mean", start="oracle")
    scorer = FakeScorer(_zero_score_inside(3, 5), descent=_ends(np.full((1, 6), 0.6)))
    oracle = mask_search.BestIntervals(np.array([[1, 2]]), np.zeros(1), np.zeros((1, 21)))
    mask_search.learn_masks(scorer, config, oracle)
    np.testing.assert_array_equal(scorer.starts, [[-5, 5, -5, -5, -5, -5]])
    assert len(scorer.asked) == 1 + 5  # The end's loss, and the scores of the result but S, which is of the same clip.


def test_targets_are_one_class_index_a_clip():
    checked = mask_search.check_clips((2, 4, 8, 8, 3), np.array([3, 0], np.int32))
    assert checked.dtype == np.int64 and checked.tolist() == [3, 0]


@pytest.mark.parametrize(
    ("shape", "targets"),
    [((2, 4), [0, 1]), ((0, 4, 8, 8, 3), []), ((2, 0, 8), [0, 1]), ((2, 4, 8), [0]), ((2, 4, 8), [0.0, 1.0])],
)
def test_other_clips_and_targets_are_refused(shape, targets):
    with pytest.raises(
        errors.UserError, match=r"Clips must be \[N, T, H, W, C\] and targets N class indices. Received: "
    ):
        mask_search.check_clips(shape, np.array(targets))
