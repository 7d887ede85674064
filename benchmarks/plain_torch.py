"""Both models as an ordinary PyTorch port writes them: what `torch_impl` is compared with, in speed and in numbers.

I3D pads explicitly before every convolution and pool and runs convolution, `nn.BatchNorm3d` and ReLU one after the
other in contiguous memory. ConvLSTM runs four gate convolutions of the input and four of the hidden state inside the
time loop. Nothing here comes from `torch_impl`, so that equal numbers say something.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from common.models import architectures, configs, padding


def build_model(config: configs.ModelConfig, arrays: Mapping[str, np.ndarray], dtype: torch.dtype) -> nn.Module:
    """Returns the plain build of a model with the given canonical weights.

    Args:
      config: an `I3DConfig` or a `ConvLSTMConfig`.
      arrays: canonical name -> array, as `initial_weights` returns them.
      dtype: of everything.
    """
    model: nn.Module = PlainI3D(config) if isinstance(config, configs.I3DConfig) else PlainConvLSTM(config)
    model.to(dtype)
    with torch.no_grad():
        for name, parts in _canonical_tensors(model).items():
            for part, array in zip(parts, np.split(arrays[name], len(parts), axis=-1), strict=True):
                part.copy_(torch.from_numpy(_to_torch(array).copy()))
    return model


def canonical_gradients(model: nn.Module) -> dict[str, np.ndarray]:
    """Returns the gradient of every trainable weight by canonical name, axes as TensorFlow's."""
    tensors = {name: parts for name, parts in _canonical_tensors(model).items() if "moving" not in name}
    return {
        name: np.concatenate([_to_tensorflow(_gradient(part)) for part in parts], axis=-1)
        for name, parts in tensors.items()
    }


def canonical_statistics(model: nn.Module) -> dict[str, np.ndarray]:
    """Returns batch norm's running statistics by canonical name."""
    return {name: parts[0].numpy() for name, parts in _canonical_tensors(model).items() if "moving" in name}


def _gradient(tensor: torch.Tensor) -> np.ndarray:
    if tensor.grad is None:
        raise ValueError("Gradients must be computed before they are read. Received: a tensor without one")
    return tensor.grad.numpy()


