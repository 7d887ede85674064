"""The search on scores whose best mask is known, and what it may not do to a model, to other clips, or to memory."""

import dataclasses
import gc
import pathlib
import weakref

import numpy as np
import pytest

from common import errors
from common.explaining import mask_search, masks, perturbations
from common.explaining.masks import MaskConfig
from common.models import configs
from tf_impl import temporal_mask, weights

# isort: split
import keras
import tensorflow as tf

_TIME = 8
_MEMORY = pathlib.Path("/proc/self/statm")
# Best intervals to freeze frame 1, 3 or 6: an edge costs 0.02, a frame 0.01, and the ends of the clip are no edges.
_BEST = [(0, 2), (3, 4), (6, 8)]
_SCORES = ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "S")


def _motion(clips):
    """Probability of class k is how far the mean pixel moves from frame k - 1 to k: freezing frame k takes it away."""
    pixels = tf.reduce_mean(clips, (2, 3, 4))
    return tf.pad(abs(pixels[:, 1:] - pixels[:, :-1]), [(0, 0), (1, 0)]) / 255


class Motion(keras.Model):
    def call(self, clips):
        return _motion(clips)


def _jumps(*frames, dtype=np.uint8):
    """Clips that are black, and of 204 = 0.8 · 255 from one frame on: class k of `_motion` is as likely as 0.8."""
    clips = np.zeros((len(frames), _TIME, 2, 2, 3), dtype)
    for clip, frame in zip(clips, frames, strict=True):
        clip[frame:] = 204
    return clips


@pytest.fixture(scope="module")
def model():
    config = configs.ConvLSTMConfig(4, (_TIME, 8, 8), num_layers=1, filters=3)
    return weights.build_model(config, "float64")


@pytest.fixture(scope="module")
def short():
    """A search of two steps on `_motion`, whose graphs are made once."""
    return temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))


def _random_clips(number, dtype=np.float64):
    return np.random.default_rng(0).integers(0, 256, (number, _TIME, 8, 8, 3)).astype(dtype)


def assert_same(first, second, tolerance=0.0):
    """Compares `LearntMasks`."""
    for name in ("masks", "losses", "final_loss"):
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=0, atol=tolerance, err_msg=name, strict=True
        )
    assert tuple(first.scores) == tuple(second.scores) == _SCORES
    for name in _SCORES:
        np.testing.assert_allclose(
            first.scores[name], second.scores[name], rtol=0, atol=tolerance, err_msg=name, strict=True
        )


def learn(search, clips, targets):
    """Returns what a search learns on clips."""
    return mask_search.learn_masks(search.on(clips, targets), search.config)


def initial_mask(score_fn, clips, targets, config, batch_size=0):
    """Returns where the paper's search starts, with the arguments of `temporal_mask.best_interval`."""
    scorer = temporal_mask.MaskSearch(score_fn, config, batch_size).on(clips, targets)
    return mask_search.initial_masks(scorer, config)


def loss_gradient(score_fn, clips, targets, config, batch_size=0, search=None):
    """Returns Eq. 1 and its gradient at masks of 1/4, of all clips twice; arguments as of `best_interval`."""
    scorer = (search or temporal_mask.MaskSearch(score_fn, config, batch_size)).on(clips, targets)
    return scorer.gradient(np.tile(np.arange(len(clips)), 2), np.full((2 * len(clips), _TIME), 0.25))


def part(learnt, rows):
    """Returns some rows of `LearntMasks`."""
    scores = {name: values[rows] for name, values in learnt.scores.items()}
    return mask_search.LearntMasks(learnt.masks[rows], learnt.losses[rows], learnt.final_loss[rows], scores)


