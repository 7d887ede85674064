"""I3D, the inflated Inception-v1 (Carreira & Zisserman 2017, arXiv:1705.07750), as section 4.2 of the paper uses it.

The layers come from the table in `common/models/architectures.py`; endpoints bear DeepMind's names. The paper's change:
the temporal stride of Conv3d_1a_7x7 and MaxPool3d_4a_3x3 is 1, so that 16 frames give 8 activations at Mixed_5c.
"""

import functools

import torch
from torch import nn
from torch.nn import functional

from common.models import architectures, configs, padding
from torch_impl import layers, pools


class InceptionBlock(nn.Module):
    """Four branches, concatenated along channels."""

    def __init__(self, channels: int, block: architectures.Inception, dtype: torch.dtype) -> None:
        super().__init__()
        for number, units in enumerate(block.branches):
            branch, branch_channels = nn.Sequential(), channels
            for unit in units:
                branch.add_module(unit.name, _block(branch_channels, unit, dtype))
                branch_channels = _filters(branch_channels, unit)
            self.add_module(f"Branch_{number}", branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T, H, W]` -> `[N, C', T, H, W]`."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Head(nn.Module):
    """Average over time and space, dropout, 1x1x1 convolution with bias.

    Args:
      channels: C.
      num_classes: K.
      dropout: probability of dropping.
      pool: window of an average pool with stride 1 before the dropout, whose results are averaged; None: all there is.
      dtype: of weights and logits.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        dropout: float,
        pool: tuple[int, int, int] | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.dropout = layers.Dropout(dropout)
        self.Conv3d_0c_1x1 = layers.PointwiseConv3D(channels, num_classes, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T, H, W]` -> logits `[N, K]`."""
        # The convolution is linear: the mean of the logits of every position are the logits of the mean.
        dtype = self.Conv3d_0c_1x1.kernel.dtype
        if self.pool is None:
            return self.Conv3d_0c_1x1(self.dropout(x.mean((2, 3, 4), dtype=dtype)))
        pooled = pools.average_pool(x.to(dtype), self.pool)
        return self.Conv3d_0c_1x1(self.dropout(pooled).mean((2, 3, 4)))


class I3D(nn.Module):
    """The whole network. Children bear the endpoints' names, in order.

    Args:
      config: sizes and options.
      precision: "float32", "float64", or "bfloat16": convolutions and activations in bfloat16; weights, batch norm's
        arithmetic, the head and the logits in float32.
    """

    Conv3d_1a_7x7: layers.Unit3D

    def __init__(self, config: configs.I3DConfig, precision: str = "float32") -> None:
        super().__init__()
        self.config = config
        weight_dtype, self.compute_dtype = layers.DTYPES[precision]
        channels = 3
        for block in architectures.i3d_blocks(config):
            self.add_module(block.name, _block(channels, block, weight_dtype))
            channels = _filters(channels, block)
        pool = architectures.I3D_HEAD_POOLS[config.head]
        self.Logits = Head(channels, config.num_classes, config.dropout, pool, weight_dtype)

    def forward(
        self, clips: torch.Tensor, return_endpoints: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Scores clips.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.
          return_endpoints: also return every endpoint.

        Returns:
          Logits `[N, K]`; with `return_endpoints`, also name -> `[N, T', H', W', C]` (logits `[N, K]`). Each endpoint
          is on the path to the logits, so that their gradient with respect to it exists.
        """
        endpoints = {}
        x = layers.normalize(clips, self.config.normalization, self.compute_dtype)
        for name, _ in self.named_children():
            x = endpoints[name] = self._run(name, x)
        return (x, endpoints) if return_endpoints else x

    def prepare(self, clips: torch.Tensor) -> torch.Tensor:
        """Convolves each frame once, for any number of perturbations over time of the same clips (`perturbed`).

        A perturbation mixes frames and the first convolution is linear, so it can be applied before the mixing: by the
        kernel of each of its taps in time alone. Inference mode.

        Args:
          clips: `[N, T, H, W, 3]`, uint8 or float, 0…255.

        Returns:
          `[N, taps (T + 1), H', W', C]`; the last of T + 1 frames is one of ones (see `layers.with_ones`).
        """
        unit = self.Conv3d_1a_7x7
        x = layers.frames_and_ones(clips, self.config.normalization, unit.conv.kernel.dtype)
        scale, _ = unit.batch_norm.folded()
        kernel = unit.conv.kernel * scale[:, None, None, None, None]
        taps = kernel.shape[2]
        kernel = kernel.permute(2, 0, 1, 3, 4).flatten(0, 1)  # [taps C, 3, H, W]
        maps = layers.same_conv(x.flatten(0, 1).permute(0, 3, 1, 2), kernel, unit.conv.strides[1:])
        maps = maps.unflatten(1, (taps, -1)).unflatten(0, x.shape[:2])  # [N, T + 1, taps, C, H', W']
        return maps.to(self.compute_dtype).permute(0, 2, 1, 4, 5, 3).flatten(1, 2).contiguous()

    def perturbed(self, prepared: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Scores perturbed clips: the logits of `matrix` · clips, to rounding. Inference mode.

        Args:
          prepared: of N clips, or of one that meets all N matrices; see `prepare`.
          matrix: `[N, T, T]`, in which the result is differentiable.

        Returns:
          Logits `[N, K]`.
        """
        unit = self.Conv3d_1a_7x7
        rows = layers.with_ones(matrix, self.config.normalization)
        taps, stride = unit.conv.kernel.shape[2], unit.conv.strides[0]
        around = padding.same_padding(rows.shape[1], taps, stride)
        windows = functional.pad(rows, (0, 0, *around)).unfold(1, taps, stride)  # [N, T', T + 1, taps]
        _, shift = unit.batch_norm.folded()
        x = functional.relu(layers.mix(windows.transpose(2, 3).flatten(2), prepared) + shift.to(prepared.dtype))
        for name, _ in list(self.named_children())[1:]:
            x = self._run(name, x)
        return x

    def _run(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Returns an endpoint from the one before it, both in the border's layout."""
        x = self.get_submodule(name)(layers.to_native(x))
        return x if name == "Logits" else layers.to_border(x)


def _block(channels: int, block: architectures.Block, dtype: torch.dtype) -> nn.Module:
    if isinstance(block, architectures.Inception):
        return InceptionBlock(channels, block, dtype)
    if isinstance(block, architectures.MaxPool):
        return layers.MaxPool(block.kernel, block.strides)
    return layers.Unit3D(channels, block, dtype)


def _filters(channels: int, block: architectures.Block) -> int:
    """Returns the channels that come out where `channels` go in."""
    if isinstance(block, architectures.Inception):
        return sum(functools.reduce(_filters, branch, channels) for branch in block.branches)
    return channels if isinstance(block, architectures.MaxPool) else block.filters
