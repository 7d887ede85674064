"""What a model may return, and the words in which anything else is refused."""

import collections

import numpy as np
import pytest

from common import errors
from common.explaining import model_checks


class Tensor:
    """Stands for a framework's."""

    def __init__(self, *shape):
        self.shape = shape


@pytest.mark.parametrize(
    ("output", "received"),
    [
        ((Tensor(), Tensor()), "tuple of tensor, tensor"),
        ([Tensor()], "list of tensor"),
        ({"logits": Tensor(), "features": Tensor()}, "dict of logits, features"),
        (collections.OrderedDict(logits=Tensor()), "OrderedDict of logits"),
        (np.zeros((1, 5)), "ndarray"),
        ((Tensor(), (np.zeros(3), None)), "tuple of tensor, tuple of ndarray, NoneType"),
        (0.5, "float"),
        ((), "tuple of nothing"),
        ({}, "dict of nothing"),
    ],
)
def test_a_model_returns_one_tensor(output, received):
    with pytest.raises(errors.UserError, match=rf"must return logits \[N, K\] as one tensor, .* Received: {received}$"):
        model_checks.check_tensor(output, Tensor, model_checks.LOGITS)


def test_one_tensor_is_returned():
    tensor = Tensor()
    assert model_checks.check_tensor(tensor, Tensor, model_checks.PROBABILITIES) is tensor


def test_long_outputs_are_described_by_their_beginning():
    for output, received in ((dict.fromkeys("abcdefg"), "dict of a, b, c, d, e$"), ([1] * 9, "list of (int, ){4}int$")):
        with pytest.raises(errors.UserError, match=f"Received: {received}"):
            model_checks.check_tensor(output, Tensor, model_checks.LOGITS)


def test_an_endpoint_function_returns_two_tensors():
    two = Tensor(), Tensor()
    assert model_checks.check_endpoint(two, Tensor) == model_checks.check_endpoint([*two], Tensor) == two


@pytest.mark.parametrize("output", [Tensor(), (Tensor(),), (Tensor(),) * 3, (Tensor(), np.zeros(3)), {"a": 1, "b": 2}])
def test_other_endpoints_are_refused(output):
    with pytest.raises(errors.UserError, match=r"must return two tensors, logits \[N, K\] and activations"):
        model_checks.check_endpoint(output, Tensor)


@pytest.mark.parametrize(
    ("output", "received"),
    [(Tensor(2, 3, 4, 5), r"\(2, 3, 4, 5\)"), ((Tensor(1, 2, 3, 4, 5),), "tuple of tensor"), (None, "NoneType")],
)
def test_a_layer_returns_one_tensor_of_clips(output, received):
    with pytest.raises(errors.UserError, match=f"one output, 5 axes, of clips. Received: {received}$"):
        model_checks.check_layer(output, Tensor)
    clips = Tensor(1, 2, 3, 4, 5)
    assert model_checks.check_layer(clips, Tensor) is clips


@pytest.mark.parametrize(("shape", "num_clips"), [((1,), 1), ((1, 5, 1), 1), ((2, 5), 1), ((1, 0), 1), ((1, 5), 2)])
def test_probabilities_have_a_row_for_each_clip(shape, num_clips):
    with pytest.raises(errors.UserError, match=r"must return probabilities \[N, K\]. Received: \(.* for (one|2) clip"):
        model_checks.check_shape(shape, num_clips)
    model_checks.check_shape((num_clips, 5), num_clips)


@pytest.mark.parametrize(
    ("row", "received"),
    [
        ([-5, 3, 2], "-5…3, whose sum is 0"),  # Logits.
        ([0.5, 0.25, 0.5], "0.25…0.5, whose sum is 1.25"),  # Sigmoids, or logits that do not look like it.
        ([0.25, 0.25, 0.25], "0.25…0.25, whose sum is 0.75"),
        ([1.5, -0.5, 0], "-0.5…1.5, whose sum is 1"),
        ([np.nan, 0.5, 0.5], "nan…nan, whose sum is nan"),
        ([np.inf, 0, 0], "0…inf, whose sum is inf"),
    ],
)
def test_what_is_not_probabilities_is_refused(row, received):
    with pytest.raises(errors.UserError, match=rf"0…1, whose sum is 1 \(softmax of logits\). Received: {received}$"):
        model_checks.check_probabilities(np.array([row]), np.array([0]))


def test_probabilities_of_half_precision_pass():
    logits = np.random.default_rng(0).normal(size=700)
    probabilities = (np.exp(logits) / np.exp(logits).sum()).astype(np.float16).astype(np.float64)
    assert probabilities.sum() != 1
    model_checks.check_probabilities(probabilities[None], np.array([699]))


def test_scores_that_depend_on_the_clip_alone_pass():
    alone = np.array([[0.25, 0.75]])
    model_checks.check_steady(alone, alone + 1e-6, np.array([[0.26, 0.74], [1, 0]]))


@pytest.mark.parametrize(
    ("again", "beside", "message"),
    [
        (0.251, 0.25, "must depend on that clip alone, .* Received: they change by 0.001 from call to call"),
        (0.25, 0.35, "Received: they change by 0.1 with another clip beside it"),
        (float("nan"), 0.25, "Received: they change by nan from call to call"),
    ],
)
def test_other_scores_are_refused(again, beside, message):
    alone, again, beside = (np.array([[p, 1 - p]]) for p in (0.25, again, beside))
    with pytest.raises(errors.UserError, match=message):
        model_checks.check_steady(alone, again, np.concatenate([beside, alone]))
