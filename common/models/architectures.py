"""The two architectures as data: endpoints, weights, shapes, parameters and FLOPs, without a framework.

Both builds construct their layers from these tables, so a channel count or a name exists once. I3D: Carreira &
Zisserman 2017 (arXiv:1705.07750), endpoint names as DeepMind's release. ConvLSTM: Shi et al. 2015
(arXiv:1506.04214). What the paper changes in them is its section 4.2.
"""

import dataclasses
import math
from collections.abc import Iterator

from common import errors
from common.models import configs, padding

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.99  # Weight of the old running value (Keras' meaning; PyTorch's momentum is 1 - 0.99).
GATES = ("i", "f", "c", "o")  # Order of the four gates along the last axis of every ConvLSTM kernel and bias.


@dataclasses.dataclass(frozen=True)
class Conv:
    """Unit3D: SAME convolution without bias, batch norm, ReLU. Kernel and strides are (time, height, width)."""

    name: str
    filters: int
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int] = (1, 1, 1)


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """SAME max-pool (padding counts as -inf). Kernel and strides are (time, height, width)."""

    name: str
    kernel: tuple[int, int, int]
    strides: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Inception:
    """Four branches, each a chain of units, concatenated along channels in order."""

    name: str
    branches: tuple[tuple[Conv | MaxPool, ...], ...]


Block = Conv | MaxPool | Inception

# Output channels of the six convolutions of each Inception block, in DeepMind's order:
# Branch_0 1x1; Branch_1 1x1, 3x3; Branch_2 1x1, 3x3; Branch_3 1x1 after a max-pool.
_INCEPTION_CHANNELS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


# Window of the average pool before the last convolution, stride 1; None: over all there is.
I3D_HEAD_POOLS = {"mean": None, "deepmind": (2, 7, 7)}


