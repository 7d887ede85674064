"""What learning a mask in either build does, on scores whose best mask is known; a build's test is a subclass."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from common import errors
from common.explaining import mask_search, masks, methods, perturbations
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig

MEMORY = pathlib.Path("/proc/self/statm")
TIME = 8
# Best intervals to freeze frame 1, 3 or 6: an edge costs 0.02, a frame 0.01, and the ends of the clip are no edges.
BEST = [(0, 2), (3, 4), (6, 8)]
SCORES = ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "S")
WRONG = r"Clips must be \[N, T, H, W, C\] and targets N class indices. Received: "


def assert_same(first, second, tolerance=0.0):
    """Compares `LearntMasks`."""
    for name in ("masks", "losses", "final_loss"):
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=0, atol=tolerance, err_msg=name, strict=True
        )
    assert tuple(first.scores) == tuple(second.scores) == SCORES
    for name in SCORES:
        np.testing.assert_allclose(
            first.scores[name], second.scores[name], rtol=0, atol=tolerance, err_msg=name, strict=True
        )


def learn(search, clips, targets):
    """Returns what a search learns on clips."""
    return mask_search.learn_masks(search.on(clips, targets), search.config)


def part(learnt, rows):
    """Returns some rows of `LearntMasks`."""
    scores = {name: values[rows] for name, values in learnt.scores.items()}
    return mask_search.LearntMasks(learnt.masks[rows], learnt.losses[rows], learnt.final_loss[rows], scores)


def jumps(*frames, dtype=np.uint8):
    """Clips that are black, and of 204 = 0.8 · 255 from one frame on: class k of `motion` is as likely as 0.8."""
    clips = np.zeros((len(frames), TIME, 2, 2, 3), dtype)
    for clip, frame in zip(clips, frames, strict=True):
        clip[frame:] = 204
    return clips


def random_clips(number, dtype=np.float64):
    """Clips [number, TIME, 8, 8, 3] of noise."""
    return np.random.default_rng(0).integers(0, 256, (number, TIME, 8, 8, 3)).astype(dtype)


def initial_mask(temporal_mask, score_fn, clips, targets, config, batch_size=0):
    """Returns where the paper's search starts, with the arguments of `best_interval` after the module."""
    scorer = temporal_mask.MaskSearch(score_fn, config, batch_size).on(clips, targets)
    return mask_search.initial_masks(scorer, config)


def loss_gradient(temporal_mask, score_fn, clips, targets, config, batch_size=0, search=None):
    """Returns Eq. 1 and its gradient at masks of 1/4, of all clips twice; arguments as of `initial_mask`."""
    scorer = (search or temporal_mask.MaskSearch(score_fn, config, batch_size)).on(clips, targets)
    return scorer.gradient(np.tile(np.arange(len(clips)), 2), np.full((2 * len(clips), TIME), 0.25))


