"""Pools whose gradient is the same, bit for bit, in every run, where that is asked for.

On a GPU PyTorch adds the gradients of overlapping windows in no certain order, and refuses its own pools where
`torch.use_deterministic_algorithms` is on. These are then others, which compute the same.
"""

import itertools
from typing import Any

import torch
from torch.nn import functional


def max_pool(x: torch.Tensor, kernel_size: tuple[int, ...], strides: tuple[int, ...], pads: list[int]) -> torch.Tensor:
    """Returns the largest values of windows, `[N, C, T', H', W']`; the last windows may reach beyond the padding.

    Args:
      x: `[N, C, T, H, W]`.
      kernel_size: of the windows, in T, H, W.
      strides: from window to window.
      pads: places of -inf before and after x.
    """
    if torch.are_deterministic_algorithms_enabled():
        return _OrderedMaxPool.apply(x, kernel_size, strides, pads)
    return functional.max_pool3d(x, kernel_size, strides, pads, ceil_mode=True)


class _OrderedMaxPool(torch.autograd.Function):
    """`max_pool3d`, whose gradient is added up in one order: place in the window by place in the window."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, kernel_size: tuple[int, ...], strides: tuple[int, ...], pads: list[int]
    ) -> torch.Tensor:
        """As `max_pool`."""
        y, places = functional.max_pool3d(x, kernel_size, strides, pads, ceil_mode=True, return_indices=True)
        ctx.save_for_backward(places)
        ctx.size, ctx.windows = x.shape[2:], (kernel_size, strides, pads)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Gives each window's gradient to the place of its largest value."""
        (places,), (kernel_size, strides, pads) = ctx.saved_tensors, ctx.windows
        (_, height, width), counts = ctx.size, gradient.shape[2:]
        # Where in its window each largest value is, along each axis: its place in x, and where the window begins there.
        axes = (places // (height * width), places // width % height, places % width)
        inside = [
            place + pad - stride * torch.arange(count, device=place.device).view([-1] + [1] * (2 - axis))
            for axis, (place, count, stride, pad) in enumerate(zip(axes, counts, strides, pads, strict=True))
        ]
        reach = [  # From the padding before x to the end of the last window, or of x.
            max((count - 1) * stride + kernel, size + pad)
            for count, stride, kernel, size, pad in zip(counts, strides, kernel_size, ctx.size, pads, strict=True)
        ]
        total = gradient.new_zeros(*gradient.shape[:2], *reach)
        for window_place in itertools.product(*map(range, kernel_size)):
            chosen = [where == offset for where, offset in zip(inside, window_place, strict=True)]
            steps = (
                slice(offset, offset + stride * (count - 1) + 1, stride)
                for offset, stride, count in zip(window_place, strides, counts, strict=True)
            )
            window: Any = (..., *steps)
            total[window] += torch.where(chosen[0] & chosen[1] & chosen[2], gradient, 0)
        within: Any = (..., *(slice(pad, pad + size) for pad, size in zip(pads, ctx.size, strict=True)))
        return total[within], None, None, None


def average_pool(x: torch.Tensor, kernel_size: tuple[int, int, int]) -> torch.Tensor:
    """Returns the means of all windows of x `[N, C, T, H, W]` that lie inside, at stride 1 (see `max_pool`)."""
    if torch.are_deterministic_algorithms_enabled():
        for axis, size in enumerate(kernel_size, start=2):
            x = x.unfold(axis, size, 1).mean(-1)
        return x
    return functional.avg_pool3d(x, kernel_size, stride=1, padding=0)
