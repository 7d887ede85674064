"""Canonical weights (name -> NumPy array, axes as TensorFlow's) into a Keras model and back, strictly.

The canonical name of a tensor is its path in the layer tree, joined by "/": layers whose attribute starts with a small
letter are how this build is cut and drop out (`Mixed_3b.Branch_0.Conv3d_0a_1x1.batch_norm.gamma` is
`Mixed_3b/Branch_0/Conv3d_0a_1x1/gamma`). What a model holds is checked against `common/models/architectures.py`.
"""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from common import errors
from common.models import architectures, canonical_weights, configs, initial_weights
from tf_impl import conv_lstm, i3d, layers

Model = i3d.I3D | conv_lstm.ConvLSTM


def build_model(
    config: configs.ModelConfig,
    precision: str = "float32",
    seed: int = 0,
    device: str | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Model:
    """Returns a model with its initial weights or given ones.

    Args:
      config: an `I3DConfig` or a `ConvLSTMConfig`.
      precision: of the computation, one of `configs.PRECISIONS`; with "bfloat16" weights stay float32.
      seed: of the initial weights and, until `layers.seed_dropout`, of dropout.
      device: where its weights lie; without it, TensorFlow's default.
      arrays: its weights by canonical name, as `load_weights` takes them; None: the initial ones, drawn from the seed.

    Raises:
      UserError: for an unknown precision, and for arrays that are not the model's.
    """
    errors.check_choice("precision", precision, layers.DTYPES)
    with tf.device(device):
        model: Model
        if isinstance(config, configs.I3DConfig):
            model = i3d.I3D(config, precision)
        else:
            model = conv_lstm.ConvLSTM(config, precision)
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
    for name, variable in _tensors(model).items():
        variable.assign(from_canonical(name, arrays[name]))


def get_weights(model: Model) -> dict[str, np.ndarray]:
    """Returns a copy of every weight and running statistic by canonical name, in the order of the layers."""
    tensors = _tensors(model)
    return {name: to_canonical(name, tensors[name]) for name in architectures.weights(model.config)}


def trainable(model: Model) -> dict[str, keras.Variable]:
    """Returns the trainable weights by canonical name, in the order of the layers."""
    tensors = _tensors(model)
    return {name: tensors[name] for name, weight in architectures.weights(model.config).items() if weight.trainable}


def to_canonical(name: str, tensor: tf.Tensor | tf.Variable | keras.Variable) -> np.ndarray:
    """Returns a copy of a tensor that is laid out as a weight is (the weight, its gradient, its momentum).

    Args:
      name: canonical name of the weight.
      tensor: as Keras' layers hold it, which is the canonical layout.

    Returns:
      Contiguous array of the tensor's dtype.
    """
    del name
    return np.array(tf.convert_to_tensor(tensor), order="C")


def from_canonical(name: str, array: np.ndarray) -> tf.Tensor:
    """Returns a new tensor from a canonical array: the inverse of `to_canonical`."""
    del name
    return tf.constant(array)


def _tensors(model: Model) -> dict[str, keras.Variable]:
    tensors: dict[str, keras.Variable] = {}
    for path, layer in layers.walk(model):
        for name, value in vars(layer).items():
            # What several layers share bears the name of the first that has it.
            if isinstance(value, keras.Variable) and not any(value is other for other in tensors.values()):
                tensors[_canonical_name((*path, name))] = value
    return tensors


def _canonical_name(path: tuple[str, ...]) -> str:
    *modules, last = path
    return "/".join([name for name in modules if name[0].isupper()] + [last])
