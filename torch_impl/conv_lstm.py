"""ConvLSTM classifier (Shi et al. 2015, arXiv:1506.04214, no peepholes: D4), as section 4.2 of the paper uses it.

Per layer, with * a SAME convolution, W of stride 2, U of stride 1, and the gates in the order i, f, c, o:

    i_t, f_t, o_t = sigmoid(W x_t + U * h_(t-1) + b)        g_t = tanh(W x_t + U * h_(t-1) + b)
    c_t = f_t c_(t-1) + i_t g_t                             h_t = o_t tanh(c_t)

then batch norm over N, T, H, W together (in training by the batch's own statistics, D5) and a 2x2 max-pool of each
frame. Inside, tensors are `[T, N, C, H, W]`: a time step is one block of memory.
"""

import torch
from torch import nn
from torch.nn import functional

from common.models import architectures, configs
from torch_impl import layers, pools, recurrence

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
        # What `plain_recurrence` computes, with a gradient that is faster than autograd's.
        return recurrence.run(gates, self.recurrent_kernel)


def plain_recurrence(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Runs through time as the equations say.

    Args:
      inputs: the input's share of the gates, `[T, N, 4 F, H, W]`.
      kernel: recurrent kernel, `[4 F, F, h, w]`.

    Returns:
      Hidden states, `[T, N, F, H, W]`.
    """
    hidden_states: list[torch.Tensor] = []
    cell = None
    for gates in inputs:
        if hidden_states:
            gates = gates + layers.same_conv(hidden_states[-1], kernel, (1, 1))
        i, f, g, o = gates.chunk(4, dim=1)
        new = torch.sigmoid(i) * torch.tanh(g)
        cell = new if cell is None else torch.sigmoid(f) * cell + new
        hidden_states.append(torch.sigmoid(o) * torch.tanh(cell))
    return torch.stack(hidden_states)


class FrameBatchNorm(layers.BatchNorm):
    """Batch norm over N, T, H, W together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[T, N, C, H, W]` -> the same shape."""
        return super().forward(_frames(x)).unflatten(0, x.shape[:2])


class FramePool(nn.Module):
    """2x2 max-pool of each frame, stride 2, without padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[T, N, C, H, W]` -> `[T, N, C, H // 2, W // 2]`."""
        frames = _frames(x)
        if torch.are_deterministic_algorithms_enabled():
            rows, columns = (size - size % 2 for size in frames.shape[2:])  # No window reaches beyond the last one.
            frames = pools.max_pool(frames[:, :, None, :rows, :columns], (1, *_POOL), (1, *_POOL), [0, 0, 0])[:, :, 0]
        else:
            frames = functional.max_pool2d(frames, _POOL)
        return frames.unflatten(0, x.shape[:2])


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
            layer = self.get_submodule(name)
            if name.startswith("ConvLSTM") and name != "ConvLSTM_1" and layer.training:
                x = self.dropout(x)
            x = endpoints[name] = _to_border(layer(_to_native(x)))
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
        return maps.to(self.compute_dtype).permute(0, 2, 3, 1).unflatten(0, x.shape[:2]).contiguous()

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
        gates = layers.mix(rows, prepared) + layer.bias.to(prepared.dtype)
        x = _to_border(layer.recur(_to_native(gates)))
        for name in self._names()[1:]:
            x = _to_border(self.get_submodule(name)(_to_native(x)))
        return self._logits(x)

    def _names(self) -> list[str]:
        """Returns the endpoints before the logits, in order."""
        numbers = range(1, self.config.num_layers + 1)
        return [f"{kind}_{number}" for number in numbers for kind in ("ConvLSTM", "BatchNorm", "MaxPool")]

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        """Activations of the last pool, `[N, T, H, W, C]` -> logits `[N, K]`."""
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
