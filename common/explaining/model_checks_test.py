"""What a model may return, and the words in which anything else is refused."""

import collections

import numpy as np
import pytest

from common import errors
from common.explaining import layer_axes, model_checks


class Tensor:
    """Stands for a framework's."""

    def __init__(self, *shape):
        self.shape, self.ndim = shape, len(shape)


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


LOGITS = Tensor(2, 5)
CLIPS = Tensor(2, 3, 4, 5, 6)


class Named:
    """Has a field `logits`, as a data class may."""

    logits = LOGITS


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        [LOGITS],
        (CLIPS, LOGITS, None),
        {"x": LOGITS, "y": CLIPS},
        {"x": Tensor(2, 5), "logits": LOGITS},
        Named(),
    ],
)
def test_logits_are_what_is_called_so_or_the_only_tensor_of_two_axes(output):
    assert model_checks.find_logits(output, Tensor) is LOGITS


@pytest.mark.parametrize(
    ("output", "received"),
    [
        ((LOGITS, LOGITS), "tuple of tensor, tensor"),
        ([CLIPS], "list of tensor"),
        ({"logits": np.zeros((2, 5))}, "dict of logits"),
        (np.zeros((2, 5)), "ndarray"),
    ],
)
def test_other_outputs_hold_no_logits(output, received):
    with pytest.raises(errors.UserError, match=rf"must return logits \[N, K\]: .* Received: {received}$"):
        model_checks.find_logits(output, Tensor)


def test_activations_are_the_first_that_a_layer_returns():
    axes, other = layer_axes.LayerAxes("NTHWC"), Tensor(1)
    pair = collections.namedtuple("pair", "x grid")
    for output in (CLIPS, (CLIPS, 1), [CLIPS, 1], pair(CLIPS, 1)):
        assert model_checks.find_activations(output, Tensor, axes) is CLIPS
        changed = model_checks.with_activations(output, other)
        assert type(changed) is (Tensor if output is CLIPS else type(output))
        assert model_checks.with_activations(changed, CLIPS) == output


@pytest.mark.parametrize(
    ("output", "received"),
    [
        (Tensor(2, 3, 4, 5), r"\(2, 3, 4, 5\)"),
        ((Tensor(2, 3),), r"\(2, 3\)"),
        ((1, CLIPS), "tuple of int, tensor"),
        ({"x": CLIPS}, "dict of x"),
        ((), "tuple of nothing"),
        (None, "NoneType"),
    ],
)
def test_other_layers_hold_no_activations(output, received):
    with pytest.raises(errors.UserError, match=rf"whose output has the axes NTHWC .*Received: {received}$"):
        model_checks.find_activations(output, Tensor, layer_axes.LayerAxes("NTHWC"))


ATTENTION = Tensor(2, 3, 5, 5)


@pytest.mark.parametrize("output", [ATTENTION, (Tensor(2, 5, 5), ATTENTION), [Tensor(2, 5, 9), None, ATTENTION]])
def test_attention_is_what_is_square(output):
    assert model_checks.find_attention(output, Tensor) is ATTENTION


def test_attention_may_be_of_averaged_heads():
    averaged = Tensor(2, 5, 5)
    assert model_checks.find_attention((Tensor(2, 5, 9), averaged), Tensor) is averaged


@pytest.mark.parametrize("output", [None, (Tensor(2, 5, 9), None), (ATTENTION, ATTENTION), Tensor(5, 5)])
def test_other_layers_return_no_attention(output):
    with pytest.raises(errors.UserError, match="that return their attention .* Received: "):
        model_checks.find_attention(output, Tensor)


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
        model_checks.check_probabilities(np.array([row]))


def test_probabilities_of_half_precision_pass():
    logits = np.random.default_rng(0).normal(size=700)
    probabilities = (np.exp(logits) / np.exp(logits).sum()).astype(np.float16).astype(np.float64)
    assert probabilities.sum() != 1
    model_checks.check_probabilities(probabilities[None])


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
