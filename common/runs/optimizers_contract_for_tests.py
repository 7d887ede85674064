"""What the optimisers of either build do: steps worked out by their formulas, and state that goes on."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from common.models import configs

CONFIG = configs.PRESETS["conv_lstm_synthetic"]
RATES = (0.1, 0.1, 0.05, 0.05)
GRADIENTS = np.array([[0.5, -2.0, 1e-7], [1.0, 1.0, 1e-7], [-3.0, 0.25, 0.0], [0.5, 0.5, 1e-7]])
START = np.array([1.0, -1.0, 0.0])


class OptimizersContract:
    """The tests that both builds share.

    Attributes:
      optimizer: (name, start, config) -> a float64 parameter that begins there, and the build's optimiser of it.
      step: takes a step: (parameter, optimiser, gradient, learning rate).
      value: parameter -> array, a copy.
    """

    optimizer: Callable
    step: Callable
    value: Callable

    def run(self, config, steps=range(4), state=None, start=START, name="Logits/bias"):
        """Returns where steps lead from a start, and the optimiser's state."""
        parameter, optimizer = self.optimizer(name, start, config)
        if state:
            optimizer.set_state(state)
        for step in steps:
            self.step(parameter, optimizer, GRADIENTS[step], RATES[step])
        return self.value(parameter), optimizer.get_state()

    def test_adam_by_its_formula(self):
        config = dataclasses.replace(CONFIG, optimizer="adam", weight_decay=0.01)
        w, m, v = START.copy(), np.zeros(3), np.zeros(3)
        for t, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
            g = gradient + 0.01 * w
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        result, state = self.run(config)
        np.testing.assert_allclose(result, w, rtol=1e-12)
        np.testing.assert_allclose(state["first_moment/Logits/bias"], m, rtol=1e-12)
        np.testing.assert_allclose(state["second_moment/Logits/bias"], v, rtol=1e-12)
        assert state["steps"] == 4

    def test_sgd_keeps_its_velocity_when_the_rate_changes(self):
        config = dataclasses.replace(CONFIG, optimizer="sgd", momentum=0.2, weight_decay=0.01)
        w, u = START.copy(), np.zeros(3)
        for gradient, rate in zip(GRADIENTS, RATES, strict=True):
            u = 0.2 * u + gradient + 0.01 * w
            w = w - rate * u
        result, state = self.run(config)
        np.testing.assert_allclose(result, w, rtol=1e-12)
        np.testing.assert_allclose(state["velocity/Logits/bias"], u, rtol=1e-12)

    @pytest.mark.parametrize(("name", "factor"), [("Logits/bias", 5), ("ConvLSTM_2/bias", 1)])
    def test_the_heads_rate_is_its_own_and_falls_with_the_others(self, name, factor):
        rates = {"learning_rate": CONFIG.learning_rate, "head_learning_rate": 5 * CONFIG.learning_rate}
        config = dataclasses.replace(CONFIG, optimizer="sgd", **rates)
        expected = START - factor * sum(rate * gradient for rate, gradient in zip(RATES, GRADIENTS, strict=True))
        np.testing.assert_allclose(self.run(config, name=name)[0], expected, rtol=1e-12)
        adam = dataclasses.replace(CONFIG, optimizer="adam", **rates)
        first, _ = self.run(adam, steps=range(1), name=name)  # Adam's first step is the rate, whatever the gradient.
        np.testing.assert_allclose(first[:2], START[:2] - factor * 0.1 * np.sign(GRADIENTS[0, :2]), rtol=1e-7)

    @pytest.mark.parametrize(
        "change", [{"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.2}, {"optimizer": "sgd"}]
    )
    def test_going_on_from_the_state_is_going_on(self, change):
        config = dataclasses.replace(CONFIG, **change)
        whole, final = self.run(config)
        half, state = self.run(config, steps=range(2))
        resumed, again = self.run(config, steps=range(2, 4), state=state, start=half)
        np.testing.assert_array_equal(resumed, whole)
        assert final.keys() == again.keys()
        for name in final:
            np.testing.assert_array_equal(final[name], again[name])
