"""ConvLSTM classifier (Shi et al. 2015, arXiv:1506.04214, without peepholes), as section 4.2 of the paper uses it.

Per layer, with * a SAME convolution, W of stride 2, U of stride 1, and the gates in the order i, f, c, o:

    i_t, f_t, o_t = sigmoid(W x_t + U * h_(t-1) + b)        g_t = tanh(W x_t + U * h_(t-1) + b)
    c_t = f_t c_(t-1) + i_t g_t                             h_t = o_t tanh(c_t)

then batch norm over N, T, H, W together and a 2x2 max-pool of each frame. Inside, tensors are `[T, N, C, H, W]`:
a time step is one block of memory.
"""

import torch
from torch import nn
from torch.nn import functional

from common import architectures, configs
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
        frames = layers.same_conv(x.flatten(0, 1), self.kernel, _STRIDES, self.bias)
        return _recurrence(frames.unflatten(0, x.shape[:2]), self.recurrent_kernel)


def _recurrence(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
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
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class FramePool(nn.Module):
    """2x2 max-pool of each frame, stride 2, without padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[T, N, C, H, W]` -> `[T, N, C, H // 2, W // 2]`."""
        return functional.max_pool2d(x.flatten(0, 1), _POOL).unflatten(0, x.shape[:2])


class ConvLSTM(nn.Module):
    """The whole network. Children that bear an endpoint's name compute it.

    Args:
      config: sizes and options.
      precision: "float32", "float64", or "bfloat16": convolutions and activations in bfloat16; weights, batch norm's
        arithmetic, the dense layer and the logits in float32.
    """

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
          Logits `[N, K]`; with `return_endpoints`, also name -> `[N, T, H', W', C]` (logits `[N, K]`), each on the path
          to the logits: gradients of the logits with respect to it exist.
        """
        endpoints = {}
        x = layers.normalize(clips, self.config.normalization, self.compute_dtype)
        for number in range(1, self.config.num_layers + 1):
            x = x if number == 1 else self.dropout(x)
            for name in (f"ConvLSTM_{number}", f"BatchNorm_{number}", f"MaxPool_{number}"):
                x = endpoints[name] = _to_border(self.get_submodule(name)(_to_native(x)))
        frames = x[:, -1:] if self.config.head == "last_frame" else x
        logits = endpoints["Logits"] = self.Logits(frames.flatten(1))
        return (logits, endpoints) if return_endpoints else logits


def _to_native(x: torch.Tensor) -> torch.Tensor:
    """`[N, T, H, W, C]` (border) -> `[T, N, C, H, W]`, a view."""
    return x.permute(1, 0, 4, 2, 3)


def _to_border(x: torch.Tensor) -> torch.Tensor:
    """`[T, N, C, H, W]` -> `[N, T, H, W, C]` (border), a view."""
    return x.permute(1, 0, 3, 4, 2)
