"""Layers that the models share, in PyTorch: the same functions as TensorFlow's, to rounding.

Inside, tensors are `[N, C, T, H, W]` in channels-last memory, so that the border's `[N, T, H, W, C]` is a view of the
same bytes, a 1x1x1 convolution is a matrix product, and oneDNN's convolutions need no reordering. Every number that
the two frameworks set differently is stated here: SAME padding (`common/models/padding.py`), max-pool padding of -inf,
batch norm's epsilon, momentum and unbiased running variance (`common/models/architectures.py`).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from common import errors
from common.models import architectures, padding
from torch_impl import pools

# Precision -> (dtype of weights, statistics and logits, dtype of convolutions and activations).
DTYPES = {
    "float32": (torch.float32, torch.float32),
    "tf32": (torch.float32, torch.float32),  # What rounds the factors of products is `devices`.
    "float64": (torch.float64, torch.float64),
    "bfloat16": (torch.float32, torch.bfloat16),
}


def normalize(clips: torch.Tensor, normalization: str, dtype: torch.dtype) -> torch.Tensor:
    """Brings pixels into the range that a model computes with.

    Args:
      clips: any shape, uint8 or float, 0…255.
      normalization: "minus_one_to_one" (x / 127.5 - 1) or "raw" (x).
      dtype: of the result.
    """
    # Pixels reach full precision first: bfloat16 holds no more than 8 bits, and a mask blends pixels.
    full = torch.promote_types(dtype, torch.float32)
    pixels = clips.to(full)
    return (pixels / 127.5 - 1 if normalization == "minus_one_to_one" else pixels).to(dtype)


def frames_and_ones(clips: torch.Tensor, normalization: str, dtype: torch.dtype) -> torch.Tensor:
    """Normalises clips and appends a frame of ones, `[N, T, H, W, C]` -> `[N, T + 1, H, W, C]` (see `with_ones`)."""
    x = normalize(clips, normalization, dtype)
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def with_ones(matrix: torch.Tensor, normalization: str) -> torch.Tensor:
    """Returns the matrix that does to normalised frames what `matrix` does to pixels.

    n(A x) = A n(x) + (row sums of A - 1) where n(x) = x / 127.5 - 1: a further column, for a frame of ones, which is 0
    in every row that is a mean.

    Args:
      matrix: A, `[N, T, T]`.
      normalization: "minus_one_to_one" or "raw" (n is linear, the further column 0).

    Returns:
      `[N, T, T + 1]`.
    """
    excess = matrix.sum(dim=2, keepdim=True) - 1
    return torch.cat([matrix, excess if normalization == "minus_one_to_one" else 0 * excess], dim=2)


def mix(matrix: torch.Tensor, prepared: torch.Tensor) -> torch.Tensor:
    """Mixes what a model has prepared of frames, by matrices over time.

    In bfloat16 a matrix is a sum of two, since 8 bits would be too few for the values of a mask: the products of both
    with what is prepared, which is read once, are added.

    Args:
      matrix: `[N, M, K]`, float, in which the result is differentiable.
      prepared: of N clips, or of one that meets all N matrices, `[N, K, …]` or `[1, K, …]`.

    Returns:
      `[N, M, …]` in the dtype of what is prepared.
    """
    size, rows = matrix.shape[1], matrix
    if prepared.dtype == torch.bfloat16:
        high = matrix.to(prepared.dtype)
        rows = torch.cat([high, (matrix - high).detach().to(prepared.dtype)], dim=1)
    features = prepared.flatten(2)
    # One product for all matrices of a clip reads it once.
    y = (rows.flatten(0, 1) @ features[0]).unflatten(0, rows.shape[:2]) if len(features) == 1 else rows @ features
    if prepared.dtype == torch.bfloat16:
        y = y[:, :size] + y[:, size:]
    return y.unflatten(2, prepared.shape[2:])


def to_native(x: torch.Tensor) -> torch.Tensor:
    """`[N, T, H, W, C]` (border) -> `[N, C, T, H, W]`, a view."""
    return x.permute(0, 4, 1, 2, 3)


def to_border(x: torch.Tensor) -> torch.Tensor:
    """`[N, C, T, H, W]` -> `[N, T, H, W, C]` (border), a view."""
    return x.permute(0, 2, 3, 4, 1)


class SameConv3D(nn.Module):
    """Convolution with SAME padding and no bias. `kernel` is `[O, I, T, H, W]`."""

    def __init__(
        self, channels: int, filters: int, kernel_size: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.strides = strides
        self.kernel = nn.Parameter(torch.zeros(filters, channels, *kernel_size, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, I, T, H, W]` -> `[N, O, T', H', W']` with T' = ceil(T / stride) and so on."""
        return same_conv(x, self.kernel, self.strides)