def _to_torch(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array


def _to_tensorflow(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array


def _canonical_tensors(model: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Canonical name -> the tensors that together hold it, split along the last canonical axis."""
    return {
        name: tensors
        for module in model.modules()
        if isinstance(module, PlainUnit | PlainI3D | PlainConvLSTMLayer | PlainConvLSTM)
        for name, tensors in module.canonical()
    }


def _pixels(clips: torch.Tensor, config: configs.ModelConfig, dtype: torch.dtype) -> torch.Tensor:
    """`[N, T, H, W, 3]` -> contiguous `[N, 3, T, H, W]` in the model's range."""
    x = clips.to(dtype).permute(0, 4, 1, 2, 3).contiguous()
    return x / 127.5 - 1 if config.normalization == "minus_one_to_one" else x


def _pad_same(x: torch.Tensor, kernel: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    pads: list[int] = []
    for size, kernel_size, stride in zip(x.shape[2:], kernel, strides, strict=True):
        pads = [*padding.same_padding(size, kernel_size, stride), *pads]
    return functional.pad(x, pads)


class PlainUnit(nn.Module):
    """Pad, convolution, batch norm, ReLU."""

    def __init__(self, name: str, channels: int, unit: architectures.Conv) -> None:
        super().__init__()
        self.name, self.unit = name, unit
        self.conv = nn.Conv3d(channels, unit.filters, unit.kernel, stride=unit.strides, padding=0, bias=False)
        self.norm = nn.BatchNorm3d(unit.filters, eps=1e-3, momentum=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, I, T, H, W]` -> `[N, O, T', H', W']`."""
        x = _pad_same(x, self.unit.kernel, self.unit.strides)
        return functional.relu(self.norm(self.conv(x)))

    def canonical(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """Yields canonical names and tensors."""
        yield f"{self.name}/kernel", [self.conv.weight]
        yield f"{self.name}/gamma", [self.norm.weight]
        yield f"{self.name}/beta", [self.norm.bias]
        yield f"{self.name}/moving_mean", [self.norm.get_buffer("running_mean")]
        yield f"{self.name}/moving_variance", [self.norm.get_buffer("running_var")]


class PlainPool(nn.Module):
    """Pad with zeros (activations here come from a ReLU), max-pool."""

    def __init__(self, pool: architectures.MaxPool) -> None:
        super().__init__()
        self.sizes = pool.kernel, pool.strides
        self.pool = nn.MaxPool3d(pool.kernel, pool.strides, padding=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T, H, W]` -> `[N, C, T', H', W']`."""
        return self.pool(_pad_same(x, *self.sizes))


class PlainInception(nn.Module):
    """Four branches one after the other, then `torch.cat`."""

    def __init__(self, channels: int, block: architectures.Inception) -> None:
        super().__init__()
        branches, self.filters = [], 0
        for number, units in enumerate(block.branches):
            branch, branch_channels = [], channels
            for unit in units:
                layer, branch_channels = _plain_layer(
                    f"{block.name}/Branch_{number}/{unit.name}", branch_channels, unit
                )
                branch.append(layer)
            branches.append(nn.Sequential(*branch))
            self.filters += branch_channels
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T, H, W]` -> `[N, C', T, H, W]`."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _plain_layer(name: str, channels: int, block: architectures.Block) -> tuple[nn.Module, int]:
    if isinstance(block, architectures.Inception):
        inception = PlainInception(channels, block)
        return inception, inception.filters
    if isinstance(block, architectures.MaxPool):
        return PlainPool(block), channels
    return PlainUnit(name, channels, block), block.filters


class PlainI3D(nn.Module):
    """I3D without dropout."""

    def __init__(self, config: configs.I3DConfig) -> None:
        super().__init__()
        self.config, channels, blocks = config, 3, []
        for block in architectures.i3d_blocks(config):
            layer, channels = _plain_layer(block.name, channels, block)
            blocks.append(layer)
        self.blocks = nn.Sequential(*blocks)
        self.logits = nn.Conv3d(channels, config.num_classes, 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """`[N, T, H, W, 3]` -> logits `[N, K]`."""
        x = self.blocks(_pixels(clips, self.config, self.logits.weight.dtype))
        x = functional.avg_pool3d(x, x.shape[2:])
        return self.logits(x).flatten(1)

    def canonical(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """Yields the head's canonical names and tensors."""
        yield "Logits/Conv3d_0c_1x1/kernel", [self.logits.weight]
        yield "Logits/Conv3d_0c_1x1/bias", [self.logits.get_parameter("bias")]


class PlainConvLSTMLayer(nn.Module):
    """One layer: eight convolutions a time step."""

    def __init__(self, number: int, channels: int, config: configs.ConvLSTMConfig) -> None:
        super().__init__()
        self.number, self.filters, self.kernel_size = number, config.filters, config.kernel_size
        gates = range(len(architectures.GATES))
        self.inputs = nn.ModuleList([nn.Conv2d(channels, config.filters, self.kernel_size, stride=2) for _ in gates])
        self.hidden = nn.ModuleList(
            [nn.Conv2d(config.filters, config.filters, self.kernel_size, bias=False) for _ in gates]
        )
        self.norm = nn.BatchNorm3d(config.filters, eps=1e-3, momentum=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T, H, W]` -> pooled `[N, F, T, H', W']`."""
        outputs: list[torch.Tensor] = []
        for frame in x.unbind(2):
            padded = _pad_same(frame, self.kernel_size, (2, 2))
            i, f, g, o = (conv(padded) for conv in self.inputs)
            if not outputs:
                h = c = torch.zeros_like(i)
            padded = _pad_same(h, self.kernel_size, (1, 1))
            h_i, h_f, h_g, h_o = (conv(padded) for conv in self.hidden)
            c = torch.sigmoid(f + h_f) * c + torch.sigmoid(i + h_i) * torch.tanh(g + h_g)
            h = torch.sigmoid(o + h_o) * torch.tanh(c)
            outputs.append(h)
        return functional.max_pool3d(self.norm(torch.stack(outputs, dim=2)), (1, 2, 2))

    def canonical(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """Yields canonical names and tensors; gates are split along the last axis."""
        yield f"ConvLSTM_{self.number}/kernel", [conv.get_parameter("weight") for conv in self.inputs]
        yield f"ConvLSTM_{self.number}/recurrent_kernel", [conv.get_parameter("weight") for conv in self.hidden]
        yield f"ConvLSTM_{self.number}/bias", [conv.get_parameter("bias") for conv in self.inputs]
        yield f"BatchNorm_{self.number}/moving_mean", [self.norm.get_buffer("running_mean")]
        yield f"BatchNorm_{self.number}/moving_variance", [self.norm.get_buffer("running_var")]


class PlainConvLSTM(nn.Module):
    """ConvLSTM without dropout."""

    def __init__(self, config: configs.ConvLSTMConfig) -> None:
        super().__init__()
        self.config, layers = config, []
        for number in range(1, config.num_layers + 1):
            layers.append(PlainConvLSTMLayer(number, 3 if number == 1 else config.filters, config))
            if config.share_batch_norm:
                layers[-1].norm.weight, layers[-1].norm.bias = layers[0].norm.weight, layers[0].norm.bias
        self.layers = nn.Sequential(*layers)
        features = architectures.weights(config)["Logits/kernel"].shape[0]
        self.logits = nn.Linear(features, config.num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """`[N, T, H, W, 3]` -> logits `[N, K]`."""
        x = self.layers(_pixels(clips, self.config, self.logits.weight.dtype))
        x = x[:, :, -1:] if self.config.head == "last_frame" else x
        return self.logits(x.permute(0, 2, 3, 4, 1).flatten(1))

    def canonical(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """Yields canonical names and tensors of the head and of batch norm's gamma and beta."""
        yield "Logits/kernel", [self.logits.weight]
        yield "Logits/bias", [self.logits.bias]
        for number, layer in enumerate(self.layers, start=1):
            name = "BatchNorm" if self.config.share_batch_norm else f"BatchNorm_{number}"
            yield f"{name}/gamma", [layer.get_parameter("norm.weight")]
            yield f"{name}/beta", [layer.get_parameter("norm.bias")]
