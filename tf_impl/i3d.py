"""I3D, the inflated Inception-v1 (Carreira & Zisserman 2017, arXiv:1705.07750), as section 4.2 of the paper uses it.

The layers come from the table in `common/models/architectures.py`; endpoints bear DeepMind's names. The paper's change:
the temporal stride of Conv3d_1a_7x7 and MaxPool3d_4a_3x3 is 1, so that 16 frames give 8 activations at Mixed_5c.
"""

import functools
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from common.models import architectures, configs, padding
from tf_impl import layers


class InceptionBlock(layers.Layer):
    """Four branches, concatenated along channels."""

    def __init__(self, channels: int, block: architectures.Inception, dtype: str) -> None:
        super().__init__(dtype, block.name)
        self._branches = []
        for number, units in enumerate(block.branches):
            branch = _Branch(channels, units, dtype, f"Branch_{number}")
            setattr(self, branch.name, branch)
            self._branches.append(branch)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, T, H, W, C]` -> `[N, T, H, W, C']`."""
        return tf.concat([branch(x, training=training) for branch in self._branches], axis=-1)


class _Branch(layers.Layer):
    """A chain of units."""

    def __init__(
        self, channels: int, units: tuple[architectures.Conv | architectures.MaxPool, ...], dtype: str, name: str
    ) -> None:
        super().__init__(dtype, name)
        self._units = []
        for unit in units:
            layer = _block(channels, unit, dtype)
            setattr(self, unit.name, layer)
            self._units.append(layer)
            channels = _filters(channels, unit)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for unit in self._units:
            x = unit(x, training=training)
        return x


class Head(layers.Layer):
    """Average over time and space, dropout, 1x1x1 convolution with bias.

    Args:
      channels: C.
      num_classes: K.
      dropout: probability of dropping.
      pool: window of an average pool with stride 1 before the dropout, whose results are averaged; None: all there is.
      dtype: of weights and logits.
    """

    def __init__(
        self, channels: int, num_classes: int, dropout: float, pool: tuple[int, int, int] | None, dtype: str
    ) -> None:
        super().__init__(dtype, "Logits")
        self.pool = pool
        self.dropout = layers.Dropout(dropout)
        self.Conv3d_0c_1x1 = layers.PointwiseConv3D(channels, num_classes, dtype)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, T, H, W, C]` -> logits `[N, K]`."""
        # The convolution is linear: the mean of the logits of every position are the logits of the mean.
        x = tf.cast(x, self.variable_dtype)
        if self.pool is None:
            return self.Conv3d_0c_1x1(self.dropout(tf.reduce_mean(x, (1, 2, 3)), training=training))
        for axis, size in enumerate(self.pool, start=1):  # Not `tf.nn.avg_pool3d`, which has no float64 on CPUs.
            x = tf.reduce_mean(tf.signal.frame(x, size, 1, axis=axis), axis + 1)
        return self.Conv3d_0c_1x1(tf.reduce_mean(self.dropout(x, training=training), (1, 2, 3)))


@keras.saving.register_keras_serializable("tf_impl")
class I3D(keras.Model):
    """The whole network. Children bear the endpoints' names, in order.

    Args:
      config: sizes and options.
      precision: "float32", "float64", or "bfloat16": convolutions and activations in bfloat16; weights, batch norm's
        arithmetic, the head and the logits in float32.
    """

    def __init__(self, config: configs.I3DConfig, precision: str = "float32") -> None:
        dtype = layers.DTYPES[precision]
        super().__init__(name="i3d", dtype=dtype, autocast=False)
        self.config, self.precision = config, precision
        channels = 3
        for block in architectures.i3d_blocks(config):
            setattr(self, block.name, _block(channels, block, dtype))
            channels = _filters(channels, block)
        self.Logits = Head(
            channels, config.num_classes, config.dropout, architectures.I3D_HEAD_POOLS[config.head], dtype
        )
        self.build((None, *config.input_shape, 3))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Lets Keras know the shapes of all inputs, for `model.summary()`."""
        for row in architectures.layers(self.config):
            self.get_layer(row.name).build(input_shape)
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
          Logits `[N, K]`; with `return_endpoints`, also name -> `[N, T', H', W', C]` (logits `[N, K]`). Each endpoint
          is on the path to the logits, so that their gradient with respect to it exists.
        """
        endpoints = {}
        x = layers.normalize(clips, self.config.normalization, self.compute_dtype)
        for block in self.layers:
            x = endpoints[block.name] = block(x, training=training and block.trainable)
        return (x, endpoints) if return_endpoints else x

    def prepare(self, clips: tf.Tensor) -> tf.Tensor:
        """Convolves each frame once, for any number of perturbations over time of the same clips (`perturbed`).

        A perturbation mixes frames and the first convolution is linear, so it can be applied before the mixing: by the
        kernel of each of its taps in time alone. Inference mode.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.

        Returns:
          `[N, taps (T + 1), H', W', C]`; the last of T + 1 frames is one of ones (see `layers.with_ones`).
        """
        unit = self.Conv3d_1a_7x7
        x = layers.frames_and_ones(clips, self.config.normalization, self.variable_dtype)
        scale, _ = unit.batch_norm.folded()
        taps, height, width, channels, filters = unit.conv.kernel.shape
        kernel = tf.transpose(unit.conv.kernel * scale, (1, 2, 3, 0, 4))
        kernel = tf.reshape(kernel, (height, width, channels, taps * filters))
        maps = layers.same_conv(layers.flat(x), kernel, unit.conv.strides[1:])
        maps = tf.reshape(maps, (-1, x.shape[1], *maps.shape[1:3], taps, filters))
        maps = tf.transpose(maps, (0, 4, 1, 2, 3, 5))  # [N, taps, T + 1, H', W', C]
        return tf.reshape(maps, (-1, taps * x.shape[1], *maps.shape[3:]))

    def perturbed(self, prepared: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        """Scores perturbed clips: the logits of `matrix` · clips, to rounding. Inference mode.

        Args:
          prepared: of N clips, or of one that meets all N matrices; see `prepare`.
          matrix: `[N, T, T]`, in which the result is differentiable.

        Returns:
          Logits `[N, K]`.
        """
        unit = self.Conv3d_1a_7x7
        rows = layers.with_ones(matrix, self.config.normalization)
        taps, stride = unit.conv.kernel.shape[0], unit.conv.strides[0]
        time, frames = rows.shape[1:]
        around = padding.same_padding(time, taps, stride)
        rows = tf.pad(rows, ((0, 0), around, (0, 0)))
        starts = range(0, time + sum(around) - taps + 1, stride)
        windows = tf.stack([rows[:, start : start + taps] for start in starts], axis=1)  # [N, T', taps, T + 1]
        windows = tf.reshape(windows, (-1, len(starts), taps * frames))
        maps = tf.reshape(prepared, (-1, taps * frames, np.prod(prepared.shape[2:])))
        x = tf.reshape(windows @ maps, (-1, len(starts), *prepared.shape[2:]))
        _, shift = unit.batch_norm.folded()
        x = tf.cast(tf.nn.relu(x + shift), self.compute_dtype)
        for block in self.layers[1:]:
            x = block(x)
        return x

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes, as JSON."""
        return {"config": configs.to_dict(self.config), "precision": self.precision}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "I3D":
        """Returns a new model from what `get_config` returned."""
        return cls(cast(configs.I3DConfig, configs.model_config_from_dict(config["config"])), config["precision"])


def _block(channels: int, block: architectures.Block, dtype: str) -> layers.Layer:
    if isinstance(block, architectures.Inception):
        return InceptionBlock(channels, block, dtype)
    if isinstance(block, architectures.MaxPool):
        return layers.MaxPool(block.kernel, block.strides, block.name)
    return layers.Unit3D(channels, block, dtype)


def _filters(channels: int, block: architectures.Block) -> int:
    """Returns the channels that come out where `channels` go in."""
    if isinstance(block, architectures.Inception):
        return sum(functools.reduce(_filters, branch, channels) for branch in block.branches)
    return channels if isinstance(block, architectures.MaxPool) else block.filters
