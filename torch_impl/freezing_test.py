import torch
from torch import nn

from torch_impl import freezing


def test_frozen_within_frozen_leaves_a_module_as_it_was():
    model = nn.Dropout(0.5).train()
    found_when_called = {"model": model}
    with freezing.frozen(lambda x: found_when_called["model"](x)):
        with freezing.frozen(model):
            model(torch.ones(3))
        assert model.training
        assert model(torch.ones(3)).tolist() == [1, 1, 1]
        assert not model.training
    assert model.training


_DROPOUT = nn.Dropout(0.5)


def test_frozen_finds_a_global_whose_method_is_called():
    with freezing.frozen(lambda x: _DROPOUT.forward(x)):
        assert not _DROPOUT.training
    assert _DROPOUT.training


def test_weights_may_stay_in_autograds_sight():
    model = nn.Linear(2, 1)
    with freezing.frozen(model, weights=False):
        assert not model.training and model.weight.requires_grad
    with freezing.frozen(model):
        assert not model.training and not model.weight.requires_grad
    assert model.training and model.weight.requires_grad
