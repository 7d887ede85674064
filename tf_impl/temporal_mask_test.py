"""The search on scores whose best mask is known, and what it may not do to a model, to other clips, or to memory."""

import functools
import gc
import weakref

import numpy as np
import pytest

from common import errors
from common.explaining import mask_search
from common.explaining.mask_contract_for_tests import (
    MEMORY,
    TIME,
    MaskContract,
    assert_same,
    check_memory_does_not_grow,
    jumps,
    learn,
    loss_gradient,
    random_clips,
)
from common.explaining.masks import MaskConfig
from common.models import configs
from tf_impl import temporal_mask, weights

# isort: split
import keras
import tensorflow as tf


def _motion(clips):
    """Probability of class k is how far the mean pixel moves from frame k - 1 to k: freezing frame k takes it away.

    Class 0 has the rest.
    """
    pixels = tf.reduce_mean(clips, (2, 3, 4))
    moves = abs(pixels[:, 1:] - pixels[:, :-1]) / 255
    return tf.concat([1 - tf.reduce_sum(moves, 1, keepdims=True), moves], axis=1)


class Motion(keras.Model):
    def call(self, clips):
        return _motion(clips)


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


def _conv_lstm():
    config = configs.ConvLSTMConfig(4, (TIME, 8, 8), num_layers=1, filters=3)
    model = weights.build_model(config, "float64")
    return lambda clips: tf.nn.softmax(model(clips))


class TestMask(MaskContract):
    temporal_mask = temporal_mask
    tensor = staticmethod(tf.convert_to_tensor)
    dtype = staticmethod(tf.as_dtype)
    motion = staticmethod(_motion)
    motion_model = Motion
    prepared = _Prepared
    otherwise_prepared = _OtherwisePrepared
    conv_lstm = staticmethod(_conv_lstm)
    random = staticmethod(lambda clips: tf.random.uniform((), 0.5, 1.0))
    quarter_of_batch = staticmethod(lambda clips: tf.cast(tf.shape(clips)[0], tf.float32) / 4)
    checks = [None, 1, 1, 2]

    @pytest.mark.parametrize("kind", ["reverse"])  # A graph takes seconds to make, so not both.
    def test_a_clip_does_not_see_its_batch(self, kind):
        self.check_a_clip_does_not_see_its_batch(kind)


@pytest.fixture(scope="module")
def short():
    """A search of two steps on `_motion`, whose graphs are made once."""
    return temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))


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


_METHODS = [temporal_mask.learn_masks, temporal_mask.best_interval, functools.partial(loss_gradient, temporal_mask)]


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
    model = keras.Sequential([keras.Input((TIME, 8, 8, 3)), *layers])
    model.layers[2].trainable = False
    return model


def _state(model):
    return (
        [layer.trainable for layer in model.layers],
        [np.array(tf.convert_to_tensor(variable)).tolist() for variable in model.variables],
        np.random.get_state()[1].tolist(),
    )


@pytest.mark.parametrize("method", _METHODS)
def test_a_model_is_as_it_was(method):
    model = _trained()
    before = _state(model)
    assert len(before[1]) == 2 + 4 + 1 + 2  # Convolution, batch norm, dropout's random numbers, dense.
    method(model, random_clips(3, np.uint8), [0, 1, 2], MaskConfig(iterations=3), 3)
    assert _state(model) == before


def test_a_model_in_training_mode_is_refused_and_left_as_it_was():
    model = _trained()
    model.layers[2].trainable = True
    before = _state(model)
    for search in (temporal_mask.learn_masks, temporal_mask.best_interval):
        with pytest.raises(errors.UserError, match=r"must not change its variables .*training=False.* in \d+ places"):
            search(lambda clips: model(clips, training=True), random_clips(2, np.uint8), [0, 1], MaskConfig())
    assert _state(model) == before


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
        learn(search, jumps(3), [3])
    assert_same(learn(search, jumps(3), [3]), learn(short, jumps(3), [3]))


def test_predict_is_no_score_function():
    score_fn = functools.partial(_trained().predict, verbose=0)
    with pytest.raises(errors.UserError, match="through which gradients flow .* Received: ndarray$"):
        temporal_mask.learn_masks(score_fn, random_clips(2, np.uint8), [0, 1], MaskConfig(iterations=2))


def test_a_model_may_make_its_weights_in_its_first_call():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")])
    assert not model.built
    learnt = temporal_mask.learn_masks(model, jumps(3), [3], MaskConfig(iterations=2))
    np.testing.assert_allclose(learnt.scores["OS"], model(jumps(3, dtype=np.float32))[:, 3], rtol=1e-6)


def test_one_trace_serves_batches_of_all_sizes():
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    traces = search.traced(tf.constant(jumps(3)), tf.float32)
    for frames in ([3], [3, 5, 6], [1, 2], [3, 5, 6, 1, 1]):
        loss_gradient(temporal_mask, _motion, jumps(*frames), frames, search.config, search=search)
        mask_search.best_intervals(search.on(jumps(*frames), frames), search.config)
        learn(search, jumps(*frames), frames)
        assert search.traced(tf.constant(jumps(3)), tf.float32) is traces
    assert [trace.experimental_get_tracing_count() for trace in traces] == [1] * len(traces)
    learn(search, jumps(3, 5, dtype=np.float64), [3, 5])
    loss_gradient(temporal_mask, _motion, jumps(3, 5, dtype=np.float64), [3, 5], search.config, search=search)
    other = search.traced(tf.constant(jumps(3, dtype=np.float64)), tf.float64)
    assert [trace.experimental_get_tracing_count() for trace in traces + other] == [1] * 2 * len(traces)


@pytest.mark.skipif(not MEMORY.exists(), reason="Memory in use is read from Linux' /proc.")
@pytest.mark.slow
def test_memory_does_not_grow():
    clips = np.zeros((2, TIME, 48, 48, 3), np.float32)  # 442 kB: 60 of them are 26 MB.
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    for _ in range(10):
        learn(search, clips, [1, 2])
    check_memory_does_not_grow(lambda: learn(search, clips, [1, 2]), 60, 8 << 20)


def test_a_search_takes_its_graphs_with_it():
    search = temporal_mask.MaskSearch(_motion, MaskConfig(iterations=2))
    learn(search, jumps(3), [3])
    graphs = [weakref.ref(graph) for graph in search.traced(tf.constant(jumps(3)), tf.float32)]
    del search
    gc.collect()
    assert graphs and not any(graph() for graph in graphs)
