"""Optimisers in PyTorch keep the contract of both builds, and store their state in canonical layout."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from common.runs.optimizers_contract_for_tests import CONFIG, OptimizersContract
from torch_impl import optimizers


def _optimizer(name, start, config):
    parameter = nn.Parameter(torch.tensor(np.asarray(start), dtype=torch.float64))
    return parameter, optimizers.Optimizer({name: parameter}, config)


def _step(parameter, optimizer, gradient, rate):
    parameter.grad = torch.tensor(gradient)
    optimizer.step(rate)
    assert parameter.grad is None


class TestOptimizers(OptimizersContract):
    optimizer = staticmethod(_optimizer)
    step = staticmethod(_step)
    value = staticmethod(lambda parameter: parameter.detach().numpy().copy())


def test_the_state_is_stored_in_canonical_layout():
    parameter = nn.Parameter(torch.zeros(5, 2, 3, 4))  # PyTorch's (O, I, H, W).
    optimizer = optimizers.Optimizer({"ConvLSTM_1/kernel": parameter}, dataclasses.replace(CONFIG, optimizer="adam"))
    parameter.grad = torch.arange(120.0).reshape(5, 2, 3, 4)
    optimizer.step(0.1)
    moment = optimizer.get_state()["first_moment/ConvLSTM_1/kernel"]
    assert moment.shape == (3, 4, 2, 5)  # TensorFlow's (H, W, I, O).
    assert moment[1, 2, 1, 3] == pytest.approx(0.1 * (3 * 24 + 1 * 12 + 1 * 4 + 2))
