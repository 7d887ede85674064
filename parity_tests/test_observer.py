import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

import tensorflow as tf
import torch

from common.clips import suites
from common.explaining import mask_search, masks, observer, perturbations
from data_prep import planted
from parity_tests import tolerances, twins
from parity_tests.compare import assert_close
from tf_impl import observer as tf_observer
from tf_impl import temporal_mask as tf_mask
from torch_impl import observer as torch_observer
from torch_impl import temporal_mask as torch_mask

_SHAPE = (24, 64, 64, 3)


def drawn(suite, count):
    """Returns clips uint8 [N, 24, 64, 64, 3], labels [N] and frames of the event [N, 24] of a suite's test split."""
    drawings = [planted.draw_video(suite, 0, "test", number) for number in range(count)]
    truths = [drawing.truth for drawing in drawings]
    return (
        np.stack([drawing.frames for drawing in drawings]),
        np.array([truth.label for truth in truths]),
        np.stack([truth.salient for truth in truths]),
    )


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("suite", suites.SUITES)
def test_probabilities_under_soft_masks_and_their_gradient(suite, precision):
    clips, labels, _ = drawn(suite, 3)
    clips = clips.astype(precision)
    mask = np.random.default_rng(0).uniform(0, 1, (3, 24)).astype(precision)
    reference = observer.Observer(suite, _SHAPE)(perturbations.perturb(clips, mask.astype("float64"), "freeze")).astype(
        precision
    )

    ours, values = torch_observer.Observer(suite, _SHAPE), torch.from_numpy(mask).requires_grad_()
    answer = ours(torch_mask.perturb(torch.from_numpy(clips), values, "freeze"))
    answer[range(3), labels].sum().backward()
    theirs, other_values = tf_observer.Observer(suite, _SHAPE), tf.constant(mask)
    with tf.GradientTape() as tape:
        tape.watch(other_values)
        other = theirs(tf_mask.perturb(clips, other_values, "freeze"))
        total = tf.reduce_sum(tf.gather(other, labels, batch_dims=1))

    limit = tolerances.limit("observer", precision)
    assert_close("torch", reference, answer.detach().numpy(), limit)
    assert_close("tf", reference, other.numpy(), limit)
    assert_close("gradient", values.grad.numpy(), tape.gradient(total, other_values).numpy(), limit)


@pytest.mark.parametrize("build", ["torch", "tf"])
def test_oracle_through_the_door_of_each_build_is_that_of_numpy(build):
    clips, labels, _ = drawn("rare", 3)
    judge, config = observer.Observer("rare", _SHAPE), masks.MaskConfig()
    reference = mask_search.best_intervals(observer.Scorer(judge, clips, labels), config)
    own = {"torch": torch_observer, "tf": tf_observer}[build].Observer("rare", _SHAPE)
    search = {"torch": torch_mask, "tf": tf_mask}[build].MaskSearch(own, config)
    found = mask_search.best_intervals(search.on(clips, labels), config)
    np.testing.assert_array_equal(found.intervals, reference.intervals)
    assert_close("losses", reference.losses, found.losses, 1e-5)


@pytest.mark.parametrize("build", ["torch", "tf"])
def test_learnt_mask_is_the_event(build):
    clips, labels, salient = drawn("rare", 4)
    inner = ~salient[:, [1, 2, -3, -2]].any(axis=1)
    clips, labels, salient = clips[inner], labels[inner], salient[inner]
    own = {"torch": torch_observer, "tf": tf_observer}[build].Observer("rare", _SHAPE)
    config = masks.MaskConfig(start="oracle", iterations=60)
    module = {"torch": torch_mask, "tf": tf_mask}[build]
    learnt = module.learn_masks(own, clips, labels, config)
    np.testing.assert_array_equal(masks.snap(learnt.masks), salient)
