"""Canonical weights into the models and back; each refusal of strict loading."""

import numpy as np
import pytest
import torch

from common import errors
from common.models import architectures, configs, initial_weights
from torch_impl import weights

_CONFIGS = {
    "i3d": configs.I3DConfig(5, (8, 32, 32), width=0.0625),
    "conv_lstm_shared": configs.ConvLSTMConfig(5, (2, 64, 64), filters=2),
    "conv_lstm_own": configs.ConvLSTMConfig(5, (2, 64, 64), filters=2, share_batch_norm=False),
}


@pytest.mark.parametrize("name", _CONFIGS)
def test_weights_come_back_as_they_went_in(name):
    config = _CONFIGS[name]
    arrays = {
        key: np.random.default_rng(number).standard_normal(weight.shape).astype(np.float32)
        for number, (key, weight) in enumerate(architectures.weights(config).items())
    }
    model = weights.build_model(config)
    weights.load_weights(model, arrays)
    received = weights.get_weights(model)
    assert list(received) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(received[key], array, err_msg=key)
        assert received[key].dtype == np.float32
        assert received[key].flags.c_contiguous


@pytest.mark.parametrize("name", _CONFIGS)
def test_given_weights_are_the_models_and_none_are_drawn(name, monkeypatch):
    config = _CONFIGS[name]
    arrays = initial_weights.initial_weights(config, seed=3)
    monkeypatch.setattr(initial_weights, "initial_weights", None)
    received = weights.get_weights(weights.build_model(config, arrays=arrays))
    for key, array in arrays.items():
        np.testing.assert_array_equal(received[key], array, strict=True)
    del arrays["Logits/Conv3d_0c_1x1/kernel" if name == "i3d" else "Logits/kernel"]
    with pytest.raises(errors.UserError, match="Received from the caller: missing: Logits/"):
        weights.build_model(config, arrays=arrays)


@pytest.mark.parametrize("name", _CONFIGS)
def test_trainable_parameters_are_the_tables(name):
    config = _CONFIGS[name]
    model = weights.build_model(config)
    parameters = weights.trainable(model)
    assert list(parameters) == [key for key, weight in architectures.weights(config).items() if weight.trainable]
    assert {id(p) for p in parameters.values()} == {id(p) for p in model.parameters()}
    for key, parameter in parameters.items():
        assert weights.to_canonical(key, parameter).shape == architectures.weights(config)[key].shape


def test_a_model_starts_from_the_initial_weights():
    config = _CONFIGS["i3d"]
    received = weights.get_weights(weights.build_model(config, seed=3))
    for key, array in initial_weights.initial_weights(config, seed=3).items():
        np.testing.assert_array_equal(received[key], array)


def test_float64_model_holds_the_same_numbers_in_float64():
    config = _CONFIGS["i3d"]
    received = weights.get_weights(weights.build_model(config, "float64"))
    for key, array in initial_weights.initial_weights(config, seed=0).items():
        assert received[key].dtype == np.float64
        np.testing.assert_array_equal(received[key], array)


def test_returned_arrays_are_copies():
    model = weights.build_model(_CONFIGS["i3d"])
    for array in weights.get_weights(model).values():
        array += 1
    assert model.Logits.Conv3d_0c_1x1.bias.abs().max() == 0


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


def test_all_mismatches_come_in_one_error_and_nothing_is_copied():
    config = _CONFIGS["i3d"]
    model = weights.build_model(config)
    arrays = {name: array + 1 for name, array in initial_weights.initial_weights(config, seed=0).items()}
    del arrays["Conv3d_1a_7x7/gamma"], arrays["Mixed_3b/Branch_0/Conv3d_0a_1x1/kernel"]
    arrays["Conv3d_1a_7x7/bias"] = np.zeros(4, np.float32)
    arrays["Logits/Conv3d_0c_1x1/kernel"] = arrays["Logits/Conv3d_0c_1x1/kernel"].squeeze()
    arrays["Logits/Conv3d_0c_1x1/bias"] = np.zeros((1, 5), np.float32)
    with pytest.raises(errors.UserError) as error:
        weights.load_weights(model, arrays)
    assert str(error.value) == (
        "Weights must have exactly the names and shapes of the i3d config. Received from the caller: "
        "missing: Conv3d_1a_7x7/gamma, Mixed_3b/Branch_0/Conv3d_0a_1x1/kernel; "
        "unexpected: Conv3d_1a_7x7/bias; "
        "misshapen: Logits/Conv3d_0c_1x1/kernel (64, 5) instead of (1, 1, 1, 64, 5), "
        "Logits/Conv3d_0c_1x1/bias (1, 5) instead of (5,)"
    )
    assert model.Conv3d_1a_7x7.batch_norm.beta.abs().max() == 0


def test_unknown_precision_is_refused():
    with pytest.raises(errors.UserError, match="precision must be one of .*bfloat16.* Received: 'float16'"):
        weights.build_model(_CONFIGS["i3d"], "float16")


def test_building_leaves_the_global_generators_alone():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights.build_model(_CONFIGS["i3d"])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
