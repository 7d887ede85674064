"""Layers that the models share, in TensorFlow: the same functions as PyTorch's, to rounding.

Inside, tensors are `[N, T, H, W, C]` as on the border: channels last is what oneDNN and Keras compute fastest in. Every
number that the two frameworks set differently is stated here: SAME padding (TensorFlow's own), max-pool padding of
-inf, batch norm's epsilon, momentum and unbiased running variance (`common/models/architectures.py`).
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common import errors
from common.explaining import model_checks
from common.models import architectures
from tf_impl import processes

# Precision -> Keras' policy: `variable_dtype` of weights, statistics and logits, `compute_dtype` of convolutions and
# activations (bfloat16: float32 and bfloat16).
DTYPES = {
    "float32": "float32",
    "tf32": "float32",  # What rounds the factors of products is `devices`.
    "float64": "float64",
    "bfloat16": "mixed_bfloat16",
}


class Layer(keras.layers.Layer):
    """A Keras layer whose weights are there from the start: their shapes come from the tables, not from the data.

    Args:
      dtype: policy, one of `DTYPES`.
      name: of the layer in Keras' tables; without it, Keras makes one.
    """

    def __init__(self, dtype: str = "float32", name: str | None = None) -> None:
        # Without autocast a layer sees its weights and input in their own dtypes, and every cast is written out.
        super().__init__(dtype=dtype, name=name, autocast=False)

    def add(self, name: str, shape: tuple[int, ...], initializer: str = "zeros", trainable: bool = True) -> Any:
        """Returns a new weight."""
        return self.add_weight(name=name, shape=shape, initializer=initializer, trainable=trainable, autocast=False)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Lets Keras know the shape of the input, for `model.summary()`."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape that comes out where `input_shape` goes in."""
        return keras.Operation.compute_output_spec(self, keras.KerasTensor(input_shape, self.compute_dtype)).shape


def walk(layer: keras.Layer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], keras.Layer]]:
    """Yields a layer and all below it, each with the attributes that lead there, parents first, in order."""
    yield path, layer
    for name, value in vars(layer).items():
        if isinstance(value, keras.Layer):
            yield from walk(value, (*path, name))


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Gives a variable a value; in a replica of a strategy, to the replica's own copy: all compute the same value.

    A strategy's variables refuse their own `assign` there.
    """
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


def normalize(clips: tf.Tensor, normalization: str, dtype: str) -> tf.Tensor:
    """Brings pixels into the range that a model computes with.

    Args:
      clips: any shape, uint8 or float, 0…255.
      normalization: "minus_one_to_one" (x / 127.5 - 1) or "raw" (x).
      dtype: of the result.
    """
    # Pixels reach full precision first: bfloat16 holds no more than 8 bits, and a mask blends pixels.
    full = "float32" if dtype == "bfloat16" else dtype
    pixels = tf.cast(clips, full)
    return tf.cast(pixels / 127.5 - 1 if normalization == "minus_one_to_one" else pixels, dtype)


def frames_and_ones(clips: tf.Tensor, normalization: str, dtype: str) -> tf.Tensor:
    """Normalises clips and appends a frame of ones, `[N, T, H, W, C]` -> `[N, T + 1, H, W, C]` (see `with_ones`)."""
    x = normalize(clips, normalization, dtype)
    return tf.concat([x, tf.ones_like(x[:, :1])], axis=1)


def with_ones(matrix: tf.Tensor, normalization: str) -> tf.Tensor:
    """Returns the matrix that does to normalised frames what `matrix` does to pixels.

    n(A x) = A n(x) + (row sums of A - 1) where n(x) = x / 127.5 - 1: a further column, for a frame of ones, which is 0
    in every row that is a mean.

    Args:
      matrix: A, `[N, T, T]`.
      normalization: "minus_one_to_one" or "raw" (n is linear, the further column 0).

    Returns:
      `[N, T, T + 1]`.
    """
    excess = tf.reduce_sum(matrix, axis=2, keepdims=True) - 1
    return tf.concat([matrix, excess if normalization == "minus_one_to_one" else 0 * excess], axis=2)


def flat(x: tf.Tensor) -> tf.Tensor:
    """`[N, T, H, W, C]` -> `[N T, H, W, C]`."""
    return tf.reshape(x, (-1, *x.shape[2:]))


def unflat(x: tf.Tensor, time: int) -> tf.Tensor:
    """`[N T, H, W, C]` -> `[N, T, H, W, C]`."""
    return tf.reshape(x, (-1, time, *x.shape[1:]))


class SameConv3D(Layer):
    """Convolution with SAME padding and no bias. `kernel` is `[T, H, W, I, O]`."""

    def __init__(
        self, channels: int, filters: int, kernel_size: tuple[int, ...], strides: tuple[int, ...], dtype: str
    ) -> None:
        super().__init__(dtype)
        self.strides = strides
        self.kernel = self.add("kernel", (*kernel_size, channels, filters))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, T, H, W, I]` -> `[N, T', H', W', O]` with T' = ceil(T / stride) and so on."""
        return same_conv(x, self.kernel, self.strides)