@pytest.mark.parametrize("kind", perturbations.KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_perturb_is_the_numpy_reference(kind, dtype):
    stream = np.random.default_rng(0)
    clips, mask = stream.integers(0, 256, (3, 5, 2, 3, 3), np.uint8), stream.uniform(size=(3, 5)).astype(dtype)
    perturbed = temporal_mask.perturb(clips, mask, kind).numpy()
    limit = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(perturbed, perturbations.perturb(clips, mask, kind), rtol=0, atol=limit, strict=True)


def test_freeze_and_its_gradient_by_hand():
    clips = np.array([10, 30, 70, 90], np.uint8).reshape(1, 4, 1, 1, 1)
    mask = tf.constant([[0, 0.5, 0.5, 0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(mask)
        perturbed = tf.reshape(temporal_mask.perturb(clips, mask, "freeze"), -1)
        total = tf.reduce_sum(perturbed * [1, 2, 3, 4])
    np.testing.assert_array_equal(perturbed, [10, 20, 45, 90])
    # p_1 falls by 30 - 10 = 20 a unit of m_1, p_2 by half of that; p_2 by 70 - 20 = 50 a unit of m_2, p_3 by 90 - 45 of
    # m_3; nothing is before frame 0. The sum counts p_t t + 1 times.
    np.testing.assert_array_equal(tape.gradient(total, mask), [[0, -2 * 20 - 3 * 10, -3 * 50, -4 * 45]])


def test_the_loss_by_hand():
    config = MaskConfig(lambda_1=0.25, lambda_2=0.5, beta=2)
    # 0.25 · 1.5 + 0.5 · (1 + 1/4 + 1/4) + 0.125.
    loss = temporal_mask.mask_loss(tf.constant([0.125]), tf.constant([[0, 1, 0.5, 0]]), config)
    np.testing.assert_array_equal(loss, [1.25])


def test_one_step_of_adam_by_hand():
    """The first window is of frames 3 and 4. With m = s in it and 1 - s outside, F_c = 0.8 (1 - m_3)."""
    learnt = temporal_mask.learn_masks(_motion, _jumps(3, dtype=np.float64), np.array([3]), MaskConfig(iterations=1))
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
        ("oracle", _BEST),
        ("multi", None),  # Either.
    ],
)
def test_the_search_finds_the_frame_with_the_evidence(start, first):
    frames, steps = np.array([1, 3, 6]), []
    config = MaskConfig(start=start)
    search = temporal_mask.MaskSearch(_motion, config, on_step=steps.append)
    learnt = learn(search, _jumps(*frames), frames)
    np.testing.assert_array_equal(masks.snap(learnt.masks), [masks.interval_mask(*place, _TIME) for place in _BEST])
    assert learnt.masks.shape == (3, _TIME) and learnt.losses.shape == (3, 300)
    assert sum(steps) == 3 * 300 * (2 if start == "multi" else 1)
    np.testing.assert_allclose(learnt.scores["OS"], 0.8, rtol=1e-6)
    assert learnt.scores["FS"].max() < 0.01 and learnt.scores["FS_snapped"].max() == 0
    np.testing.assert_array_equal(learnt.scores["S"], learnt.scores["FS"])
    # A run of one frame is its own reversal, frames 6 and 7 are equal, and frames 0 and 1 jump back.
    np.testing.assert_allclose(learnt.scores["RS_snapped"], [0.8, 0.8, 0.8], rtol=1e-6)
    np.testing.assert_allclose(learnt.final_loss, masks.mask_loss(learnt.scores["FS"], learnt.masks, config), atol=1e-6)
    # A soft edge varies less than one of ones and zeros.
    assert (
        learnt.final_loss < mask_search.best_intervals(search.on(_jumps(*frames), frames), search.config).losses - 0.01
    ).all()
    assert (learnt.losses[:, -1] < learnt.losses[:, 0]).all()
    if first:
        soft = np.stack([masks.interval_mask(*place, _TIME) for place in first]) * 10 - 5
        soft = 1 / (1 + np.exp(-soft))
        scores = perturbations.perturb(_jumps(*frames), soft, "freeze")[..., 0, 0, 0]
        scores = abs(scores[range(3), frames] - scores[range(3), frames - 1]) / 255
        np.testing.assert_allclose(learnt.losses[:, 0], masks.mask_loss(scores, soft, config), atol=1e-6)


def test_the_first_mask_and_the_oracle():
    frames = np.array([1, 3, 6])
    first = initial_mask(_motion, _jumps(*frames), frames, MaskConfig(), batch_size=2)
    windows = [(1, 7), (3, 5), (1, 7)]
    np.testing.assert_array_equal(first, [masks.interval_mask(*window, _TIME) for window in windows])
    found = temporal_mask.best_interval(_motion, _jumps(*frames), frames, MaskConfig(), batch_size=2)
    np.testing.assert_array_equal(found.intervals, _BEST)
    np.testing.assert_allclose(found.losses, [0.04, 0.05, 0.04], rtol=1e-6)
    # Every interval that has the frame takes all of the score, and every other one nothing.
    expected = [[0.8 * (not start <= frame < stop) for start, stop in masks.intervals(_TIME)] for frame in frames]
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["reverse"])  # A graph takes seconds to make, so not both.
def test_a_clip_does_not_see_its_batch(model, kind):
    clips, targets = _random_clips(5), np.array([0, 1, 2, 3, 0])
    config = MaskConfig(kind=kind, iterations=20, start="multi")
    search = temporal_mask.MaskSearch(lambda clips: tf.nn.softmax(model(clips)), config)
    together = learn(search, clips, targets)
    assert np.ptp(together.masks, axis=0).max() > 0.01
    search.batch_size = 2
    assert_same(learn(search, clips, targets), together, tolerance=1e-5)
    for row in range(5):
        rows = slice(row, row + 1)
        assert_same(learn(search, clips[rows], targets[rows]), part(together, rows), tolerance=1e-5)


def test_to_preserve_the_gradient_by_hand():
    """With m = 1/4 of a frame kept everywhere F_c = 0.8 m_k."""
    config = MaskConfig(game="preserve")
    losses, gradients = loss_gradient(_motion, _jumps(3, 6, dtype=np.float64), [3, 6], config)
    np.testing.assert_allclose(losses, [0.01 * 8 / 4 + 1 - 0.8 / 4] * 4, rtol=0, atol=1e-12)
    expected = np.full((4, _TIME), 0.01)
    expected[range(4), [3, 6, 3, 6]] -= 0.8
    np.testing.assert_allclose(gradients, expected, rtol=0, atol=1e-12)


def test_to_preserve_the_search_keeps_the_frame_with_the_evidence():
    frames, config = np.array([1, 3, 6]), MaskConfig(game="preserve")
    search = temporal_mask.MaskSearch(_motion, config)
    learnt = learn(search, _jumps(*frames), frames)
    np.testing.assert_array_equal(masks.snap(learnt.masks), [masks.interval_mask(*place, _TIME) for place in _BEST])
    assert learnt.scores["FS_snapped"].min() > 0.799 and learnt.scores["FS"].min() > 0.75
    assert (learnt.losses[:, -1] < learnt.losses[:, 0]).all()
    found = mask_search.best_intervals(search.on(_jumps(*frames), frames), config)
    np.testing.assert_array_equal(found.intervals, _BEST)
    np.testing.assert_allclose(found.losses, [0.2 + 0.04, 0.2 + 0.05, 0.2 + 0.04], rtol=1e-6)


@pytest.mark.parametrize("game", masks.GAMES)
def test_a_search_that_stops_is_as_low_after_a_few_evaluations(game):
    frames, config = np.array([1, 3, 6, 3]), MaskConfig(start="oracle", game=game, iterations=100)
    search = temporal_mask.MaskSearch(_motion, config)
    adam = learn(search, _jumps(*frames), frames)
    search = temporal_mask.MaskSearch(_motion, dataclasses.replace(config, stop="converged"))
    found = learn(search, _jumps(*frames), frames)
    assert (found.final_loss <= 1.001 * adam.final_loss).all() and found.losses.shape == adam.losses.shape
    evaluations = np.isfinite(found.losses).sum(axis=1)
    assert 1 < evaluations.min() and evaluations.max() <= 40
    last = found.losses[range(4), evaluations - 1]
    np.testing.assert_allclose(last, found.final_loss, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(masks.snap(found.masks), masks.snap(adam.masks))


@pytest.mark.parametrize("game", masks.GAMES)
def test_hard_masks_and_masks_of_a_given_number_of_frames(game):
    frames = np.array([1, 3, 6])
    for area, expected in ((0, _BEST), (2, [(0, 2), (2, 4), (6, 8)])):  # Of equals the earliest.
        config = MaskConfig(form="hard", area=area, game=game, oracle="coarse")
        found = learn(temporal_mask.MaskSearch(_motion, config), _jumps(*frames), frames)
        np.testing.assert_array_equal(found.masks, [masks.interval_mask(*place, _TIME) for place in expected])
        np.testing.assert_array_equal(found.scores["FS"], found.scores["FS_snapped"])


class _Prepared:
    """Keeps the pixels' means of a clip, which is all that it looks at."""

    def __init__(self):
        self.prepared = tf.Variable(0)

    def __call__(self, clips):
        return _motion(clips)

    def prepare(self, clips):
        self.prepared.assign_add(tf.shape(clips)[0])
        return tf.reduce_mean(tf.cast(clips, tf.float32), (2, 3, 4))

    def perturbed(self, prepared, matrix):
        return _motion((matrix @ prepared[:, :, None])[..., None, None])


class _OtherwisePrepared(_Prepared):
    def perturbed(self, prepared, matrix):
        return super().perturbed(prepared, matrix) / 2


def test_a_model_that_scores_prepared_clips_otherwise_is_refused():
    with pytest.raises(errors.UserError, match="Received: 0.4 for the identity, 0.8 for the clip"):
        temporal_mask.learn_masks(_OtherwisePrepared(), _jumps(3), [3], MaskConfig(iterations=2))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_all_masks_of_a_clip_share_is_prepared_once(batch_size):
    model = _Prepared()
    targets = np.array([2, 5])
    search = temporal_mask.MaskSearch(model, MaskConfig(iterations=3), batch_size)
    found = mask_search.best_intervals(search.on(_jumps(*targets), targets), search.config)
    assert model.prepared.numpy() == 2
    expected = temporal_mask.best_interval(_motion, _jumps(*targets), targets, MaskConfig(iterations=3))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(found.intervals, expected.intervals)


def test_pixels_of_any_dtype_give_the_same(short):
    learnt = [learn(short, _random_clips(2, dtype), [3, 1]) for dtype in (np.uint8, np.float32)]
    assert_same(learnt[0], learnt[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_search_computes_in_float64_where_the_clips_are(dtype):
    received = set()

    def score_fn(clips):
        received.add(clips.dtype)
        return _motion(clips)

    learnt = temporal_mask.learn_masks(score_fn, _jumps(3, dtype=dtype), [3], MaskConfig(iterations=2))
    assert received == {getattr(tf, dtype)}
    assert learnt.masks.dtype == learnt.losses.dtype == np.float64
    assert np.array_equal(learnt.masks, learnt.masks.astype(np.float32)) == (dtype == "float32")


def test_any_callable_is_a_model(short):
    expected = learn(short, _jumps(3, 6), [3, 6])
    for score_fn in (lambda clips: _motion(clips), Motion()):
        learnt = temporal_mask.learn_masks(score_fn, _jumps(3, 6), [3, 6], short.config)
        assert_same(learnt, expected, tolerance=1e-6)


def test_targets_may_be_any_integers_in_any_container(short):
    results = [
        learn(short, _jumps(3, 6), targets)
        for targets in ([3, 6], (3, 6), np.array([3, 6], np.uint8), tf.constant([3, 6]))
    ]
    for result in results[1:]:
        assert_same(result, results[0])


def _trained():
    """A model in which all that a search could change is: running statistics, and the state of random numbers."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv3D(4, 3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling3D(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((_TIME, 8, 8, 3)), *layers])
    model.layers[2].trainable = False
    return model


def _state(model):
    return (
        [layer.trainable for layer in model.layers],
        [np.array(tf.convert_to_tensor(variable)).tolist() for variable in model.variables],
        np.random.get_state()[1].tolist(),
    )


@pytest.mark.parametrize("method", [temporal_mask.learn_masks, temporal_mask.best_interval, loss_gradient])
def test_a_model_is_as_it_was(method):
    model = _trained()
    before = _state(model)
    assert len(before[1]) == 2 + 4 + 1 + 2  # Convolution, batch norm, dropout's random numbers, dense.
    method(model, _random_clips(3, np.uint8), [0, 1, 2], MaskConfig(iterations=3), 3)
    assert _state(model) == before


def _noise(clips):
    return _motion(clips) * tf.random.uniform((), 0.5, 1.0)


def _by_batch(clips):
    return _motion(clips) * tf.cast(tf.shape(clips)[0], tf.float32) / 4


@pytest.mark.parametrize(("score_fn", "when"), [(_noise, "from call to call"), (_by_batch, "with another clip beside")])
def test_a_score_that_depends_on_more_than_the_clip_is_refused(score_fn, when):
    with pytest.raises(errors.UserError, match=f"must depend on that clip alone, .* they change by .* {when}"):
        temporal_mask.learn_masks(score_fn, _jumps(3, 6), [3, 6], MaskConfig(iterations=2))


def test_a_model_in_training_mode_is_refused_and_left_as_it_was():
    model = _trained()
    model.layers[2].trainable = True
    before = _state(model)
    for search in (temporal_mask.learn_masks, temporal_mask.best_interval):
        with pytest.raises(errors.UserError, match=r"must not change its variables .*training=False.* in \d+ places"):
            search(lambda clips: model(clips, training=True), _random_clips(2, np.uint8), [0, 1], MaskConfig())
    assert _state(model) == before


def test_the_model_is_checked_once_a_search():
    calls = []

    def score_fn(clips):
        calls.append(clips.shape[0])
        return _motion(clips)

    search = temporal_mask.MaskSearch(score_fn, MaskConfig(iterations=2))
    for expected in ([None, 1, 1, 2], [1]):  # None: traced.
        calls.clear()
        search.on(_jumps(3, 6), [3, 6])
        assert calls == expected


@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_search_in_which_the_model_failed_can_be_used_again(short, fails_at):
    calls = []

    def score_fn(clips):  # Called to trace it, to check it, and to trace other graphs.
        calls.append(clips)
        if len(calls) == fails_at:
            raise ZeroDivisionError
        return _motion(clips)

    search = temporal_mask.MaskSearch(score_fn, MaskConfig(iterations=2))
    with pytest.raises(ZeroDivisionError):
        learn(search, _jumps(3), [3])
    assert_same(learn(search, _jumps(3), [3]), learn(short, _jumps(3), [3]))


def test_a_model_may_make_its_weights_in_its_first_call():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")])
    assert not model.built
    learnt = temporal_mask.learn_masks(model, _jumps(3), [3], MaskConfig(iterations=2))
    np.testing.assert_allclose(learnt.scores["OS"], model(_jumps(3, dtype=np.float32))[:, 3], rtol=1e-6)


def test_one_trace_serves_batches_of_all_sizes():
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    traces = search.traced(tf.constant(_jumps(3)), tf.float32)
    for frames in ([3], [3, 5, 6], [1, 2], [3, 5, 6, 1, 1]):
        loss_gradient(_motion, _jumps(*frames), frames, search.config, search=search)
        mask_search.best_intervals(search.on(_jumps(*frames), frames), search.config)
        learn(search, _jumps(*frames), frames)
        assert search.traced(tf.constant(_jumps(3)), tf.float32) is traces
    assert [trace.experimental_get_tracing_count() for trace in traces] == [1] * len(traces)
    learn(search, _jumps(3, 5, dtype=np.float64), [3, 5])
    loss_gradient(_motion, _jumps(3, 5, dtype=np.float64), [3, 5], search.config, search=search)
    other = search.traced(tf.constant(_jumps(3, dtype=np.float64)), tf.float64)
    assert [trace.experimental_get_tracing_count() for trace in traces + other] == [1] * 2 * len(traces)


def _resident_bytes():
    return int(_MEMORY.read_text().split()[1]) * 4096


@pytest.mark.skipif(not _MEMORY.exists(), reason="Memory in use is read from Linux' /proc.")
def test_memory_does_not_grow():
    clips = np.zeros((2, _TIME, 48, 48, 3), np.float32)  # 442 kB: 60 of them are 26 MB.
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    for _ in range(10):
        learn(search, clips, [1, 2])
    resident = _resident_bytes()
    for _ in range(60):
        learn(search, clips, [1, 2])
    assert _resident_bytes() - resident < 8 << 20


def test_a_search_takes_its_graphs_with_it():
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    learn(search, _jumps(3), [3])
    graphs = [weakref.ref(graph) for graph in search.traced(tf.constant(_jumps(3)), tf.float32)]
    del search
    gc.collect()
    assert graphs and not any(graph() for graph in graphs)


def _logits(clips):
    return _motion(clips) * 10 - 5


def _nan_when_perturbed(clips):
    return tf.where(tf.reduce_sum(clips, (1, 2, 3, 4))[:, None] < 5 * 204 * 12, np.nan, _motion(clips))


@tf.custom_gradient
def _nan_gradient(clips):
    return _motion(clips), lambda upstream: clips * np.nan


_WRONG = "Clips must be \\[N, T, H, W, C\\] and targets N class indices. Received: "


@pytest.mark.parametrize(
    ("score_fn", "frames", "targets", "message"),
    [
        (_logits, 3, [3], r"probabilities, 0…1 \(softmax of logits\). Received: -5…3"),
        (lambda clips: _motion(clips) * np.nan, 3, [3], r"probabilities, 0…1 .* Received: nan…nan"),
        (lambda clips: _motion(clips)[:, 3], 3, [3], r"probabilities \[N, K\]. Received: \(1,\) for one clip"),
        (lambda clips: clips, 3, [3], r"probabilities \[N, K\]. Received: \(1, 8, 2, 2, 3\) for one clip"),
        (_nan_when_perturbed, 3, [3], "Scores must be finite. Received: nan in row 1"),
        (_nan_gradient, 3, [3], "Losses must be finite. Received: nan in row 0"),
        (_motion, 3, [8], "Targets must be classes 0…7. Received: 8…8"),
        (_motion, 3, [-1], "Targets must be classes 0…7. Received: -1…-1"),
        (_motion, 3, [3, 3], _WRONG + r"\(1, 8, 2, 2, 3\) and int64 \(2,\)"),
        (_motion, 3, [3.0], _WRONG + r"\(1, 8, 2, 2, 3\) and float64 \(1,\)"),
        (_motion, 3, 3, _WRONG + r"\(1, 8, 2, 2, 3\) and int64 \(\)"),
    ],
)
def test_what_is_not_probabilities_or_targets_is_refused(score_fn, frames, targets, message):
    with pytest.raises(errors.UserError, match=message):
        temporal_mask.learn_masks(score_fn, _jumps(frames), targets, MaskConfig(iterations=2))


@pytest.mark.parametrize("shape", [(0, 8, 2, 2, 3), (1, 0, 2, 2, 3), (1, 8)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(errors.UserError, match=_WRONG):
        temporal_mask.learn_masks(_motion, np.zeros(shape), [3] * shape[0], MaskConfig(iterations=2))
