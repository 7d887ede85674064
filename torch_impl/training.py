"""Training in PyTorch: one step and one prediction; all the rest is `common.runs.training_loop`."""

import inspect
import platform
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import distributed, nn
from torch.nn import functional, parallel

from common.models import architectures, configs
from common.runs import training_loop
from torch_impl import devices, layers, optimizers, processes, transfers, weights


def train(config: configs.TrainConfig, settings: training_loop.TrainSettings, device: str = "auto") -> None:
    """Trains a model, from the start or from the run's checkpoint (see `training_loop.train`).

    Args:
      config: model and training.
      settings: where to train, and how.
      device: "auto", "cpu" or "gpu".
    """
    with processes.joined(device) as those:
        training_loop.train(config, settings, lambda final: Trainer(final, device), those)


def versions() -> dict[str, str]:
    """Returns the versions of the libraries in use, by name."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def _sum_gradients(state: None, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Adds up the gradients of all processes, where PyTorch's own way would take their mean."""
    del state
    summed = distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
    return summed.then(lambda future: future.value()[0])


class Trainer:
    """A model, its optimiser, and one step of training (see `training_loop.Trainer`)."""

    framework = "torch"

    def __init__(self, config: configs.TrainConfig, device: str = "auto") -> None:
        self._device = devices.find_device(device, config.precision)
        self.model = weights.build_model(config.model, config.precision, config.seed, self._device)
        parameters = weights.trainable(self.model)
        frozen = architectures.frozen_layers(config)
        self._frozen = [self.model.get_submodule(layer.name) for layer in frozen]
        for name in parameters.keys() & {name for layer in frozen for name in layer.weights}:
            parameters.pop(name).requires_grad_(False)
        self.optimizer = optimizers.Optimizer(parameters, config)
        self._whole: nn.Module = self.model  # With gradients that are summed over all processes.
        self._shared = layers.num_processes() > 1
        if self._shared:
            ids = [torch.cuda.current_device()] if self._device.type == "cuda" else None
            # Running statistics are the same everywhere: nothing is to be sent for them. PyTorch 2.13 renamed this.
            parameters_of = inspect.signature(parallel.DistributedDataParallel).parameters
            old, new = "broadcast_buffers", "forward_sync_buffers"
            unsent: dict[str, Any] = {new if new in parameters_of else old: False}
            self._whole = parallel.DistributedDataParallel(self.model, device_ids=ids, **unsent)
            self._whole.register_comm_hook(None, _sum_gradients)

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""
        return versions()

    def train_step(
        self, frames: np.ndarray, labels: np.ndarray, learning_rate: float, seed: int, total: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes one step on the mean cross entropy of a batch, which all processes share.

        Args:
          frames: uint8 [N, T, H, W, 3].
          labels: int64 [N].
          learning_rate: of this step.
          seed: of this step's dropout.
          total: clips of the batch, in all processes; 0: those that are given.

        Returns:
          Mean loss and number of right guesses, scalars on the device.
        """
        self.model.train()
        for module in self._frozen:
            module.eval()
        layers.seed_dropout(self.model, seed)
        targets = transfers.to_device(labels, self._device)
        logits = self._whole(transfers.to_device(frames, self._device))
        loss = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.0) / (total or len(labels))
        loss.backward()
        self.optimizer.step(learning_rate)
        loss, correct = loss.detach(), (logits.detach().argmax(dim=1) == targets).sum()
        if self._shared:
            loss, correct = sums = torch.stack([loss, correct.to(loss.dtype)])
            distributed.all_reduce(sums)
        return loss, correct

    def predict(self, frames: np.ndarray) -> ArrayLike:
        """Returns logits [N, K] of clips uint8 [N, T, H, W, 3], in inference mode; see `prediction.predict`."""
        self.model.eval()
        with torch.inference_mode():
            return transfers.to_host(self.model(transfers.to_device(frames, self._device)))

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the canonical weights, in the precision they are held in."""
        return weights.get_weights(self.model)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Returns the optimiser's state in canonical layout."""
        return self.optimizer.get_state()

    def load(self, arrays: dict[str, np.ndarray], optimizer_state: dict[str, np.ndarray]) -> None:
        """Takes over what `weights` and `optimizer_state` returned, in either framework."""
        weights.load_weights(self.model, arrays)
        self.optimizer.set_state(optimizer_state)
