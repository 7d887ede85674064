"""ConvLSTM classifier (Shi et al. 2015, arXiv:1506.04214, no peepholes: D4), as section 4.2 of the paper uses it.

Per layer, with * a SAME convolution, W of stride 2, U of stride 1, and the gates in the order i, f, c, o:

    i_t, f_t, o_t = sigmoid(W x_t + U * h_(t-1) + b)        g_t = tanh(W x_t + U * h_(t-1) + b)
    c_t = f_t c_(t-1) + i_t g_t                             h_t = o_t tanh(c_t)

then batch norm over N, T, H, W together (in training by the batch's own statistics, D5) and a 2x2 max-pool of each
frame. Inside, tensors are `[N, T, H, W, C]` as on the border.
"""

from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from common.models import architectures, configs
from tf_impl import layers

_STRIDES = (2, 2)
_POOL = (2, 2)


class ConvLSTMLayer(layers.Layer):
    """One ConvLSTM layer from zero initial state. Kernels are `[H, W, I, 4 F]`, gates in order i, f, c, o."""

    def __init__(
        self, channels: int, filters: int, kernel_size: tuple[int, int], dtype: str, name: str | None = None
    ) -> None:
        super().__init__(dtype, name)
        gates = len(architectures.GATES) * filters
        self.kernel = self.add("kernel", (*kernel_size, channels, gates))
        self.recurrent_kernel = self.add("recurrent_kernel", (*kernel_size, filters, gates))
        self.bias = self.add("bias", (gates,))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, T, H, W, I]` -> hidden states `[N, T, ceil(H / 2), ceil(W / 2), F]`."""
        # The input's share of the gates does not wait for the state: all T frames go through one convolution.
        frames = layers.same_conv(layers.flat(x), self.kernel, _STRIDES, self.bias)
        return self.recur(layers.unflat(frames, x.shape[1]))

    def recur(self, gates: tf.Tensor) -> tf.Tensor:
        """Runs through time: the input's share of the gates `[N, T, H, W, 4 F]` -> hidden states `[N, T, H, W, F]`."""
        return plain_recurrence(gates, self.recurrent_kernel)


def plain_recurrence(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Runs through time as the equations say.

    Args:
      inputs: the input's share of the gates, `[N, T, H, W, 4 F]`.
      kernel: recurrent kernel, `[h, w, F, 4 F]`.

    Returns:
      Hidden states, `[N, T, H, W, F]`.
    """
    hidden_states: list[tf.Tensor] = []
    cell = None
    for gates in tf.unstack(inputs, axis=1):
        if hidden_states:
            gates = gates + layers.same_conv(hidden_states[-1], kernel, (1, 1))
        i, f, g, o = tf.split(gates, 4, axis=-1)
        new = tf.sigmoid(i) * tf.tanh(g)
        cell = new if cell is None else tf.sigmoid(f) * cell + new
        hidden_states.append(tf.sigmoid(o) * tf.tanh(cell))
    return tf.stack(hidden_states, axis=1)


class FrameBatchNorm(layers.BatchNorm):
    """Batch norm over N, T, H, W together."""

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, T, H, W, C]` -> the same shape."""
        return layers.unflat(super().call(layers.flat(x), training), x.shape[1])


class FramePool(layers.Layer):
    """2x2 max-pool of each frame, stride 2, without padding."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, T, H, W, C]` -> `[N, T, H // 2, W // 2, C]`."""
        return layers.unflat(tf.nn.max_pool2d(layers.flat(x), _POOL, _POOL, "VALID"), x.shape[1])


