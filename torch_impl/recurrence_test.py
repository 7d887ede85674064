"""The written-out gradient of the time loop against autograd's through the plain one."""

import gc
import weakref

import pytest
import torch

from torch_impl import conv_lstm, recurrence


def _arrays(time, kernel_size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(time)
    inputs = torch.randn(time, 2, 12, 5, 6, dtype=dtype, generator=generator)
    return inputs, 0.3 * torch.randn(12, 3, *kernel_size, dtype=dtype, generator=generator)


@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 1), (3, 5), (4, 2)])
@pytest.mark.parametrize("time", [1, 2, 5])
def test_values_and_gradients_are_those_of_the_plain_loop(time, kernel_size):
    results = []
    for run in (conv_lstm.plain_recurrence, recurrence.run):
        inputs, kernel = (array.requires_grad_() for array in _arrays(time, kernel_size))
        hidden = run(inputs, kernel)
        assert hidden.shape == (time, 2, 3, 5, 6)
        # Every step counts, each differently.
        weights = torch.randn(hidden.shape, dtype=hidden.dtype, generator=torch.Generator().manual_seed(9))
        gradients = torch.autograd.grad((hidden * weights).sum(), (inputs, kernel), materialize_grads=True)
        results.append((hidden, *gradients))
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-13)


def test_one_step_has_no_kernel_gradient():
    inputs, kernel = (array.requires_grad_() for array in _arrays(1, (3, 3)))
    recurrence.run(inputs, kernel).sum().backward()
    assert not kernel.grad.any() and inputs.grad.any()


@pytest.mark.parametrize("wanted", ["inputs", "kernel"])
def test_either_gradient_alone(wanted):
    inputs, kernel = _arrays(4, (3, 3))
    asked = {"inputs": inputs, "kernel": kernel}[wanted].requires_grad_()
    both = tuple(array.detach().clone().requires_grad_() for array in (inputs, kernel))
    (alone,) = torch.autograd.grad(recurrence.run(inputs, kernel).sum(), asked)
    together = torch.autograd.grad(recurrence.run(*both).sum(), both)
    torch.testing.assert_close(alone, together[wanted == "kernel"], rtol=0, atol=1e-13)


def test_without_gradients_no_step_is_kept():
    inputs, kernel = (array.requires_grad_() for array in _arrays(4, (3, 3)))
    with torch.no_grad():
        hidden = recurrence.run(inputs, kernel)
    assert hidden.grad_fn is None
    kept = weakref.ref(hidden)
    del hidden
    gc.collect()
    assert kept() is None
