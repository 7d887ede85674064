"""ConvLSTM classifier (Shi et al. 2015, arXiv:1506.04214, without peepholes), as section 4.2 of the paper uses it.

Per layer, with * a SAME convolution, W of stride 2, U of stride 1, and the gates in the order i, f, c, o:

    i_t, f_t, o_t = sigmoid(W x_t + U * h_(t-1) + b)        g_t = tanh(W x_t + U * h_(t-1) + b)
    c_t = f_t c_(t-1) + i_t g_t                             h_t = o_t tanh(c_t)

then batch norm over N, T, H, W together and a 2x2 max-pool of each frame. Inside, tensors are `[T, N, C, H, W]`:
a time step is one block of memory.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from common.models import architectures, configs
from torch_impl import layers

_STRIDES = (2, 2)
_POOL = (2, 2)


class ConvLSTMLayer(nn.Module):
    """One ConvLSTM layer from zero initial state. Kernels are `[4 F, I, H, W]`, gates in order i, f, c, o."""

    def __init__(self, channels: int, filters: int, kernel_size: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        gates = len(architectures.GATES) * filters
        self.kernel = nn.Parameter(torch.zeros(gates, channels, *kernel_size, dtype=dtype))
        self.recurrent_kernel = nn.Parameter(torch.zeros(gates, filters, *kernel_size, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(gates, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[T, N, I, H, W]` -> hidden states `[T, N, F, ceil(H / 2), ceil(W / 2)]`."""
        # The input's share of the gates does not wait for the state: all T frames go through one convolution.
        return self.recur(layers.same_conv(_frames(x), self.kernel, _STRIDES, self.bias).unflatten(0, x.shape[:2]))

    def recur(self, gates: torch.Tensor) -> torch.Tensor:
        """Runs through time: the input's share of the gates `[T, N, 4 F, H, W]` -> hidden states `[T, N, F, H, W]`."""
        # A zero in front makes an even kernel odd, whose SAME padding is symmetric, as the convolution's own is.
        height, width = self.recurrent_kernel.shape[2:]
        kernel = functional.pad(self.recurrent_kernel.to(gates.dtype), (1 - width % 2, 0, 1 - height % 2, 0))
        keep = torch.is_grad_enabled() and (gates.requires_grad or kernel.requires_grad)
        return _Recurrence.apply(gates, kernel, keep)


class _Recurrence(torch.autograd.Function):
    """The time loop, with backpropagation through time written out.

    Autograd would take one kernel gradient a step; here one convolution over all steps gives their sum. Gates are
    stored as activations i, f, g, o; everything is in the dtype of the convolutions.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, inputs: torch.Tensor, kernel: torch.Tensor, keep: bool
    ) -> torch.Tensor:
        """Inputs `[T, N, 4 F, H, W]`, kernel `[4 F, F, h, w]` (odd) -> hidden states `[T, N, F, H, W]`."""
        gates: list[torch.Tensor] = []
        cells: list[torch.Tensor] = []
        hidden = _like(inputs, kernel.shape[1])
        for t, z in enumerate(inputs):
            if t:
                z = functional.conv2d(hidden[t - 1], kernel, padding="same").add_(z)
            activations = torch.sigmoid(z)
            i, f, g, o = activations.chunk(4, dim=1)
            torch.tanh(z.chunk(4, dim=1)[2], out=g)
            cell = i * g
            if t:
                cell.addcmul_(f, cells[-1])
            torch.mul(o, torch.tanh(cell), out=hidden[t])
            gates, cells = ([*gates, activations], [*cells, cell]) if keep else ([], [cell])
        ctx.save_for_backward(kernel, hidden, *gates, *cells)
        return hidden

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # PyTorch's FunctionCtx does not declare what it saved.
        grad_hidden: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Returns the gradients of inputs and kernel."""
        kernel, hidden, *states = ctx.saved_tensors
        gates, cells = states[: len(hidden)], states[len(hidden) :]
        grad_z = _like(hidden, len(kernel))
        grad_h, grad_c = grad_hidden[-1], torch.zeros_like(cells[-1])
        for t in reversed(range(len(hidden))):
            grad_c = _step_backward(grad_h, grad_c, gates[t], cells[t], cells[t - 1] if t else None, grad_z[t])
            if t:
                grad_h = _convolution_backward(grad_z[t], hidden[t - 1], kernel, 0) + grad_hidden[t - 1]
        grad_kernel = torch.zeros_like(kernel)
        if ctx.needs_input_grad[1] and len(hidden) > 1:
            grad_kernel = _convolution_backward(grad_z[1:].flatten(0, 1), hidden[:-1].flatten(0, 1), kernel, 1)
        return grad_z, grad_kernel, None


