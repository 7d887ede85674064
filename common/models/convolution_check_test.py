"""The start-up check of convolutions refuses known versions and wrong results, and passes right ones."""

import numpy as np
import pytest

from common import errors
from common.models import convolution_check
from common.models.convolution_check import Case, check

_CASE = Case((1, 2, 4, 4, 2), (1, 1, 1, 2, 3), (1, 2, 2))


def exact(clips, kernel, weights, strides, precision):
    """A 1x1x1 convolution and its gradients, in float64 whatever the precision."""
    assert (kernel.shape[:3], strides) == ((1, 1, 1), (1, 2, 2))
    clips, matrix, weights = (array.astype(np.float64) for array in (clips, kernel[0, 0, 0], weights))
    taken = clips[:, :, ::2, ::2]
    clip_gradient = np.zeros_like(clips)
    clip_gradient[:, :, ::2, ::2] = weights @ matrix.T
    return taken @ matrix, clip_gradient, np.einsum("nthwi,nthwo->io", taken, weights)[None, None, None]


@pytest.mark.parametrize("precision", convolution_check.LIMITS)
def test_right_results_pass(precision):
    check(exact, precision, 91900, [_CASE])
    check(exact, precision, None, [_CASE])


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_each_wrong_result_is_refused(wrong):
    def broken(clips, kernel, weights, strides, precision):
        results = list(exact(clips, kernel, weights, strides, precision))
        if precision == "bfloat16":
            results[wrong] = results[wrong] * 1.05
        return results

    what = ("result", "clip gradient", "kernel gradient")[wrong]
    with pytest.raises(errors.UserError, match=rf"within 0.02 of float64's. Received: a {what} 0.05 off, of a 1x1x1"):
        check(broken, "bfloat16", 91900, [_CASE])


def test_a_result_that_is_not_a_number_is_refused():
    def broken(clips, kernel, weights, strides, precision):
        return [np.nan * result for result in exact(clips, kernel, weights, strides, precision)]

    with pytest.raises(errors.UserError, match="a result nan off.*cuDNN of unknown version"):
        check(broken, "float32", None, [_CASE])


@pytest.mark.parametrize(
    ("precision", "version", "refused"),
    [
        ("bfloat16", 90701, False),
        ("bfloat16", 90800, True),
        ("bfloat16", 91002, True),
        ("bfloat16", 91400, True),
        ("bfloat16", 91500, False),
        ("tf32", 91001, False),
        ("tf32", 91002, True),
        ("tf32", 91501, True),
        ("tf32", 91600, False),
        ("float32", 91002, False),
    ],
)
def test_known_versions_are_refused_by_name_before_anything_is_computed(precision, version, refused):
    if not refused:
        check(exact, precision, version, [_CASE])
        return
    with pytest.raises(errors.UserError, match=rf"{precision} cuDNN must not be one of .* \(github.com/pytorch/.*9\."):
        check(None, precision, version, [_CASE])


def test_versions_are_named_as_their_makers_do():
    assert [convolution_check.version_name(v) for v in (91002, 90800, 8902)] == ["9.10.2", "9.8.0", "8.9.2"]


def test_tf32_is_for_gpus_that_have_it():
    for precision, capability in (("tf32", (8, 0)), ("tf32", (12, 0)), ("float32", None), ("bfloat16", (7, 5))):
        convolution_check.check_tf32(precision, capability)
    with pytest.raises(errors.UserError, match="compute capability 8.0 or later. Received: the CPU"):
        convolution_check.check_tf32("tf32", None)
    with pytest.raises(errors.UserError, match="compute capability 8.0 or later. Received: one of 7.5"):
        convolution_check.check_tf32("tf32", (7, 5))
