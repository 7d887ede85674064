"""I3D, the inflated Inception-v1 (Carreira & Zisserman 2017, arXiv:1705.07750), as section 4.2 of the paper uses it.

The layers come from the table in `common/architectures.py`; endpoints bear DeepMind's names. The paper's change: the
temporal stride of Conv3d_1a_7x7 and MaxPool3d_4a_3x3 is 1, so that 16 frames give 8 activations at Mixed_5c.
"""

from typing import Any

from tf_impl import backend  # noqa: F401  (first: it chooses Keras' backend)

# isort: split
import keras
import tensorflow as tf

from common import architectures, configs
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
    """Average over time and space, dropout, 1x1x1 convolution with bias."""

    def __init__(self, channels: int, num_classes: int, dropout: float, dtype: str) -> None:
        super().__init__(dtype, "Logits")
        self.dropout = layers.Dropout(dropout)
        self.Conv3d_0c_1x1 = layers.PointwiseConv3D(channels, num_classes, dtype)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, T, H, W, C]` -> logits `[N, K]`."""
        # A mean of the mean equals the mean of the logits of every position: the convolution is linear.
        x = tf.reduce_mean(tf.cast(x, self.variable_dtype), (1, 2, 3))
        return self.Conv3d_0c_1x1(self.dropout(x, training=training))


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
        self.Logits = Head(channels, config.num_classes, config.dropout, dtype)
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
          training: batch norm and dropout work as in training.

        Returns:
          Logits `[N, K]`; with `return_endpoints`, also name -> `[N, T', H', W', C]` (logits `[N, K]`). Each endpoint
          is on the path to the logits, so that their gradient with respect to it exists.
        """
        endpoints = {}
        x = layers.normalize(clips, self.config.normalization, self.compute_dtype)
        for block in self.layers:
            x = endpoints[block.name] = block(x, training=training)
        return (x, endpoints) if return_endpoints else x

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes, as JSON."""
        return {"config": configs.to_dict(self.config), "precision": self.precision}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "I3D":
        """Returns a new model from what `get_config` returned."""
        return cls(configs.model_config_from_dict(config["config"]), config["precision"])


def _block(channels: int, block: architectures.Block, dtype: str) -> layers.Layer:
    if isinstance(block, architectures.Inception):
        return InceptionBlock(channels, block, dtype)
    if isinstance(block, architectures.MaxPool):
        return layers.MaxPool(block.kernel, block.strides, block.name)
    return layers.Unit3D(channels, block, dtype)


def _filters(channels: int, block: architectures.Block) -> int:
    """Returns the channels that come out where `channels` go in."""
    if isinstance(block, architectures.Inception):
        return sum(branch[-1].filters for branch in block.branches)
    return channels if isinstance(block, architectures.MaxPool) else block.filters
