"""Adam and SGD with momentum, their arithmetic written out in full by the settings.

Adam (Kingma & Ba 2015): m = 0.9 m + 0.1 g, v = 0.999 v + 0.001 g^2, w -= rate * (m / (1 - 0.9^t)) /
(sqrt(v / (1 - 0.999^t)) + 1e-8). SGD: u = momentum * u + g, w -= rate * u. Weight decay is L2: g includes
weight_decay * w, for every trainable weight (Table 2 of the paper; D9). State is kept in canonical layout on disk.
"""

import numpy as np
import torch
from torch import nn

from common.models import architectures, configs
from torch_impl import weights

# Canonical name of a slot -> PyTorch's, per optimiser.
_SLOTS = {
    "adam": {"first_moment": "exp_avg", "second_moment": "exp_avg_sq"},
    "sgd": {"velocity": "momentum_buffer"},
}


class Optimizer:
    """The optimiser of a model.

    Args:
      parameters: canonical name -> trainable weight.
      config: names the optimiser, its momentum and weight decay, and the rate of the last layer.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], config: configs.TrainConfig) -> None:
        self._parameters = parameters
        self._slots = _SLOTS[config.optimizer]
        self._steps = 0
        # PyTorch keeps no velocity at all without momentum; then there is nothing to store either.
        if config.optimizer == "sgd" and config.momentum == 0:
            self._slots = {}
        head = architectures.head(config.model).weights
        self._rate_factors = (1.0, config.head_rate_factor)
        groups = [
            {"params": [parameter for name, parameter in parameters.items() if (name in head) == is_head]}
            for is_head in (False, True)
        ]
        if config.optimizer == "adam":
            self._optimizer: torch.optim.Optimizer = torch.optim.Adam(
                groups,
                lr=config.learning_rate,
                betas=(0.9, 0.999),
                eps=1e-8,
                weight_decay=config.weight_decay,
                amsgrad=False,
                fused=True,
            )
        else:
            self._optimizer = torch.optim.SGD(
                groups,
                lr=config.learning_rate,
                momentum=config.momentum,
                dampening=0.0,
                weight_decay=config.weight_decay,
                nesterov=False,
                fused=True,
            )

    def step(self, learning_rate: float) -> None:
        """Applies the gradients that the weights hold, and clears them.

        Args:
          learning_rate: of this step.
        """
        for group, factor in zip(self._optimizer.param_groups, self._rate_factors, strict=True):
            group["lr"] = learning_rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps += 1

    def get_state(self) -> dict[str, np.ndarray]:
        """Returns `slot/weight name` -> array in canonical layout, and `steps`, an int64 scalar."""
        state = {"steps": np.array(self._steps, np.int64)}
        for name, parameter in self._parameters.items():
            values = self._optimizer.state[parameter]
            for slot, key in self._slots.items():
                value = values[key] if key in values else torch.zeros_like(parameter)
                state[f"{slot}/{name}"] = weights.to_canonical(name, value)
        return state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over what `get_state` returned, from either framework."""
        self._steps = int(state["steps"])
        for name, parameter in self._parameters.items():
            values = {
                key: torch.empty_like(parameter).copy_(weights.from_canonical(name, state[f"{slot}/{name}"]))
                for slot, key in self._slots.items()
            }
            if "first_moment" in self._slots:
                values["step"] = torch.tensor(float(self._steps), dtype=torch.float32, device=parameter.device)
            self._optimizer.state[parameter] = values