def same_conv(x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, ...], bias: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the SAME convolution of x `[N, (T,) H, W, I]` with kernel `[(T,) H, W, I, O]`, in the dtype of x."""
    x = tf.convert_to_tensor(x)
    convolution = tf.nn.conv2d if len(strides) == 2 else tf.nn.conv3d
    x = convolution(x, tf.cast(kernel, x.dtype), (1, *strides, 1), "SAME")
    return x if bias is None else tf.nn.bias_add(x, tf.cast(bias, x.dtype))


class CenterAndScale(Layer):
    """The trainable half of batch norm, which several layers may share."""

    def __init__(self, channels: int, dtype: str, name: str | None = None) -> None:
        super().__init__(dtype, name)
        self.gamma = self.add("gamma", (channels,), "ones")
        self.beta = self.add("beta", (channels,))


class BatchNorm(Layer):
    """Batch norm over all axes but the channels; in training it updates the running statistics.

    Running variance is unbiased (D7: n / (n - 1)), as in PyTorch (Keras' own layer keeps the biased one); the batch is
    normalised by the biased one.

    Args:
      channels: C.
      dtype: a Keras policy, whose variables are weights and statistics.
      shared: gamma and beta that other layers use too; without it, the layer has its own.
    """

    def __init__(
        self, channels: int, dtype: str, shared: CenterAndScale | None = None, name: str | None = None
    ) -> None:
        super().__init__(dtype, name)
        center_and_scale = shared or CenterAndScale(channels, dtype)
        self.gamma, self.beta = center_and_scale.gamma, center_and_scale.beta
        self.moving_mean = self.add("moving_mean", (channels,), trainable=False)
        self.moving_variance = self.add("moving_variance", (channels,), "ones", trainable=False)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, ..., C]` -> the same shape and dtype."""
        if not training:
            scale, shift = self.folded()
            return tf.cast(tf.cast(x, scale.dtype) * scale + shift, x.dtype)
        if x.shape.num_elements() == x.shape[-1] and not tf.distribute.has_strategy():
            raise errors.UserError(
                f"In training batch norm must have more than one value for each channel. "
                f"Received: activations {tuple(x.shape)}"
            )
        normalize_batch = _normalize_over_replicas if tf.distribute.has_strategy() else _normalize_batch
        y, mean, variance = normalize_batch(x, self.gamma, self.beta)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            assign(moving.value, moving + (value - moving) * (1 - architectures.BATCH_NORM_MOMENTUM))
        return y

    def folded(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns scale and shift `[C]`: in inference this layer is x * scale + shift."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + architectures.BATCH_NORM_EPSILON)
        return scale, self.beta - self.moving_mean * scale


def _normalize_batch(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the normalised batch, its mean, and its unbiased variance."""
    if x.dtype != tf.float64:
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=gamma,
            offset=beta,
            mean=tf.zeros((0,), tf.float32),
            variance=tf.zeros((0,), tf.float32),
            epsilon=architectures.BATCH_NORM_EPSILON,
            exponential_avg_factor=1.0,
            data_format="NHWC" if len(x.shape) == 4 else "NDHWC",
            is_training=True,
        )
        return y, mean, variance  # This variance is the unbiased one.
    # TensorFlow has no such kernel for float64.
    mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
    scale = gamma * tf.math.rsqrt(variance + architectures.BATCH_NORM_EPSILON)
    count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
    return (x - mean) * scale + beta, mean, variance * (count / (count - 1))


class _Replica(threading.local):  # A replica is traced in a thread of its own.
    present: tf.Tensor | None = None


_REPLICA = _Replica()


@contextlib.contextmanager
def counting(present: tf.Tensor) -> Iterator[None]:
    """Says whether the clips of a replica count (1) or stand in for those that it does not have (0; `processes.split`).

    Args:
      present: float64 scalar, for the batch norms that are called meanwhile.
    """
    _REPLICA.present = present
    try:
        yield
    finally:
        _REPLICA.present = None


def _normalize_over_replicas(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The same by the statistics of the batch in all replicas; `all_reduce` has a gradient."""
    replicas, axes, full = tf.distribute.get_replica_context(), list(range(len(x.shape) - 1)), tf.cast(x, gamma.dtype)
    present = tf.cast(1 if _REPLICA.present is None else _REPLICA.present, gamma.dtype)
    count = tf.cast(tf.size(x) // x.shape[-1], gamma.dtype)
    sums = replicas.all_reduce("SUM", present * tf.concat([[count], tf.reduce_sum(full, axes)], axis=0))
    total, mean = sums[0], sums[1:] / sums[0]
    variance = replicas.all_reduce("SUM", present * tf.reduce_sum((full - mean) ** 2, axes)) / total
    scale = gamma * tf.math.rsqrt(variance + architectures.BATCH_NORM_EPSILON)
    return tf.cast((full - mean) * scale + beta, x.dtype), mean, variance * (total / (total - 1))


class Unit3D(Layer):
    """SAME convolution, batch norm, ReLU (Carreira & Zisserman 2017). In inference, batch norm is in the kernel."""

    def __init__(self, channels: int, unit: architectures.Conv, dtype: str) -> None:
        super().__init__(dtype, unit.name)
        self.conv = SameConv3D(channels, unit.filters, unit.kernel, unit.strides, dtype)
        self.batch_norm = BatchNorm(unit.filters, dtype)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, T, H, W, I]` -> `[N, T', H', W', O]`, not negative."""
        if training:
            return tf.nn.relu(self.batch_norm(self.conv(x), training=True))
        scale, shift = self.batch_norm.folded()
        return tf.nn.relu(same_conv(x, self.conv.kernel * scale, self.conv.strides, shift))


class PointwiseConv3D(Layer):
    """1x1x1 convolution with bias of averaged features: a dense layer whose `kernel` is `[1, 1, 1, C, K]`."""

    def __init__(self, channels: int, filters: int, dtype: str) -> None:
        super().__init__(dtype)
        self.kernel = self.add("kernel", (1, 1, 1, channels, filters))
        self.bias = self.add("bias", (filters,))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, C]` -> `[N, K]`."""
        return tf.matmul(x, tf.reshape(self.kernel, self.kernel.shape[-2:])) + self.bias


class Dense(Layer):
    """Matrix product and bias. `kernel` is `[features, K]`."""

    def __init__(self, features: int, units: int, dtype: str, name: str | None = None) -> None:
        super().__init__(dtype, name)
        self.kernel = self.add("kernel", (features, units))
        self.bias = self.add("bias", (units,))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, features]` -> `[N, K]`, in the dtype of the weights."""
        return tf.matmul(tf.cast(x, self.kernel.dtype), self.kernel) + self.bias


class MaxPool(Layer):
    """Max-pool with SAME padding, which counts as -inf (D2)."""

    def __init__(self, kernel_size: tuple[int, ...], strides: tuple[int, ...], name: str | None = None) -> None:
        super().__init__(name=name)
        self.kernel_size, self.strides = kernel_size, strides

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, T, H, W, C]` -> `[N, T', H', W', C]` with T' = ceil(T / stride) and so on."""
        # Each frame, then time: the same maxima. TensorFlow's own 3-D pool has no float64, and outside a graph, on a
        # CPU, gives its gradient to each of several equal maxima, as overlapping pools make them, instead of to one.
        (time_kernel, *kernel), (time_stride, *strides) = self.kernel_size, self.strides
        x = unflat(tf.nn.max_pool2d(flat(x), kernel, strides, "SAME"), x.shape[1])
        if time_kernel == time_stride == 1:
            return x
        height, width, channels = x.shape[2:]
        rows = tf.reshape(x, (-1, x.shape[1], height * width, channels))
        rows = tf.nn.max_pool2d(rows, (time_kernel, 1), (time_stride, 1), "SAME")
        return tf.reshape(rows, (-1, rows.shape[1], height, width, channels))


class Dropout(Layer):
    """Drops values with probability `rate` in training and scales the rest by 1 / (1 - rate).

    The mask of each clip comes from the seed that `seed_dropout` sets and the clip's place in the batch: a training
    step that seeds it from its number draws the same masks in an interrupted and resumed run, and in several processes
    that share the batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._seed = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
        self._calls = tf.Variable(0, dtype=tf.int64, trainable=False)

    def reseed(self, seed: int, number: int) -> None:
        """Starts this layer's stream of masks anew; `number` tells it from the model's other layers."""
        self._seed.assign(np.random.SeedSequence([seed, number]).generate_state(2, np.uint32).astype(np.int64))
        self._calls.assign(0)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`[N, ...]` -> the same shape."""
        if not training or self.rate == 0:
            return x
        calls = self._calls + 1  # A model may use a layer several times in a step.
        assign(self._calls, calls)
        seed = tf.random.fold_in(self._seed, calls)

        def draw(place: tf.Tensor) -> tf.Tensor:  # In float32: bfloat16 would round the rate.
            return tf.random.stateless_uniform(x.shape[1:], tf.random.fold_in(seed, place))

        noise = tf.map_fn(draw, processes.places(tf.shape(x)[0]), fn_output_signature=tf.float32)
        return x * tf.cast(noise >= self.rate, x.dtype) / (1 - self.rate)


def seed_dropout(model: keras.Model, seed: int) -> None:
    """Starts the masks of all dropout layers of a model anew, each layer with its own stream from the seed."""
    layers = [layer for _, layer in walk(model) if isinstance(layer, Dropout)]
    for number, layer in enumerate(layers):
        layer.reseed(seed, number)


def traced(scores: Any, clips: tf.TensorSpec) -> Any:
    """Returns the graph of a function from clips to probabilities.

    Args:
      scores: a `tf.function`.
      clips: what it is to be traced for, `[N, T, H, W, C]`.

    Raises:
      UserError: for a function that returns no tensor, as `model.predict`, or changes variables.
    """
    try:
        graph = scores.get_concrete_function(clips)
    except errors.UserError:
        raise
    except Exception:
        # What cannot be traced may return no tensor at all: then that is what is wrong.
        output = scores.python_function(tf.zeros((1, *clips.shape[1:]), clips.dtype))
        model_checks.check_tensor(output, tf.Tensor, model_checks.PROBABILITIES)
        raise
    check_constant(graph.graph)
    return graph


def check_constant(graph: tf.Graph) -> None:
    """Refuses a traced model that changes variables when it scores, before it has changed one."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    assigning = sum(node.op.startswith(("Assign", "ResourceScatter", "ResourceApply")) for node in nodes)
    if assigning:
        raise errors.UserError(
            "A model must not change its variables when it scores clips (call it with training=False). "
            f"Received: one that does so in {assigning} places"
        )
