"""Weights in PyTorch keep the contract of both builds; how its kernels are laid out."""

import numpy as np
import pytest
import torch

from common.models.weights_contract_for_tests import WeightsContract
from torch_impl import weights


class TestWeights(WeightsContract):
    weights = weights
    parameters = staticmethod(lambda model: model.parameters())
    array = staticmethod(lambda weight: weight.detach().numpy())
    random_states = staticmethod(lambda: (torch.get_rng_state().numpy(), np.random.get_state()[1]))


@pytest.mark.parametrize(
    ("key", "canonical", "native"),
    [
        ("a/kernel", (3, 5, 7, 2, 4), (4, 2, 3, 5, 7)),  # T, H, W, I, O -> O, I, T, H, W
        ("a/recurrent_kernel", (5, 7, 2, 4), (4, 2, 5, 7)),
        ("Logits/kernel", (2, 4), (4, 2)),
        ("a/gamma", (4,), (4,)),
    ],
)
def test_layouts(key, canonical, native):
    array = np.arange(np.prod(canonical)).reshape(canonical)
    tensor = weights.from_canonical(key, array)
    assert tensor.shape == native
    np.testing.assert_array_equal(weights.to_canonical(key, tensor), array)
    if len(canonical) == 5:
        assert tensor[3, 1, 2, 4, 6] == array[2, 4, 6, 1, 3]
