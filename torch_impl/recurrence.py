"""The time loop of a ConvLSTM layer in PyTorch, with its gradient written out.

With z_t = W x_t + b the input's share of the gates, * the SAME convolution of stride 1, and z̃_t = z_t + U * h_(t-1),

    i_t, f_t, o_t = sigmoid(z̃_t)     g_t = tanh(z̃_t)     c_t = f_t c_(t-1) + i_t g_t     h_t = o_t tanh(c_t)

as `conv_lstm.plain_recurrence` computes them. Backpropagation through time carries dh_t and dc_t, the gradients of the
loss in h_t and c_t, from the last step to the first. With δh_t the gradient that reaches h_t from outside, U^T the
transposed convolution and dz̃_t the gradient in the gates before their activations:

    dh_t = δh_t + U^T * dz̃_(t+1)                        dc_t = f_(t+1) dc_(t+1) + dh_t o_t (1 - tanh²(c_t))
    dz̃_t = ( dc_t g_t       i_t (1 - i_t),              for i
             dc_t c_(t-1)   f_t (1 - f_t),              for f
             dc_t i_t       (1 - g_t²),                 for g
             dh_t tanh(c_t) o_t (1 - o_t) )             for o
    dz_t = dz̃_t                                         dU = Σ_t dz̃_t ⋆ h_(t-1)

with c_(-1) = h_(-1) = 0 and ⋆ the correlation that gives a convolution's kernel gradient. Autograd would compute T - 1
such kernel gradients, one per step; here one convolution over all steps gives their sum, which is why it is written out
(`run`). Shapes: z, z̃ and gates `[T, N, 4 F, H, W]` in the order i, f, g, o; h and c `[T, N, F, H, W]`;
U `[4 F, F, h, w]`. Everything is in the dtype of the convolutions.
"""

from typing import Any

import torch
from torch.nn import functional


def run(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Runs through time from zero state; differentiable in both arguments, once.

    Args:
      inputs: the input's share of the gates, z, `[T, N, 4 F, H, W]`; its dtype is that of the computation.
      kernel: U, `[4 F, F, h, w]`.

    Returns:
      Hidden states `[T, N, F, H, W]`, each step in channels-last memory.
    """
    # A zero in front makes an even kernel odd, whose SAME padding is symmetric, as the convolution's own is.
    height, width = kernel.shape[2:]
    kernel = functional.pad(kernel.to(inputs.dtype), (1 - width % 2, 0, 1 - height % 2, 0))
    keep = torch.is_grad_enabled() and (inputs.requires_grad or kernel.requires_grad)
    return _Recurrence.apply(inputs, kernel, keep)


class _Recurrence(torch.autograd.Function):
    """The loop and its gradient; gates are stored as activations i, f, g, o."""

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