def same_conv(
    x: torch.Tensor, kernel: torch.Tensor, strides: tuple[int, ...], bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns the SAME convolution of x `[N, I, (T,) H, W]` with kernel `[O, I, (T,) H, W]`, in the dtype of x."""
    kernel, bias = kernel.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if x.ndim == 5 and math.prod(kernel.shape[2:]) == math.prod(strides) == 1:
        # A matrix product; `conv3d` would also forget the channels-last memory here.
        return to_native(functional.linear(to_border(x), kernel.flatten(1), bias))
    pads = _paddings(x, kernel.shape[2:], strides)
    if any(before != after for before, after in pads):
        x = functional.pad(x, [size for pad in reversed(pads) for size in pad])
        pads = [(0, 0)] * len(pads)
    pad = [before for before, _ in pads]
    if x.ndim == 4:
        return functional.conv2d(x, kernel, bias, strides, pad)
    if _is_small(x, kernel) and strides[0] == 1:
        return _conv3d_by_frames(x, kernel, bias, strides, pad)
    return functional.conv3d(x, kernel, bias, strides, pad)


def _is_small(x: torch.Tensor, kernel: torch.Tensor) -> bool:
    """Tells where PyTorch's CPU build would not take oneDNN's convolution but its own, which is 2 to 5 times slower.

    Its rule (`use_mkldnn` in Convolution.cpp): one clip, N C T H of at most 20480, a kernel of at most 3.
    """
    return x.device.type == "cpu" and len(x) == 1 and math.prod(x.shape[:4]) <= 20480 and min(kernel.shape[3:]) <= 3


def _conv3d_by_frames(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, strides: tuple[int, ...], pad: list[int]
) -> torch.Tensor:
    """Returns conv3d of stride 1 in time as one conv2d: each frame with its neighbours in time as further channels."""
    taps = kernel.shape[2]
    frames = functional.pad(to_border(x), (0, 0, 0, 0, 0, 0, pad[0], pad[0])).unfold(1, taps, 1)
    time = frames.shape[1]
    frames = frames.movedim(5, 4).flatten(4).flatten(0, 1).permute(0, 3, 1, 2)  # [N T, taps I, H, W]
    y = functional.conv2d(frames, kernel.transpose(1, 2).flatten(1, 2), bias, strides[1:], pad[1:])
    return y.unflatten(0, (len(x), time)).transpose(1, 2)


def _paddings(x: torch.Tensor, kernel_size: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns SAME's padding before and after each of the axes (T,) H, W of x `[N, C, (T,) H, W]`."""
    sizes = zip(x.shape[2:], kernel_size, strides, strict=True)
    return [padding.same_padding(size, kernel, stride) for size, kernel, stride in sizes]


_TOO_FEW = "In training batch norm must have more than one value for each channel. Received: activations {}"


class CenterAndScale(nn.Module):
    """The trainable half of batch norm, which several layers may share."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(channels, dtype=dtype))


class BatchNorm(nn.Module):
    """Batch norm over all axes but the channels; in training it updates the running statistics.

    Running variance is unbiased (D7: n / (n - 1)), as in PyTorch (Keras' own layer keeps the biased one); the batch is
    normalised by the biased one.

    Args:
      channels: C.
      dtype: of weights and statistics.
      shared: gamma and beta that other layers use too; without it, the layer has its own.
    """

    moving_mean: torch.Tensor
    moving_variance: torch.Tensor

    def __init__(self, channels: int, dtype: torch.dtype, shared: CenterAndScale | None = None) -> None:
        super().__init__()
        center_and_scale = shared or CenterAndScale(channels, dtype)
        self.gamma, self.beta = center_and_scale.gamma, center_and_scale.beta
        self.register_buffer("moving_mean", torch.zeros(channels, dtype=dtype))
        self.register_buffer("moving_variance", torch.ones(channels, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, ...]` -> the same shape and dtype."""
        if self.training and num_processes() > 1:
            return self._over_all_processes(x)
        if self.training and x.numel() == x.shape[1]:
            raise errors.UserError(_TOO_FEW.format(tuple(x.shape)))
        return functional.batch_norm(
            x,
            self.moving_mean,
            self.moving_variance,
            self.gamma,
            self.beta,
            self.training,
            1 - architectures.BATCH_NORM_MOMENTUM,
            architectures.BATCH_NORM_EPSILON,
        )

    def _over_all_processes(self, x: torch.Tensor) -> torch.Tensor:
        y, count, mean, variance = _GlobalBatchNorm.apply(x, self.gamma, self.beta)
        if x.numel() <= x.shape[1] and count <= 1:  # Asked only where it may be so: a GPU would be waited for.
            raise errors.UserError(_TOO_FEW.format(tuple(x.shape)))
        with torch.no_grad():
            weight = 1 - architectures.BATCH_NORM_MOMENTUM
            self.moving_mean.lerp_(mean, weight)
            self.moving_variance.lerp_(variance * (count / (count - 1)), weight)
        return y

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns scale and shift `[C]`: in inference this layer is x * scale + shift."""
        scale = self.gamma * torch.rsqrt(self.moving_variance + architectures.BATCH_NORM_EPSILON)
        return scale, self.beta - self.moving_mean * scale


class _GlobalBatchNorm(torch.autograd.Function):
    """Batch norm by the statistics of the batch in all processes, and its gradient.

    With x^ = (x - mean) / sqrt(variance + eps) and sums over the n values of a channel in all processes:
    dx = gamma / sqrt(variance + eps) (dy - sum(dy) / n - x^ sum(dy x^) / n). The gradients of gamma and beta,
    sum(dy x^) and sum(dy), are over this process's values alone, as every weight's: `Trainer` adds up those of all.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Input `[N, C, ...]` -> the same shape; the number of values of a channel, mean and biased variance `[C]`."""
        channels = x.shape[1]
        count = x.numel() // channels
        mean, variance = gamma.new_zeros(channels), gamma.new_zeros(channels)
        if count:  # A process may have no clip of the last batch.
            # Given moving statistics (of no weight), since theirs is the dtype of what is returned.
            moving = gamma.new_zeros(2, channels)
            mean, variance = torch.batch_norm_update_stats(x, moving[0], moving[1], 0.0)
        parts = _gathered(torch.cat([mean.new_tensor([count]), mean, variance * count]))
        counts, means = parts[:, :1], parts[:, 1 : 1 + channels]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        # Squares about each process's own mean, and of these means about the mean of all.
        variance = (parts[:, 1 + channels :].sum(0) + (counts * (means - mean).square()).sum(0)) / total
        ctx.save_for_backward(x, gamma, mean, variance, total)
        ctx.mark_non_differentiable(total, mean, variance)
        epsilon = architectures.BATCH_NORM_EPSILON
        y = functional.batch_norm(x, mean, variance, gamma, beta, training=False, momentum=0.0, eps=epsilon)
        return y, total, mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the gradients of x, gamma and beta."""
        x, gamma, mean, variance, total = ctx.saved_tensors
        grad_gamma, grad_beta = torch.zeros_like(gamma), torch.zeros_like(gamma)
        if x.numel():
            _, grad_gamma, grad_beta = torch.ops.aten.native_batch_norm_backward(
                *(grad, x, gamma, mean, variance, None, None, False, architectures.BATCH_NORM_EPSILON),
                [False, True, True],
            )
        from_mean, from_variance = _gathered(torch.stack([grad_beta, grad_gamma])).sum(0) / total
        # dx is linear in dy and x: two passes over them.
        scale = torch.rsqrt(variance + architectures.BATCH_NORM_EPSILON)
        of_grad, of_x = gamma * scale, -gamma * scale.square() * from_variance
        rest = -gamma * scale * from_mean - of_x * mean
        grad_x = torch.addcmul(_per_channel(rest, grad), grad, _per_channel(of_grad, grad))
        return grad_x.addcmul_(x, _per_channel(of_x, grad)).to(grad.dtype), grad_gamma, grad_beta


def _per_channel(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Shapes values `[C]` so that they meet the channels of x `[N, C, ...]`."""
    return values.view(-1, *[1] * (x.ndim - 2))


def num_processes() -> int:
    """Returns how many processes share each batch."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _gathered(values: torch.Tensor) -> torch.Tensor:
    """Returns the values of all processes, `[processes, ...]`."""
    found = [torch.empty_like(values) for _ in range(num_processes())]
    distributed.all_gather(found, values.contiguous())
    return torch.stack(found)


class Unit3D(nn.Module):
    """SAME convolution, batch norm, ReLU (Carreira & Zisserman 2017). In inference, batch norm is in the kernel."""

    def __init__(self, channels: int, unit: architectures.Conv, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = SameConv3D(channels, unit.filters, unit.kernel, unit.strides, dtype)
        self.batch_norm = BatchNorm(unit.filters, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, I, T, H, W]` -> `[N, O, T', H', W']`, not negative."""
        if self.training:
            return functional.relu(self.batch_norm(self.conv(x)), inplace=True)
        scale, shift = self.batch_norm.folded()
        kernel = self.conv.kernel * scale[:, None, None, None, None]
        return functional.relu(same_conv(x, kernel, self.conv.strides, shift), inplace=True)


class PointwiseConv3D(nn.Module):
    """1x1x1 convolution with bias of averaged features: a dense layer whose `kernel` is `[K, C, 1, 1, 1]`."""

    def __init__(self, channels: int, filters: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(filters, channels, 1, 1, 1, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(filters, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C]` -> `[N, K]`."""
        return functional.linear(x, self.kernel.flatten(1), self.bias)


class Dense(nn.Module):
    """Matrix product and bias. `kernel` is `[K, features]`."""

    def __init__(self, features: int, units: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(units, features, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(units, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, features]` -> `[N, K]`, in the dtype of the weights."""
        return functional.linear(x.to(self.kernel.dtype), self.kernel, self.bias)


class MaxPool(nn.Module):
    """Max-pool with SAME padding, which counts as -inf (D2)."""

    def __init__(self, kernel_size: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel_size, self.strides = kernel_size, strides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T, H, W]` -> `[N, C, T', H', W']` with T' = ceil(T / stride) and so on."""
        pads = _paddings(x, self.kernel_size, self.strides)
        # The pool's own padding is -inf, but the same on both sides; `ceil_mode` adds an odd position at the end.
        axes = zip(x.shape[2:], pads, self.kernel_size, self.strides, strict=True)
        if not all(
            before == after or (stride > 1 and size >= kernel) for size, (before, after), kernel, stride in axes
        ):
            x = functional.pad(x, [size for pad in reversed(pads) for size in pad], value=-torch.inf)
            pads = [(0, 0)] * len(pads)
        return pools.max_pool(x, self.kernel_size, self.strides, [before for before, _ in pads])


class Dropout(nn.Module):
    """Drops values with probability `rate` in training and scales the rest by 1 / (1 - rate).

    The mask of each clip comes from the seed that `seed_dropout` sets and the clip's place in the batch: a training
    step that seeds it from its number draws the same masks in an interrupted and resumed run, and in several processes
    that share the batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.reseed(0, 0)

    def reseed(self, seed: int, number: int) -> None:
        """Starts this layer's stream of masks anew; `number` tells it from the model's other layers."""
        self._seed, self._calls = (seed, number), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, ...]` -> the same shape."""
        if not self.training or self.rate == 0:
            return x
        keep, generator, masks = 1 - self.rate, torch.Generator(x.device), torch.empty_like(x)
        count = num_processes()
        rank = distributed.get_rank() if count > 1 else 0
        self._calls += 1  # A model may use a layer several times in a step.
        for place, mask in enumerate(masks):
            seed = np.random.SeedSequence([*self._seed, self._calls, rank + count * place])
            generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
            mask.bernoulli_(keep, generator=generator)
        return x * masks.div_(keep)


def seed_dropout(model: nn.Module, seed: int) -> None:
    """Starts the masks of all dropout layers of a model anew, each layer with its own stream from the seed."""
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    for number, layer in enumerate(layers):
        layer.reseed(seed, number)
