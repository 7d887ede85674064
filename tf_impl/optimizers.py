"""Adam and SGD with momentum, their arithmetic written out in full by the settings.

Adam (Kingma & Ba 2015): m = 0.9 m + 0.1 g, v = 0.999 v + 0.001 g^2, w -= rate * (m / (1 - 0.9^t)) /
(sqrt(v / (1 - 0.999^t)) + 1e-8). SGD: u = momentum * u + g, w -= rate * u. Weight decay is L2: g includes
weight_decay * w, for every trainable weight (Table 2 of the paper; D9). State is kept in canonical layout on disk.

Keras' own optimisers differ in three places: Adam adds epsilon before the bias correction, weight decay is apart from
the gradient, and SGD's velocity includes the learning rate. TensorFlow's fused kernels below them do not fix these.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from common.models import architectures, configs
from tf_impl import layers, weights

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
# Canonical names of the slots, per optimiser.
_SLOTS = {"adam": ("first_moment", "second_moment"), "sgd": ("velocity",)}


# Applies a gradient to the weight of a canonical name.
_Update = Callable[[str, tf.Variable, tf.Tensor], None]


class Optimizer:
    """The optimiser of a model.

    Args:
      parameters: canonical name -> trainable weight.
      config: names the optimiser, its momentum and weight decay, and the rate of the last layer.
    """

    def __init__(self, parameters: dict[str, keras.Variable], config: configs.TrainConfig) -> None:
        self._parameters = parameters
        self._config = config
        self._head = architectures.head(config.model).weights
        self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        # PyTorch keeps no velocity at all without momentum; then there is nothing to store either.
        names = () if config.optimizer == "sgd" and config.momentum == 0 else _SLOTS[config.optimizer]
        self._slots = {
            slot: {name: tf.Variable(tf.zeros_like(weight), trainable=False) for name, weight in parameters.items()}
            for slot in names
        }

    def step(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor | float) -> None:
        """Applies gradients.

        Args:
          gradients: of the weights, in their order.
          learning_rate: of this step, float64 scalar.
        """
        steps = self._steps + 1
        layers.assign(self._steps, steps)
        steps = tf.cast(steps, tf.float64)
        rule = self._adam if self._config.optimizer == "adam" else self._sgd
        update, update_head = rule(learning_rate, steps), rule(learning_rate * self._config.head_rate_factor, steps)
        for (name, weight), gradient in zip(self._parameters.items(), gradients, strict=True):
            if self._config.weight_decay:
                gradient += self._config.weight_decay * weight
            (update_head if name in self._head else update)(name, weight.value, gradient)

    def _adam(self, learning_rate: tf.Tensor | float, steps: tf.Tensor) -> _Update:
        # The kernel computes w -= rate m / (sqrt(v) + epsilon): both corrections are in its rate and its epsilon.
        root = tf.sqrt(1 - _BETA_2**steps)
        rate, epsilon = self._scalars(learning_rate * root / (1 - _BETA_1**steps), _EPSILON * root)
        zero, beta_1, beta_2 = self._scalars(0.0, _BETA_1, _BETA_2)
        first, second = self._slots["first_moment"], self._slots["second_moment"]

        def update(name: str, weight: tf.Variable, gradient: tf.Tensor) -> None:
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=first[name].handle,
                v=second[name].handle,
                beta1_power=zero,
                beta2_power=zero,
                lr=rate,
                beta1=beta_1,
                beta2=beta_2,
                epsilon=epsilon,
                grad=gradient,
            )

        return update

    def _sgd(self, learning_rate: tf.Tensor | float, steps: tf.Tensor) -> _Update:
        del steps
        rate, momentum = self._scalars(learning_rate, self._config.momentum)
        velocity = self._slots.get("velocity")

        def update(name: str, weight: tf.Variable, gradient: tf.Tensor) -> None:
            if velocity is None:
                tf.raw_ops.ResourceApplyGradientDescent(var=weight.handle, alpha=rate, delta=gradient)
                return
            tf.raw_ops.ResourceApplyMomentum(
                var=weight.handle, accum=velocity[name].handle, lr=rate, grad=gradient, momentum=momentum
            )

        return update

    def _scalars(self, *values: tf.Tensor | float) -> list[tf.Tensor]:
        """Returns scalars in the dtype of the weights."""
        dtype = next(iter(self._parameters.values())).dtype
        # `tf.cast` alone would take a Python number for a float32, and 0.9 for 0.89999998.
        return [tf.cast(tf.convert_to_tensor(value, tf.float64), dtype) for value in values]

    def get_state(self) -> dict[str, np.ndarray]:
        """Returns `slot/weight name` -> array in canonical layout, and `steps`, an int64 scalar."""
        state = {"steps": np.array(self._steps.numpy())}
        for name in self._parameters:
            for slot, values in self._slots.items():
                state[f"{slot}/{name}"] = weights.to_canonical(name, values[name])
        return state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over what `get_state` returned, from either framework."""
        self._steps.assign(int(state["steps"]))
        for slot, values in self._slots.items():
            for name, value in values.items():
                value.assign(weights.from_canonical(name, state[f"{slot}/{name}"]))
