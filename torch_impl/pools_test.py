import pytest
import torch

from torch_impl import layers, pools


@pytest.fixture
def deterministic():
    """Turns the switch back, which is the process's."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("size", "kernel", "strides"),
    [
        ((5, 6, 7), (3, 3, 3), (1, 1, 1)),
        ((4, 7, 8), (1, 3, 3), (1, 2, 2)),
        ((5, 8, 7), (3, 3, 3), (2, 2, 2)),
        ((5, 7, 6), (2, 2, 2), (2, 2, 2)),
        ((2, 2, 2), (3, 3, 3), (2, 2, 2)),
    ],
)
def test_pools_in_one_order_compute_the_same(size, kernel, strides, deterministic):
    # Of few values, so that windows have several largest ones.
    x = torch.randint(0, 3, (2, 3, *size), generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    pool = layers.MaxPool(kernel, strides)
    found = []
    for ordered in (True, False):
        torch.use_deterministic_algorithms(ordered)
        y = pool(x)
        weights = torch.arange(y.numel(), dtype=y.dtype).view_as(y)
        found.append((y, *torch.autograd.grad((y * weights).sum(), x)))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_average_pools_in_one_order_compute_the_same(deterministic):
    x = torch.rand(2, 3, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for ordered in (True, False):
        torch.use_deterministic_algorithms(ordered)
        y = pools.average_pool(x, (2, 7, 7))
        found.append((y, *torch.autograd.grad((y**2).sum(), x)))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