def i3d_blocks(config: configs.I3DConfig) -> tuple[Block, ...]:
    """Returns I3D's endpoints before the head, first to last (`Conv3d_1a_7x7` … `Mixed_5c`)."""
    stride = {"paper": 1, "original": 2}[config.temporal_strides]

    def channels(number: int) -> int:
        return max(1, math.floor(number * config.width + 0.5))

    def inception(name: str) -> Inception:
        b0, b1a, b1b, b2a, b2b, b3 = (channels(number) for number in _INCEPTION_CHANNELS[name])
        # DeepMind's release calls this one convolution 0a where its twins are 0b; the name is kept as it is known.
        b2_name = "Conv3d_0a_3x3" if name == "Mixed_5b" else "Conv3d_0b_3x3"
        return Inception(
            name,
            (
                (Conv("Conv3d_0a_1x1", b0, (1, 1, 1)),),
                (Conv("Conv3d_0a_1x1", b1a, (1, 1, 1)), Conv("Conv3d_0b_3x3", b1b, (3, 3, 3))),
                (Conv("Conv3d_0a_1x1", b2a, (1, 1, 1)), Conv(b2_name, b2b, (3, 3, 3))),
                (MaxPool("MaxPool3d_0a_3x3", (3, 3, 3), (1, 1, 1)), Conv("Conv3d_0b_1x1", b3, (1, 1, 1))),
            ),
        )

    return (
        Conv("Conv3d_1a_7x7", channels(64), (7, 7, 7), (stride, 2, 2)),
        MaxPool("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2)),
        Conv("Conv3d_2b_1x1", channels(64), (1, 1, 1)),
        Conv("Conv3d_2c_3x3", channels(192), (3, 3, 3)),
        MaxPool("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
        inception("Mixed_3b"),
        inception("Mixed_3c"),
        MaxPool("MaxPool3d_4a_3x3", (3, 3, 3), (stride, 2, 2)),
        inception("Mixed_4b"),
        inception("Mixed_4c"),
        inception("Mixed_4d"),
        inception("Mixed_4e"),
        inception("Mixed_4f"),
        MaxPool("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
        inception("Mixed_5b"),
        inception("Mixed_5c"),
    )


@dataclasses.dataclass(frozen=True)
class Weight:
    """One canonical array.

    Attributes:
      shape: axes as TensorFlow's: convolutions (T, H, W, in, out) or (H, W, in, out), dense (in, out).
      initializer: "glorot_uniform", "orthogonal", "zeros", "ones" or "forget_gate_ones".
      trainable: False for running statistics.
    """

    shape: tuple[int, ...]
    initializer: str
    trainable: bool = True


@dataclasses.dataclass(frozen=True)
class Layer:
    """One endpoint: its name, the shape of one clip's output, its own weights, and its cost.

    Attributes:
      name: endpoint.
      output_shape: (T, H, W, C), or (K,) for the logits.
      weights: canonical name -> `Weight`. A batch norm shared between layers is listed with the first.
      flops: floating point operations of one clip's forward pass: 2 per multiply-add of convolutions and dense
        layers; batch norm, activations and pooling are not counted.
    """

    name: str
    output_shape: tuple[int, ...]
    weights: dict[str, Weight]
    flops: int

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(math.prod(w.shape) for w in self.weights.values() if w.trainable)


def layers(config: configs.ModelConfig) -> list[Layer]:
    """Returns every endpoint of a model, first to last; the last is `Logits`."""
    rows = _i3d_layers(config) if isinstance(config, configs.I3DConfig) else _conv_lstm_layers(config)
    return list(rows)


def weights(config: configs.ModelConfig) -> dict[str, Weight]:
    """Returns every canonical weight of a model by name, in the order of the layers."""
    return {name: weight for layer in layers(config) for name, weight in layer.weights.items()}


def frozen_layers(config: configs.TrainConfig) -> list[Layer]:
    """Returns the endpoints that keep their weights in training: all up to the one that `config.freeze` names.

    A batch norm that several layers share is frozen with the first of them.

    Raises:
      errors.UserError: for a name that is no endpoint, or that leaves nothing to train.
    """
    if not config.freeze:
        return []
    rows = layers(config.model)
    names = [row.name for row in rows[:-1]]
    errors.check_choice("freeze", config.freeze, names)
    return rows[: names.index(config.freeze) + 1]


def head(config: configs.ModelConfig) -> Layer:
    """Returns the last layer, whose weights depend on the classes."""
    return layers(config)[-1]


def num_parameters(config: configs.ModelConfig) -> int:
    """Returns the number of trainable parameters."""
    return sum(layer.parameters for layer in layers(config))


def describe(config: configs.ModelConfig) -> str:
    """Returns a table of a model's endpoints, output shapes, parameters and FLOPs for one clip."""
    rows = [("layer", "output (T, H, W, C)", "parameters", "MFLOPs")]
    for layer in layers(config):
        shape = " x ".join(str(size) for size in layer.output_shape)
        rows.append((layer.name, shape, f"{layer.parameters:,}", f"{layer.flops / 1e6:,.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in rows]
    total = sum(layer.flops for layer in layers(config))
    lines.append(f"forward pass of one clip: {total / 1e9:,.2f} GFLOPs (2 per multiply-add)")
    lines.append(f"trainable parameters: {num_parameters(config):,}")
    return "\n".join(lines)


def _batch_norm(name: str, channels: int) -> dict[str, Weight]:
    return {
        f"{name}/gamma": Weight((channels,), "ones"),
        f"{name}/beta": Weight((channels,), "zeros"),
        f"{name}/moving_mean": Weight((channels,), "zeros", trainable=False),
        f"{name}/moving_variance": Weight((channels,), "ones", trainable=False),
    }


def _i3d_layers(config: configs.I3DConfig) -> Iterator[Layer]:
    shape: tuple[int, ...] = (*config.input_shape, 3)
    for block in i3d_blocks(config):
        if isinstance(block, Inception):
            outputs, arrays, flops = [], {}, 0
            for number, branch in enumerate(block.branches):
                branch_shape = shape
                for unit in branch:
                    layer = _unit_layer(f"{block.name}/Branch_{number}/{unit.name}", unit, branch_shape)
                    branch_shape, flops = layer.output_shape, flops + layer.flops
                    arrays.update(layer.weights)
                outputs.append(branch_shape[-1])
            yield Layer(block.name, (*shape[:3], sum(outputs)), arrays, flops)
            shape = (*shape[:3], sum(outputs))
        else:
            layer = _unit_layer(block.name, block, shape)
            yield layer
            shape = layer.output_shape
    kernel = Weight((1, 1, 1, shape[-1], config.num_classes), "glorot_uniform")
    head = {
        "Logits/Conv3d_0c_1x1/kernel": kernel,
        "Logits/Conv3d_0c_1x1/bias": Weight((config.num_classes,), "zeros"),
    }
    yield Layer("Logits", (config.num_classes,), head, 2 * math.prod(kernel.shape))


def _unit_layer(name: str, unit: Conv | MaxPool, shape: tuple[int, ...]) -> Layer:
    sizes = tuple(padding.same_output(size, stride) for size, stride in zip(shape, unit.strides, strict=False))
    if isinstance(unit, MaxPool):
        return Layer(name, (*sizes, shape[-1]), {}, 0)
    kernel = Weight((*unit.kernel, shape[-1], unit.filters), "glorot_uniform")
    arrays = {f"{name}/kernel": kernel, **_batch_norm(name, unit.filters)}
    return Layer(name, (*sizes, unit.filters), arrays, 2 * math.prod(sizes) * math.prod(kernel.shape))


def _conv_lstm_layers(config: configs.ConvLSTMConfig) -> Iterator[Layer]:
    time, height, width = config.input_shape
    channels, filters = 3, config.filters
    for number in range(1, config.num_layers + 1):
        height, width = padding.same_output(height, 2), padding.same_output(width, 2)
        name = f"ConvLSTM_{number}"
        kernels = {
            f"{name}/kernel": Weight((*config.kernel_size, channels, 4 * filters), "glorot_uniform"),
            f"{name}/recurrent_kernel": Weight((*config.kernel_size, filters, 4 * filters), "orthogonal"),
        }
        flops = sum(2 * time * height * width * math.prod(kernel.shape) for kernel in kernels.values())
        bias = {f"{name}/bias": Weight((4 * filters,), "forget_gate_ones")}
        yield Layer(name, (time, height, width, filters), {**kernels, **bias}, flops)

        own = _batch_norm(f"BatchNorm_{number}", filters)
        if config.share_batch_norm:
            # One gamma and beta for all layers; running statistics are each layer's own (docs/deviations.md, D3).
            shared = _batch_norm("BatchNorm", filters) if number == 1 else {}
            own = {
                **{key: weight for key, weight in shared.items() if weight.trainable},
                **{key: weight for key, weight in own.items() if not weight.trainable},
            }
        yield Layer(f"BatchNorm_{number}", (time, height, width, filters), own, 0)
        height, width = height // 2, width // 2
        yield Layer(f"MaxPool_{number}", (time, height, width, filters), {}, 0)
        channels = filters
    features = height * width * filters * (time if config.head == "all_frames" else 1)
    head = {
        "Logits/kernel": Weight((features, config.num_classes), "glorot_uniform"),
        "Logits/bias": Weight((config.num_classes,), "zeros"),
    }
    yield Layer("Logits", (config.num_classes,), head, 2 * features * config.num_classes)