class MaskContract:
    """The tests that both builds share.

    Attributes:
      temporal_mask: the build's module.
      tensor: array -> tensor.
      dtype: name of a dtype -> the framework's own.
      motion: clips -> probabilities [N, TIME]: class k is as likely as the mean pixel moves from frame k - 1 to k, and
        freezing frame k takes that away; class 0 has the rest.
      motion_model: () -> a model that returns `motion` of clips.
      prepared: () -> the same as a score function with `prepare`, which keeps the pixels' means of a clip and counts
        clips in `prepared`, and `perturbed`.
      otherwise_prepared: () -> such a one whose `perturbed` returns half of that.
      conv_lstm: () -> probabilities of one of the build's models, float64, for clips [N, TIME, 8, 8, 3].
      random: clips -> a number of 0.5…1.
      quarter_of_batch: clips -> N / 4.
      checks: numbers of clips with which a new search calls its score function first (None: traced).
    """

    temporal_mask: ModuleType
    tensor: Callable
    dtype: Callable
    motion: Callable
    motion_model: Callable
    prepared: Callable
    otherwise_prepared: Callable
    conv_lstm: Callable
    random: Callable
    quarter_of_batch: Callable
    checks: list

    @pytest.fixture(scope="class")
    @classmethod
    def short(cls):
        """A search of two steps on `motion`, whose graphs, where there are any, are made once."""
        return cls.temporal_mask.MaskSearch(cls.motion, MaskConfig(iterations=2))

    def test_any_callable_is_a_model(self, short):
        expected = learn(short, jumps(3, 6), [3, 6])
        for score_fn in (lambda clips: self.motion(clips), self.motion_model()):
            learnt = self.temporal_mask.learn_masks(score_fn, jumps(3, 6), [3, 6], short.config)
            assert_same(learnt, expected, tolerance=1e-6)

    @pytest.mark.parametrize(
        ("share", "when"), [("random", "from call to call"), ("quarter_of_batch", "with another clip beside")]
    )
    def test_a_score_that_depends_on_more_than_the_clip_is_refused(self, share, when):
        def score_fn(clips):
            sure = getattr(self, share)(clips)
            return self.motion(clips) * sure + (1 - sure) / TIME  # A mixture with what knows nothing.

        with pytest.raises(errors.UserError, match=f"must depend on that clip alone, .* they change by .* {when}"):
            self.temporal_mask.learn_masks(score_fn, jumps(3, 6), [3, 6], MaskConfig(iterations=2))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: p * 10 - 5, r"0…1, whose sum is 1 \(softmax of logits\). Received: -5…3, whose sum is -30"),
            (lambda p: p * np.nan, "probabilities, 0…1, .* Received: nan…nan, "),
            (lambda p: p / 2, "probabilities, 0…1, .* Received: 0…0.4, whose sum is 0.5"),
            (lambda p: p[:, 3], r"probabilities \[N, K\]. Received: \(1,\) for one clip"),
            (lambda p: p[:, :, None], r"probabilities \[N, K\]. Received: \(1, 8, 1\) for one clip"),
            (lambda p: (p, p), "probabilities .* as one tensor.* Received: tuple of tensor, tensor$"),
            (lambda p: [p], "probabilities .* as one tensor.* Received: list of tensor$"),
            (lambda p: {"logits": p, "features": p}, "probabilities .* Received: dict of logits, features$"),
            (lambda p: collections.OrderedDict(logits=p), "probabilities .* Received: OrderedDict of logits$"),
            (
                lambda p: np.full((1, TIME), 1 / TIME),
                "probabilities .* through which gradients flow .* Received: ndarray$",
            ),
            # NaN where frame 3 is frozen.
            (lambda p: p * (p[:, 3:4] / p[:, 3:4]), "Scores must be finite. Received: nan in row [13]"),
        ],
    )
    @pytest.mark.parametrize("method", ["learn_masks", "best_interval"])
    def test_what_is_not_probabilities_is_refused(self, method, change, message):
        with pytest.raises(errors.UserError, match=message):
            getattr(self.temporal_mask, method)(
                lambda clips: change(self.motion(clips)), jumps(3), [3], MaskConfig(iterations=2)
            )

    def test_a_slope_that_is_not_finite_is_refused(self):
        def root(clips):
            p = self.motion(clips)
            return p + 0 * p**0.5  # Where nothing moves, the root's slope has no value.

        with pytest.raises(errors.UserError, match="Losses must be finite. Received: nan in row 0"):
            self.temporal_mask.learn_masks(root, jumps(3), [3], MaskConfig(iterations=2))
        with pytest.raises(errors.UserError, match="Gradients must be finite. Received: nan in row 0"):
            self.temporal_mask.learn_masks(root, jumps(3), [3], MaskConfig(stop="converged"))
        scorer = self.temporal_mask.MaskSearch(root, MaskConfig()).on(jumps(3), [3])
        subject = methods.Subject(scorer, jumps(3), maps=lambda: None)
        with pytest.raises(errors.UserError, match="Gradients must be finite. Received: nan in row 0"):
            methods.gradient(subject, MethodConfig())

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ([8], "Targets must be classes 0…7. Received: 8…8"),
            ([-1], "Targets must be classes 0…7. Received: -1…-1"),
            ([3, 3], WRONG + r"\(1, 8, 2, 2, 3\) and int64 \(2,\)"),
            ([3.0], WRONG + r"\(1, 8, 2, 2, 3\) and float64 \(1,\)"),
            (3, WRONG + r"\(1, 8, 2, 2, 3\) and int64 \(\)"),
        ],
    )
    def test_what_is_not_a_target_for_each_clip_is_refused(self, targets, message):
        with pytest.raises(errors.UserError, match=message):
            self.temporal_mask.learn_masks(self.motion, jumps(3), targets, MaskConfig(iterations=2))

    @pytest.mark.parametrize("kind", perturbations.KINDS)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_perturb_is_the_numpy_reference(self, kind, dtype):
        stream = np.random.default_rng(0)
        clips, mask = stream.integers(0, 256, (3, 5, 2, 3, 3), np.uint8), stream.uniform(size=(3, 5)).astype(dtype)
        perturbed = self.temporal_mask.perturb(self.tensor(clips), self.tensor(mask), kind).numpy()
        limit = 1e-4 if dtype == "float32" else 1e-11
        np.testing.assert_allclose(perturbed, perturbations.perturb(clips, mask, kind), rtol=0, atol=limit, strict=True)

    def test_the_loss_by_hand(self):
        config = MaskConfig(lambda_1=0.25, lambda_2=0.5, beta=2)
        # 0.25 · 1.5 + 0.5 · (1 + 1/4 + 1/4) + 0.125.
        loss = self.temporal_mask.mask_loss(
            self.tensor(np.array([0.125], np.float32)), self.tensor(np.array([[0, 1, 0.5, 0]], np.float32)), config
        )
        np.testing.assert_array_equal(loss, [1.25])

    def test_one_step_of_adam_by_hand(self):
        """The first window is of frames 3 and 4. With m = s in it and 1 - s outside, F_c = 0.8 (1 - m_3)."""
        learnt = self.temporal_mask.learn_masks(
            self.motion, jumps(3, dtype=np.float64), np.array([3]), MaskConfig(iterations=1)
        )
        s = 1 / (1 + np.exp(-5))
        edge = 2 * s - 1  # |m_3 - m_2| = |m_5 - m_4|, the two differences that are not 0.
        np.testing.assert_allclose(
            learnt.losses, [[0.01 * (2 * s + 6 * (1 - s)) + 0.02 * 2 * edge**3 + 0.8 * (1 - s)]], atol=1e-12
        )
        slope = 0.02 * 3 * edge**2
        in_mask = np.array([0, 0, -slope, slope - 0.8, slope, -slope, 0, 0]) + 0.01
        gradient = in_mask * s * (1 - s)
        # Corrected for their bias, mean and square are the gradient and its square in step 1.
        logits = np.array([-5, -5, -5, 5, 5, -5, -5, -5]) - 0.2 * gradient / (abs(gradient) + 1e-8)
        mask = 1 / (1 + np.exp(-logits))
        np.testing.assert_allclose(learnt.masks, [mask], rtol=0, atol=1e-12)
        np.testing.assert_allclose(learnt.scores["FS"], [0.8 * (1 - mask[3])], rtol=0, atol=1e-12)
        loss = masks.mask_loss(0.8 * (1 - mask[3:4]), mask[None], MaskConfig())
        np.testing.assert_allclose(learnt.final_loss, loss, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        ("start", "first"),
        [
            # The smallest window around the middle that has the frame, or the best interval.
            ("centred", [(1, 7), (3, 5), (1, 7)]),
            ("oracle", BEST),
            ("multi", None),  # Either.
        ],
    )
    def test_the_search_finds_the_frame_with_the_evidence(self, start, first):
        frames, steps = np.array([1, 3, 6]), []
        config = MaskConfig(start=start)
        search = self.temporal_mask.MaskSearch(self.motion, config, on_step=steps.append)
        learnt = learn(search, jumps(*frames), frames)
        np.testing.assert_array_equal(masks.snap(learnt.masks), [masks.interval_mask(*place, TIME) for place in BEST])
        assert learnt.masks.shape == (3, TIME) and learnt.losses.shape == (3, 300)
        assert sum(steps) == 3 * 300 * (2 if start == "multi" else 1)
        np.testing.assert_allclose(learnt.scores["OS"], 0.8, rtol=1e-6)
        assert learnt.scores["FS"].max() < 0.01 and learnt.scores["FS_snapped"].max() == 0
        np.testing.assert_array_equal(learnt.scores["S"], learnt.scores["FS"])
        # A run of one frame is its own reversal, frames 6 and 7 are equal, and frames 0 and 1 jump back.
        np.testing.assert_allclose(learnt.scores["RS_snapped"], [0.8, 0.8, 0.8], rtol=1e-6)
        np.testing.assert_allclose(
            learnt.final_loss, masks.mask_loss(learnt.scores["FS"], learnt.masks, config), atol=1e-6
        )
        # A soft edge varies less than one of ones and zeros.
        assert (
            learnt.final_loss
            < mask_search.best_intervals(search.on(jumps(*frames), frames), search.config).losses - 0.01
        ).all()
        assert (learnt.losses[:, -1] < learnt.losses[:, 0]).all()
        if first:
            soft = np.stack([masks.interval_mask(*place, TIME) for place in first]) * 10 - 5
            soft = 1 / (1 + np.exp(-soft))
            scores = perturbations.perturb(jumps(*frames), soft, "freeze")[..., 0, 0, 0]
            scores = abs(scores[range(3), frames] - scores[range(3), frames - 1]) / 255
            np.testing.assert_allclose(learnt.losses[:, 0], masks.mask_loss(scores, soft, config), atol=1e-6)

    def test_the_first_mask_and_the_oracle(self):
        frames = np.array([1, 3, 6])
        first = initial_mask(self.temporal_mask, self.motion, jumps(*frames), frames, MaskConfig(), batch_size=2)
        windows = [(1, 7), (3, 5), (1, 7)]
        np.testing.assert_array_equal(first, [masks.interval_mask(*window, TIME) for window in windows])
        found = self.temporal_mask.best_interval(self.motion, jumps(*frames), frames, MaskConfig(), batch_size=2)
        np.testing.assert_array_equal(found.intervals, BEST)
        np.testing.assert_allclose(found.losses, [0.04, 0.05, 0.04], rtol=1e-6)
        # Every interval that has the frame takes all of the score, and every other one nothing.
        expected = [[0.8 * (not start <= frame < stop) for start, stop in masks.intervals(TIME)] for frame in frames]
        np.testing.assert_allclose(found.scores, expected, atol=1e-6)

    def check_a_clip_does_not_see_its_batch(self, kind):
        clips, targets = random_clips(5), np.array([0, 1, 2, 3, 0])
        config = MaskConfig(kind=kind, iterations=20, start="multi")
        search = self.temporal_mask.MaskSearch(self.conv_lstm(), config)
        together = learn(search, clips, targets)
        assert np.ptp(together.masks, axis=0).max() > 0.01
        search.batch_size = 2
        assert_same(learn(search, clips, targets), together, tolerance=1e-5)
        for row in range(5):
            rows = slice(row, row + 1)
            assert_same(learn(search, clips[rows], targets[rows]), part(together, rows), tolerance=1e-5)

    def test_the_gradient_by_hand(self):
        """With m = 1/4 everywhere F_c = 0.8 (1 - m_k): each frame costs lambda_1, and frame k saves 0.8."""
        losses, gradients = loss_gradient(
            self.temporal_mask, self.motion, jumps(3, 6, dtype=np.float64), [3, 6], MaskConfig(), batch_size=1
        )
        np.testing.assert_allclose(losses, [0.01 * 8 / 4 + 0.8 * 3 / 4] * 4, rtol=0, atol=1e-12)
        expected = np.full((4, TIME), 0.01)
        expected[range(4), [3, 6, 3, 6]] -= 0.8
        np.testing.assert_allclose(gradients, expected, rtol=0, atol=1e-12)

    def test_to_preserve_the_gradient_by_hand(self):
        """With m = 1/4 of each frame kept everywhere F_c = 0.8 m_k."""
        config, clips = MaskConfig(game="preserve"), jumps(3, 6, dtype=np.float64)
        losses, gradients = loss_gradient(self.temporal_mask, self.motion, clips, [3, 6], config)
        np.testing.assert_allclose(losses, [0.01 * 8 / 4 + 1 - 0.8 / 4] * 4, rtol=0, atol=1e-12)
        expected = np.full((4, TIME), 0.01)
        expected[range(4), [3, 6, 3, 6]] -= 0.8
        np.testing.assert_allclose(gradients, expected, rtol=0, atol=1e-12)

    def test_to_preserve_the_search_keeps_the_frame_with_the_evidence(self):
        frames, config = np.array([1, 3, 6]), MaskConfig(game="preserve")
        search = self.temporal_mask.MaskSearch(self.motion, config)
        learnt = learn(search, jumps(*frames), frames)
        np.testing.assert_array_equal(masks.snap(learnt.masks), [masks.interval_mask(*place, TIME) for place in BEST])
        assert learnt.scores["FS_snapped"].min() > 0.799 and learnt.scores["FS"].min() > 0.75
        assert (learnt.losses[:, -1] < learnt.losses[:, 0]).all()
        found = mask_search.best_intervals(search.on(jumps(*frames), frames), config)
        np.testing.assert_array_equal(found.intervals, BEST)
        np.testing.assert_allclose(found.losses, [0.2 + 0.04, 0.2 + 0.05, 0.2 + 0.04], rtol=1e-6)

    @pytest.mark.parametrize("game", masks.GAMES)
    def test_a_search_that_stops_is_as_low_after_a_few_evaluations(self, game):
        frames, config = np.array([1, 3, 6, 3]), MaskConfig(start="oracle", game=game, iterations=100)
        adam = learn(self.temporal_mask.MaskSearch(self.motion, config), jumps(*frames), frames)
        search = self.temporal_mask.MaskSearch(self.motion, dataclasses.replace(config, stop="converged"))
        found = learn(search, jumps(*frames), frames)
        assert (found.final_loss <= 1.001 * adam.final_loss).all() and found.losses.shape == adam.losses.shape
        evaluations = np.isfinite(found.losses).sum(axis=1)
        assert evaluations.min() > 1 and evaluations.max() <= 40
        last = found.losses[range(4), evaluations - 1]
        np.testing.assert_allclose(last, found.final_loss, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(masks.snap(found.masks), masks.snap(adam.masks))

    @pytest.mark.parametrize("game", masks.GAMES)
    def test_hard_masks_and_masks_of_a_given_number_of_frames(self, game):
        frames = np.array([1, 3, 6])
        for area, expected in ((0, BEST), (2, [(0, 2), (2, 4), (6, 8)])):  # Of equals the earliest.
            config = MaskConfig(form="hard", area=area, game=game, oracle="coarse")
            found = learn(self.temporal_mask.MaskSearch(self.motion, config), jumps(*frames), frames)
            np.testing.assert_array_equal(found.masks, [masks.interval_mask(*place, TIME) for place in expected])
            np.testing.assert_array_equal(found.scores["FS"], found.scores["FS_snapped"])

    def test_a_model_that_scores_prepared_clips_otherwise_is_refused(self):
        with pytest.raises(errors.UserError, match="Received: 0.4 for the identity, 0.8 for the clip"):
            self.temporal_mask.learn_masks(self.otherwise_prepared(), jumps(3), [3], MaskConfig(iterations=2))

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_what_all_masks_of_a_clip_share_is_prepared_once(self, batch_size):
        model = self.prepared()
        targets = np.array([2, 5])
        search = self.temporal_mask.MaskSearch(model, MaskConfig(iterations=3), batch_size)
        found = mask_search.best_intervals(search.on(jumps(*targets), targets), search.config)
        assert int(model.prepared) == 2
        expected = self.temporal_mask.best_interval(self.motion, jumps(*targets), targets, MaskConfig(iterations=3))
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        np.testing.assert_array_equal(found.intervals, expected.intervals)

    def test_pixels_of_any_dtype_give_the_same(self, short):
        learnt = [learn(short, random_clips(2, dtype), [3, 1]) for dtype in (np.uint8, np.int32, np.float32)]
        assert_same(learnt[0], learnt[1])
        assert_same(learnt[0], learnt[2])

    def test_clips_may_be_tensors(self, short):
        assert_same(learn(short, self.tensor(jumps(3, 6)), [3, 6]), learn(short, jumps(3, 6), [3, 6]))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_search_computes_in_float64_where_the_clips_are(self, dtype):
        received = set()

        def score_fn(clips):
            received.add(clips.dtype)
            return self.motion(clips)

        learnt = self.temporal_mask.learn_masks(score_fn, jumps(3, dtype=dtype), [3], MaskConfig(iterations=2))
        assert received == {self.dtype(dtype)}
        assert learnt.masks.dtype == learnt.losses.dtype == np.float64
        assert np.array_equal(learnt.masks, learnt.masks.astype(np.float32)) == (dtype == "float32")

    def test_targets_may_be_any_integers_in_any_container(self, short):
        results = [
            learn(short, jumps(3, 6), targets)
            for targets in ([3, 6], (3, 6), np.array([3, 6], np.uint8), self.tensor(np.array([3, 6])))
        ]
        for result in results[1:]:
            assert_same(result, results[0])

    def test_the_model_is_checked_once_a_search(self):
        calls = []

        def score_fn(clips):
            calls.append(clips.shape[0])
            return self.motion(clips)

        search = self.temporal_mask.MaskSearch(score_fn, MaskConfig(iterations=2))
        for expected in (self.checks, []):
            calls.clear()
            search.on(jumps(3, 6), [3, 6])
            assert calls == expected
        with pytest.raises(errors.UserError, match="Targets must be classes 0…7. Received: 3…8"):
            search.on(jumps(3, 6), [3, 8])

    @pytest.mark.parametrize(("oracle", "most"), [("full", 1), ("coarse", 12)])
    def test_masks_of_one_small_clip_are_scored_together_by_the_coarse_oracle(self, oracle, most):
        search = self.temporal_mask.MaskSearch(self.prepared(), MaskConfig(kind="mean", oracle=oracle))
        scorer, asked = search.on(jumps(3), [3]), []
        score, scorer._score = scorer._score, lambda clips, matrices: asked.append(len(clips)) or score(clips, matrices)
        mask_search.best_intervals(scorer, search.config)
        assert max(asked) == most

    @pytest.mark.parametrize("shape", [(0, 8, 2, 2, 3), (1, 0, 2, 2, 3), (1, 8)])
    def test_clips_of_another_shape_are_refused(self, shape):
        with pytest.raises(errors.UserError, match=WRONG):
            self.temporal_mask.learn_masks(self.motion, np.zeros(shape), [3] * shape[0], MaskConfig(iterations=2))


def check_memory_does_not_grow(search: Callable[[], object], times: int, most: int) -> None:
    """Asserts that many searches leave fewer than `most` bytes behind, but for pages of files, which come and go."""

    def own_bytes() -> int:
        _, resident, shared, *_ = map(int, MEMORY.read_text().split())
        return (resident - shared) * 4096

    growth = []
    for _ in range(3):  # What is lost is lost each time; the allocator takes a new arena once.
        before = own_bytes()
        for _ in range(times):
            search()
        growth.append(own_bytes() - before)
        if growth[-1] < most:
            break
    assert growth[-1] < most, growth
