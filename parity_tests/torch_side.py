"""One model in PyTorch: its outcome on a batch, in NumPy."""

import numpy as np
import torch

from common.models import configs
from parity_tests.twins import Outcome
from torch_impl import weights


def outcome(
    config: configs.ModelConfig,
    arrays: dict[str, np.ndarray],
    batch: tuple[np.ndarray, np.ndarray],
    precision: str,
    training: bool,
) -> Outcome:
    """Runs the model on a batch.

    Args:
      config: the model.
      arrays: its canonical weights.
      batch: frames, uint8 [N, T, H, W, 3], and labels, int64 [N].
      precision: of the computation.
      training: batch norm and dropout work as in training.
    """
    model = weights.build_model(config, precision, device="cpu", arrays=arrays).train(training)
    frames, labels = (torch.from_numpy(array) for array in batch)
    logits, endpoints = model(frames, return_endpoints=True)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    trainable = weights.trainable(model)
    gradients = torch.autograd.grad(loss, list(trainable.values()))
    return Outcome(
        {name: value.detach().numpy() for name, value in endpoints.items()},
        loss.detach().numpy(),
        {name: weights.to_canonical(name, value) for name, value in zip(trainable, gradients, strict=True)},
        weights.get_weights(model),
    )
