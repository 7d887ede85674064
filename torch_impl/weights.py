"""Canonical weights (name -> NumPy array, axes as TensorFlow's) into a PyTorch model and back, strictly.

The canonical name of a tensor is its path in the module tree, with "/" for ".": modules whose name starts with a small
letter are how this build is cut and drop out (`Mixed_3b.Branch_0.Conv3d_0a_1x1.batch_norm.gamma` is
`Mixed_3b/Branch_0/Conv3d_0a_1x1/gamma`). What a model holds is checked against `common/models/architectures.py`.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import nn

from common import errors
from common.models import architectures, canonical_weights, configs, initial_weights
from torch_impl import conv_lstm, i3d, layers

Model = i3d.I3D | conv_lstm.ConvLSTM

# Number of axes of a kernel -> axes of the canonical one (..., I, O) in the order of PyTorch's (O, I, ...).
_KERNEL_AXES = {2: (1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}


def build_model(
    config: configs.ModelConfig,
    precision: str = "float32",
    seed: int = 0,
    device: torch.device | str | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Returns a model with its initial weights or given ones, in training mode.

    Args:
      config: an `I3DConfig` or a `ConvLSTMConfig`.
      precision: of the computation, one of `configs.PRECISIONS`; with "bfloat16" weights stay float32.
      seed: of the initial weights and, until `layers.seed_dropout`, of dropout.
      device: where its weights lie; without it, PyTorch's default.
      arrays: its weights by canonical name, as `load_weights` takes them; None: the initial ones, drawn from the seed.

    Raises:
      UserError: for an unknown precision, and for arrays that are not the model's.
    """
    errors.check_choice("precision", precision, layers.DTYPES)
    model: Model
    if isinstance(config, configs.I3DConfig):
        model = i3d.I3D(config, precision)
    else:
        model = conv_lstm.ConvLSTM(config, precision)
    model.to(device or torch.get_default_device())
    load_weights(model, initial_weights.initial_weights(config, seed) if arrays is None else arrays)
    layers.seed_dropout(model, seed)
    return model


def load_weights(model: Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Copies canonical arrays into a model; all names and shapes must be exactly the model's, or nothing is copied.

    Args:
      model: the model.
      arrays: canonical name -> float array.

    Raises:
      UserError: lists all missing, unexpected and misshapen names.
    """
    canonical_weights.check(arrays, model.config, "the caller")
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(from_canonical(name, arrays[name]))


def get_weights(model: Model) -> dict[str, np.ndarray]:
    """Returns a copy of every weight and running statistic by canonical name, in the order of the layers."""
    tensors = _tensors(model)
    return {name: to_canonical(name, tensors[name]) for name in architectures.weights(model.config)}


def trainable(model: Model) -> dict[str, nn.Parameter]:
    """Returns the trainable weights by canonical name, in the order of the layers."""
    tensors = cast(dict[str, nn.Parameter], _tensors(model))  # What is not trainable is a buffer.
    return {name: tensors[name] for name, weight in architectures.weights(model.config).items() if weight.trainable}


def to_canonical(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Returns a copy of a tensor that is laid out as a weight is (the weight, its gradient, its momentum).

    Args:
      name: canonical name of the weight.
      tensor: as PyTorch's layers hold it: kernels `[O, I, ...]`.

    Returns:
      Contiguous array, kernels `[..., I, O]`, of the tensor's dtype.
    """
    array = tensor.detach().cpu().numpy()
    return np.array(array.transpose(np.argsort(_axes(name, array.ndim))), order="C")


def from_canonical(name: str, array: np.ndarray) -> torch.Tensor:
    """Returns a new tensor from a canonical array: the inverse of `to_canonical`."""
    return torch.from_numpy(np.array(array.transpose(_axes(name, array.ndim)), order="C"))


def _axes(name: str, ndim: int) -> tuple[int, ...]:
    return _KERNEL_AXES[ndim] if name.endswith("kernel") else tuple(range(ndim))


def _tensors(model: Model) -> dict[str, torch.Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {_canonical_name(path): tensor for path, tensor in named}


def _canonical_name(path: str) -> str:
    *modules, last = path.split(".")
    return "/".join([name for name in modules if name[0].isupper()] + [last])
