"""Both models as an ordinary Keras port writes them: what `tf_impl` is compared with, in speed and in numbers.

Each is a functional model of Keras' own layers in float32: `Conv3D`, `BatchNormalization` and `ReLU` one after the
other, `MaxPooling3D` with SAME padding, `ConvLSTM2D` with its loop over time. Nothing here comes from `tf_impl` but
the choice of Keras' backend, so that equal numbers say something.
"""

from collections.abc import Mapping

import tf_impl  # noqa: F401  (first: it chooses Keras' backend, and holds back TensorFlow's start-up lines)

# isort: split
import keras
import numpy as np
from keras import layers

from common.models import architectures, configs

# A layer, and the canonical names of its weights in Keras' order.
_Named = tuple[keras.Layer, list[str]]


def build_model(config: configs.ModelConfig, arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """Returns the plain build of a model, without dropout, with the given canonical weights.

    Args:
      config: an `I3DConfig` or a `ConvLSTMConfig`.
      arrays: canonical name -> array, as `initial_weights` returns them.

    Returns:
      Model from clips, float `[N, T, H, W, 3]`, 0…255, to logits `[N, K]`.
    """
    clips = keras.Input((*config.input_shape, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(clips) if config.normalization == "minus_one_to_one" else clips
    named: list[_Named] = []
    logits = _i3d(x, config, named) if isinstance(config, configs.I3DConfig) else _conv_lstm(x, config, named)
    for layer, names in named:
        layer.set_weights([arrays[name] for name in names])
    return keras.Model(clips, logits)


def _i3d(x: keras.KerasTensor, config: configs.I3DConfig, named: list[_Named]) -> keras.KerasTensor:
    for block in architectures.i3d_blocks(config):
        if isinstance(block, architectures.Inception):
            x = _inception(x, block, named)
        else:
            x = _unit(x, block.name, block, named)
    head = layers.Conv3D(config.num_classes, 1)
    named.append((head, ["Logits/Conv3d_0c_1x1/kernel", "Logits/Conv3d_0c_1x1/bias"]))
    return layers.Flatten()(head(layers.GlobalAveragePooling3D(keepdims=True)(x)))


def _inception(x: keras.KerasTensor, block: architectures.Inception, named: list[_Named]) -> keras.KerasTensor:
    outputs = []
    for number, units in enumerate(block.branches):
        y = x
        for unit in units:
            y = _unit(y, f"{block.name}/Branch_{number}/{unit.name}", unit, named)
        outputs.append(y)
    return layers.Concatenate()(outputs)


def _unit(
    x: keras.KerasTensor, name: str, unit: architectures.Conv | architectures.MaxPool, named: list[_Named]
) -> keras.KerasTensor:
    if isinstance(unit, architectures.MaxPool):
        return layers.MaxPooling3D(unit.kernel, unit.strides, padding="same")(x)
    conv = layers.Conv3D(unit.filters, unit.kernel, unit.strides, padding="same", use_bias=False)
    named.append((conv, [f"{name}/kernel"]))
    return layers.ReLU()(_batch_norm(conv(x), name, name, named))


def _batch_norm(x: keras.KerasTensor, weights: str, statistics: str, named: list[_Named]) -> keras.KerasTensor:
    """Applies batch norm; `weights` and `statistics` are the canonical names of what is trained and what runs."""
    norm = layers.BatchNormalization(epsilon=1e-3, momentum=0.99)
    names = [f"{weights}/gamma", f"{weights}/beta", f"{statistics}/moving_mean", f"{statistics}/moving_variance"]
    named.append((norm, names))
    return norm(x)


def _conv_lstm(x: keras.KerasTensor, config: configs.ConvLSTMConfig, named: list[_Named]) -> keras.KerasTensor:
    for number in range(1, config.num_layers + 1):
        name, norm = f"ConvLSTM_{number}", f"BatchNorm_{number}"
        layer = layers.ConvLSTM2D(
            config.filters,
            config.kernel_size,
            strides=2,
            padding="same",
            recurrent_activation="sigmoid",
            return_sequences=True,
        )
        named.append((layer, [f"{name}/kernel", f"{name}/recurrent_kernel", f"{name}/bias"]))
        # Keras' layers share no weights but whole: each has a copy of a shared gamma and beta.
        x = _batch_norm(layer(x), "BatchNorm" if config.share_batch_norm else norm, norm, named)
        x = layers.MaxPooling3D((1, 2, 2))(x)
    head = layers.Dense(config.num_classes)
    named.append((head, ["Logits/kernel", "Logits/bias"]))
    return head(layers.Flatten()(x[:, -1] if config.head == "last_frame" else x))