@keras.saving.register_keras_serializable("tf_impl")
class ConvLSTM(keras.Model):
    """The whole network. Children that bear an endpoint's name compute it.

    Args:
      config: sizes and options.
      precision: "float32", "float64", or "bfloat16": convolutions and activations in bfloat16; weights, batch norm's
        arithmetic, the dense layer and the logits in float32.
    """

    def __init__(self, config: configs.ConvLSTMConfig, precision: str = "float32") -> None:
        dtype = layers.DTYPES[precision]
        super().__init__(name="conv_lstm", dtype=dtype, autocast=False)
        self.config, self.precision = config, precision
        shared = layers.CenterAndScale(config.filters, dtype, "BatchNorm") if config.share_batch_norm else None
        if shared:
            self.BatchNorm = shared
        channels = 3
        for number in range(1, config.num_layers + 1):
            for layer in (
                ConvLSTMLayer(channels, config.filters, config.kernel_size, dtype, f"ConvLSTM_{number}"),
                FrameBatchNorm(config.filters, dtype, shared, f"BatchNorm_{number}"),
                FramePool(name=f"MaxPool_{number}"),
            ):
                setattr(self, layer.name, layer)
            channels = config.filters
        self.dropout = layers.Dropout(config.dropout)
        features = architectures.weights(config)["Logits/kernel"].shape[0]
        self.Logits = layers.Dense(features, config.num_classes, dtype, "Logits")
        self.build((None, *config.input_shape, 3))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Lets Keras know the shapes of all inputs, for `model.summary()`."""
        for row in architectures.layers(self.config):
            layer = self.get_layer(row.name)
            layer.build((None, *layer.kernel.shape[:1]) if row.name == "Logits" else input_shape)
            input_shape = (None, *row.output_shape)

    def call(
        self, clips: tf.Tensor, return_endpoints: bool = False, training: bool = False
    ) -> tf.Tensor | tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Scores clips.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.
          return_endpoints: also return every endpoint.
          training: batch norm and dropout work as in training, but for layers whose `trainable` is False.

        Returns:
          Logits `[N, K]`; with `return_endpoints`, also name -> `[N, T, H', W', C]` (logits `[N, K]`). Each endpoint
          is on the path to the logits, so that their gradient with respect to it exists.
        """
        endpoints = {}
        x = layers.normalize(clips, self.config.normalization, self.compute_dtype)
        for name in self._names():
            layer = self.get_layer(name)
            trains = training and layer.trainable
            if name.startswith("ConvLSTM") and name != "ConvLSTM_1":
                x = self.dropout(x, training=trains)
            x = endpoints[name] = layer(x, training=trains)
        logits = endpoints["Logits"] = self._logits(x)
        return (logits, endpoints) if return_endpoints else logits

    def prepare(self, clips: tf.Tensor) -> tf.Tensor:
        """Convolves each frame once, for any number of perturbations over time of the same clips (`perturbed`).

        A perturbation mixes frames and the first convolution is linear, so it can be applied before the mixing.
        Inference mode.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.

        Returns:
          `[N, T + 1, H', W', 4 F]`; the last of T + 1 frames is one of ones (see `layers.with_ones`).
        """
        layer = self.ConvLSTM_1
        x = layers.frames_and_ones(clips, self.config.normalization, self.variable_dtype)
        return layers.unflat(layers.same_conv(layers.flat(x), layer.kernel, _STRIDES), x.shape[1])

    def perturbed(self, prepared: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Scores perturbed clips: the logits of `matrix` · clips, to rounding. Inference mode.

        Args:
          prepared: of N clips, or of one that meets all N matrices; see `prepare`.
          matrix: `[N, T, T]`, in which the result is differentiable.

        Returns:
          Logits `[N, K]`.
        """
        layer = self.ConvLSTM_1
        rows = layers.with_ones(matrix, self.config.normalization)
        maps = tf.reshape(prepared, (-1, rows.shape[2], np.prod(prepared.shape[2:])))
        gates = tf.reshape(rows @ maps, (-1, rows.shape[1], *prepared.shape[2:])) + layer.bias
        x = layer.recur(tf.cast(gates, self.compute_dtype))
        for name in self._names()[1:]:
            x = self.get_layer(name)(x)
        return self._logits(x)

    def _names(self) -> list[str]:
        """Returns the endpoints before the logits, in order."""
        numbers = range(1, self.config.num_layers + 1)
        return [f"{kind}_{number}" for number in numbers for kind in ("ConvLSTM", "BatchNorm", "MaxPool")]

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        """Activations of the last pool, `[N, T, H, W, C]` -> logits `[N, K]`."""
        frames = x[:, -1:] if self.config.head == "last_frame" else x
        return self.Logits(tf.reshape(frames, (-1, self.Logits.kernel.shape[0])))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes, as JSON."""
        return {"config": configs.to_dict(self.config), "precision": self.precision}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "ConvLSTM":
        """Returns a new model from what `get_config` returned."""
        return cls(cast(configs.ConvLSTMConfig, configs.model_config_from_dict(config["config"])), config["precision"])
