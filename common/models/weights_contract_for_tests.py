"""Canonical weights into the models of either build and back; each refusal of strict loading."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from common import errors
from common.models import architectures, configs, initial_weights

CONFIGS = {
    "i3d": configs.I3DConfig(5, (8, 32, 32), width=0.0625),
    "conv_lstm_shared": configs.ConvLSTMConfig(5, (2, 64, 64), filters=2),
    "conv_lstm_own": configs.ConvLSTMConfig(5, (2, 64, 64), filters=2, share_batch_norm=False),
}


class WeightsContract:
    """The tests that both builds share.

    Attributes:
      weights: the build's module.
      parameters: model -> its weights that are trained.
      array: weight -> array.
      random_states: () -> the states of the global generators, arrays.
    """

    weights: ModuleType
    parameters: Callable
    array: Callable
    random_states: Callable

    @pytest.mark.parametrize("name", CONFIGS)
    def test_weights_come_back_as_they_went_in(self, name):
        config = CONFIGS[name]
        arrays = {
            key: np.random.default_rng(number).standard_normal(weight.shape).astype(np.float32)
            for number, (key, weight) in enumerate(architectures.weights(config).items())
        }
        model = self.weights.build_model(config)
        self.weights.load_weights(model, arrays)
        received = self.weights.get_weights(model)
        assert list(received) == list(arrays)
        for key, array in arrays.items():
            np.testing.assert_array_equal(received[key], array, err_msg=key)
            assert received[key].dtype == np.float32
            assert received[key].flags.c_contiguous

    @pytest.mark.parametrize("name", CONFIGS)
    def test_given_weights_are_the_models_and_none_are_drawn(self, name, monkeypatch):
        config = CONFIGS[name]
        arrays = initial_weights.initial_weights(config, seed=3)
        monkeypatch.setattr(initial_weights, "initial_weights", None)
        received = self.weights.get_weights(self.weights.build_model(config, arrays=arrays))
        for key, array in arrays.items():
            np.testing.assert_array_equal(received[key], array, strict=True)
        del arrays["Logits/Conv3d_0c_1x1/kernel" if name == "i3d" else "Logits/kernel"]
        with pytest.raises(errors.UserError, match="Received from the caller: missing: Logits/"):
            self.weights.build_model(config, arrays=arrays)

    @pytest.mark.parametrize("name", CONFIGS)
    def test_trainable_parameters_are_the_tables(self, name):
        config = CONFIGS[name]
        model = self.weights.build_model(config)
        parameters = self.weights.trainable(model)
        assert list(parameters) == [key for key, weight in architectures.weights(config).items() if weight.trainable]
        assert {id(p) for p in parameters.values()} == {id(p) for p in self.parameters(model)}
        for key, parameter in parameters.items():
            assert self.weights.to_canonical(key, parameter).shape == architectures.weights(config)[key].shape

    def test_a_model_starts_from_the_initial_weights(self):
        config = CONFIGS["i3d"]
        received = self.weights.get_weights(self.weights.build_model(config, seed=3))
        for key, array in initial_weights.initial_weights(config, seed=3).items():
            np.testing.assert_array_equal(received[key], array)

    def test_float64_model_holds_the_same_numbers_in_float64(self):
        config = CONFIGS["i3d"]
        received = self.weights.get_weights(self.weights.build_model(config, "float64"))
        for key, array in initial_weights.initial_weights(config, seed=0).items():
            assert received[key].dtype == np.float64
            np.testing.assert_array_equal(received[key], array)

    def test_returned_arrays_are_copies(self):
        model = self.weights.build_model(CONFIGS["i3d"])
        for array in self.weights.get_weights(model).values():
            array += 1
        assert not self.array(model.Logits.Conv3d_0c_1x1.bias).any()

    def test_all_mismatches_come_in_one_error_and_nothing_is_copied(self):
        config = CONFIGS["i3d"]
        model = self.weights.build_model(config)
        arrays = {name: array + 1 for name, array in initial_weights.initial_weights(config, seed=0).items()}
        del arrays["Conv3d_1a_7x7/gamma"], arrays["Mixed_3b/Branch_0/Conv3d_0a_1x1/kernel"]
        arrays["Conv3d_1a_7x7/bias"] = np.zeros(4, np.float32)
        arrays["Logits/Conv3d_0c_1x1/kernel"] = arrays["Logits/Conv3d_0c_1x1/kernel"].squeeze()
        arrays["Logits/Conv3d_0c_1x1/bias"] = np.zeros((1, 5), np.float32)
        with pytest.raises(errors.UserError) as error:
            self.weights.load_weights(model, arrays)
        assert str(error.value) == (
            "Weights must have exactly the names and shapes of the i3d config. Received from the caller: "
            "missing: Conv3d_1a_7x7/gamma, Mixed_3b/Branch_0/Conv3d_0a_1x1/kernel; "
            "unexpected: Conv3d_1a_7x7/bias; "
            "misshapen: Logits/Conv3d_0c_1x1/kernel (64, 5) instead of (1, 1, 1, 64, 5), "
            "Logits/Conv3d_0c_1x1/bias (1, 5) instead of (5,)"
        )
        assert not self.array(model.Conv3d_1a_7x7.batch_norm.beta).any()

    def test_unknown_precision_is_refused(self):
        with pytest.raises(errors.UserError, match="precision must be one of .*bfloat16.* Received: 'float16'"):
            self.weights.build_model(CONFIGS["i3d"], "float16")

    def test_building_leaves_the_global_generators_alone(self):
        before = [state.copy() for state in self.random_states()]
        self.weights.build_model(CONFIGS["i3d"])
        for state, known in zip(self.random_states(), before, strict=True):
            np.testing.assert_array_equal(state, known)