def _step_backward(
    grad_h: torch.Tensor,
    grad_c: torch.Tensor,
    gates: torch.Tensor,
    cell: torch.Tensor,
    previous_cell: torch.Tensor | None,
    grad_z: torch.Tensor,
) -> torch.Tensor:
    """Writes one step's gradient before the gates' activations to `grad_z`, and returns that of the previous cell."""
    i, f, g, o = gates.chunk(4, dim=1)
    grad_i, grad_f, grad_g, grad_o = grad_z.chunk(4, dim=1)
    sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
    tanh_cell = torch.tanh(cell)
    sigmoid_backward(grad_h * tanh_cell, o, grad_input=grad_o)
    grad_c = grad_c + tanh_backward(grad_h * o, tanh_cell)
    sigmoid_backward(grad_c * g, i, grad_input=grad_i)
    tanh_backward(grad_c * i, g, grad_input=grad_g)
    if previous_cell is None:
        grad_f.zero_()
    else:
        sigmoid_backward(grad_c * previous_cell, f, grad_input=grad_f)
    return grad_c * f


def _convolution_backward(grad: torch.Tensor, x: torch.Tensor, kernel: torch.Tensor, wanted: int) -> torch.Tensor:
    """Returns the gradient of a SAME convolution's input (`wanted` 0) or kernel (1)."""
    pad = [length // 2 for length in kernel.shape[2:]]
    mask = [wanted == 0, wanted == 1, False]
    gradients = torch.ops.aten.convolution_backward(grad, x, kernel, None, [1, 1], pad, [1, 1], False, [0, 0], 1, mask)
    return gradients[wanted]


def _like(x: torch.Tensor, channels: int) -> torch.Tensor:
    """Returns an empty tensor of other channels `[T, N, channels, H, W]`, each step in channels-last memory."""
    time, batch, _, height, width = x.shape
    return x.new_empty(time, batch, height, width, channels).permute(0, 1, 4, 2, 3)


class FrameBatchNorm(layers.BatchNorm):
    """Batch norm over N, T, H, W together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[T, N, C, H, W]` -> the same shape."""
        return super().forward(_frames(x)).unflatten(0, x.shape[:2])


class FramePool(nn.Module):
    """2x2 max-pool of each frame, stride 2, without padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[T, N, C, H, W]` -> `[T, N, C, H // 2, W // 2]`."""
        return functional.max_pool2d(_frames(x), _POOL).unflatten(0, x.shape[:2])


class ConvLSTM(nn.Module):
    """The whole network. Children that bear an endpoint's name compute it.

    Args:
      config: sizes and options.
      precision: "float32", "float64", or "bfloat16": convolutions and activations in bfloat16; weights, batch norm's
        arithmetic, the dense layer and the logits in float32.
    """

    ConvLSTM_1: ConvLSTMLayer

    def __init__(self, config: configs.ConvLSTMConfig, precision: str = "float32") -> None:
        super().__init__()
        self.config = config
        dtype, self.compute_dtype = layers.DTYPES[precision]
        shared = layers.CenterAndScale(config.filters, dtype) if config.share_batch_norm else None
        if shared:
            self.BatchNorm = shared
        channels = 3
        for number in range(1, config.num_layers + 1):
            self.add_module(f"ConvLSTM_{number}", ConvLSTMLayer(channels, config.filters, config.kernel_size, dtype))
            self.add_module(f"BatchNorm_{number}", FrameBatchNorm(config.filters, dtype, shared))
            self.add_module(f"MaxPool_{number}", FramePool())
            channels = config.filters
        self.dropout = layers.Dropout(config.dropout)
        features = architectures.weights(config)["Logits/kernel"].shape[0]
        self.Logits = layers.Dense(features, config.num_classes, dtype)

    def forward(
        self, clips: torch.Tensor, return_endpoints: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Scores clips.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.
          return_endpoints: also return every endpoint.

        Returns:
          Logits `[N, K]`; with `return_endpoints`, also name -> `[N, T, H', W', C]` (logits `[N, K]`). Each endpoint
          is on the path to the logits, so that their gradient with respect to it exists.
        """
        endpoints = {}
        x = layers.normalize(clips, self.config.normalization, self.compute_dtype)
        for name in self._names():
            if name.startswith("ConvLSTM") and name != "ConvLSTM_1":
                x = self.dropout(x)
            x = endpoints[name] = _to_border(self.get_submodule(name)(_to_native(x)))
        logits = endpoints["Logits"] = self._logits(x)
        return (logits, endpoints) if return_endpoints else logits

    def prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """Convolves each frame once, for any number of perturbations over time of the same clips (`perturbed`).

        A perturbation mixes frames and the first convolution is linear, so it can be applied before the mixing.
        Inference mode.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.

        Returns:
          `[N, T + 1, H', W', 4 F]`; the last of T + 1 frames is one of ones (see `layers.with_ones`).
        """
        layer = self.ConvLSTM_1
        x = layers.frames_and_ones(clips, self.config.normalization, layer.kernel.dtype)
        maps = layers.same_conv(x.flatten(0, 1).permute(0, 3, 1, 2), layer.kernel, _STRIDES)
        return maps.permute(0, 2, 3, 1).unflatten(0, x.shape[:2]).contiguous()

    def perturbed(self, prepared: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Scores perturbed clips: the logits of `matrix` · clips, to rounding. Inference mode.

        Args:
          prepared: of N clips, or of one that meets all N matrices; see `prepare`.
          matrix: `[N, T, T]`, in which the result is differentiable.

        Returns:
          Logits `[N, K]`.
        """
        layer = self.ConvLSTM_1
        rows = layers.with_ones(matrix, self.config.normalization)
        gates = (rows @ prepared.flatten(2)).unflatten(2, prepared.shape[2:]) + layer.bias
        x = _to_border(layer.recur(_to_native(gates.to(self.compute_dtype))))
        for name in self._names()[1:]:
            x = _to_border(self.get_submodule(name)(_to_native(x)))
        return self._logits(x)

    def _names(self) -> list[str]:
        numbers = range(1, self.config.num_layers + 1)
        return [f"{kind}_{number}" for number in numbers for kind in ("ConvLSTM", "BatchNorm", "MaxPool")]

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        frames = x[:, -1:] if self.config.head == "last_frame" else x
        return self.Logits(frames.flatten(1))


def _frames(x: torch.Tensor) -> torch.Tensor:
    """`[T, N, C, H, W]` -> `[T N, C, H, W]` in channels-last memory."""
    return x.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)


def _to_native(x: torch.Tensor) -> torch.Tensor:
    """`[N, T, H, W, C]` (border) -> `[T, N, C, H, W]`, a view."""
    return x.permute(1, 0, 4, 2, 3)


def _to_border(x: torch.Tensor) -> torch.Tensor:
    """`[T, N, C, H, W]` -> `[N, T, H, W, C]` (border), a view."""
    return x.permute(1, 0, 3, 4, 2)
