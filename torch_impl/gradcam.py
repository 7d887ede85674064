"""Grad-CAM in PyTorch (section 3.2, Eq. 2): where in the activations of an endpoint a class score comes from.

Here are the forward pass to endpoint and logits, and the gradient between the two; Eq. 2 itself, up-sampling and
normalisation are `common/explaining/gradcam_maps.py`. Works on any callable from clips to logits and activations.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import nn

from common import errors
from common.explaining import attention_rollout, gradcam_maps, layer_axes, model_checks
from common.explaining.gradcam_maps import GradCamConfig
from torch_impl import freezing, transfers, weights

# Clips [N, T, H, W, C], uint8 or float -> logits [N, K] and activations [N, T', H', W', C'], from which the logits
# were computed.
EndpointFn = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

LAYER_AXES = "NCTHW"  # Of what PyTorch's 3-D layers take and return.
# Where these have their channels, whatever the rest of a module does.
_CHANNELS_FIRST = (nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)


def gradcam(
    endpoint_fn: EndpointFn, clips: Shaped[torch.Tensor | np.ndarray, "N T H W C"], targets: Any, config: GradCamConfig
) -> Float[np.ndarray, "N t h w"]:
    """Returns coarse Grad-CAM maps (see `GradCam`, which many batches should share)."""
    return GradCam(endpoint_fn, config)(clips, targets)


class GradCam:
    """Coarse Grad-CAM maps of one endpoint, batch after batch.

    Args:
      endpoint_fn: from clips to logits and activations.
      config: weights and score; the endpoint is the function's.
    """

    def __init__(self, endpoint_fn: EndpointFn, config: GradCamConfig) -> None:
        self._endpoint_fn, self._config = endpoint_fn, config

    def __call__(
        self, clips: Shaped[torch.Tensor | np.ndarray, "N T H W C"], targets: Any
    ) -> Float[np.ndarray, "N t h w"]:
        """Explains clips; what comes out for a clip does not depend on the others.

        Args:
          clips: what the function takes.
          targets: class to explain of each clip, int `[N]`.

        Returns:
          Maps at least 0, not normalised; float64 where the activations are, else float32.

        Raises:
          UserError: for a target that is not a class; for activations that are not `[N, T', H', W', C']` of the clips,
            not used or not finite; for probabilities where logits are wanted.
        """
        clips = torch.as_tensor(clips)
        # Weights keep `requires_grad`: through them alone a function of a user's may be differentiable.
        inference = freezing.frozen(self._endpoint_fn, weights=False)
        with torch.inference_mode(False), torch.enable_grad(), inference:
            logits, activations = model_checks.check_endpoint(self._endpoint_fn(clips), torch.Tensor)
            gradcam_maps.check_shapes(tuple(clips.shape), tuple(activations.shape), tuple(logits.shape))
            gradcam_maps.check_logits(_array(logits), self._config.score)
            chosen = gradcam_maps.check_targets(transfers.on_host(targets), *logits.shape)
            gradients = self._gradients(logits, activations, torch.as_tensor(chosen, device=logits.device))
        return gradcam_maps.combine(_array(activations), _array(gradients), self._config.weights)

    def _gradients(self, logits: torch.Tensor, activations: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of each clip's score for its target, int `[N]`, in its activations."""
        scores = _full(logits)
        if self._config.score == "probability":
            scores = torch.softmax(scores, dim=1)
        gradients = None
        if logits.requires_grad and activations.requires_grad:
            score = scores.gather(1, targets[:, None]).sum()
            (gradients,) = torch.autograd.grad(score, activations, allow_unused=True)
        if gradients is None:
            raise errors.UserError("Logits must be computed from the endpoint's activations. Received: no gradient")
        return gradients


def endpoint_fn(
    model: nn.Module,
    endpoint: str = "",
    clips_axes: str = "",
    activations_axes: str = "",
    grid: tuple[int, int, int] | None = None,
    class_tokens: int | None = None,
) -> EndpointFn:
    """Returns the function from clips to logits and the activations of an endpoint.

    In the call the model is in inference mode, its weights are frozen, and no graph is kept before the endpoint;
    afterwards, also after an exception, the model is as it was.

    Args:
      model: an I3D or a ConvLSTM of this package, or any module that returns logits `[N, K]` (see
        `model_checks.find_logits`); compiled or wrapped in `DataParallel`, it is taken as it was before.
      endpoint: one of the model's endpoints, "" for the paper's; of any other module, a layer by the name that
        `get_submodule` takes, or by the end of it. Where the layer is called several times, the first call counts.
      clips_axes: the order of the axes in which any other module takes clips, as letters: "NCTHW", "NTHWC", "NTCHW";
        "" for `LAYER_AXES`.
      activations_axes: the order in which its layer returns activations, tokens and single frames with brackets (see
        `layer_axes`): "N(THW)C", "(NT)CHW"; "" for `LAYER_AXES`.
      grid: T', H', W' of tokens; None where the model's patches, the convolutions whose kernel is their stride, say it.
      class_tokens: tokens before those of the grid, which are left out; None for 0 or 1, whichever fits.

    Raises:
      UserError: for an endpoint that the model does not have (lists those it has), or axes that cannot be.
    """
    model = _unwrapped(model)
    if isinstance(model, weights.Model):
        ours, clips_axes = gradcam_maps.find_endpoint(model.config, endpoint), layer_axes.BORDER_AXES
        layer, axes = model.get_submodule(ours), layer_axes.LayerAxes(layer_axes.BORDER_AXES)
    else:
        ours, layer = "", layer_axes.find_layer(endpoint, _named_layers(model), ".")
        axes = layer_axes.LayerAxes(activations_axes or LAYER_AXES, grid, class_tokens)
        axes.check_channels(_channels(layer))
    to_model = layer_axes.permutation(layer_axes.BORDER_AXES, clips_axes or LAYER_AXES)
    patches = _patches(model)

    def run(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activations: list[torch.Tensor] = []

        def cut(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            del layer, inputs
            if activations:
                return None
            found = model_checks.find_activations(output, torch.Tensor, axes)
            time, height, width = clips.shape[1:4]
            fold = axes.fold(tuple(found.shape), (time, height, width), patches)
            activations.append(_folded(found, fold).detach().requires_grad_())
            return model_checks.with_activations(output, _unfolded(activations[0], found.detach(), fold))

        with freezing.frozen(model), layer.register_forward_hook(cut):
            if ours:
                logits, endpoints = model(clips, return_endpoints=True)
                return logits, endpoints[ours]
            output = model(clips.permute(to_model))
        model_checks.check_called(activations, endpoint)
        return model_checks.find_logits(output, torch.Tensor), activations[0]

    return run


def attentions(
    model: nn.Module,
    endpoints: Sequence[str],
    clips: Shaped[torch.Tensor | np.ndarray, "N T H W C"],
    clips_axes: str = "",
) -> Float[np.ndarray, "layers n heads L L"]:
    """Returns the attentions of layers, for `attention_rollout`; the model is in inference mode.

    Args:
      model: any `nn.Module`; see `endpoint_fn`.
      endpoints: layers that return their attention (see `model_checks.find_attention`), by name as in `endpoint_fn`,
        the first one first.
      clips: what the function takes that `endpoint_fn` returns.
      clips_axes: see `endpoint_fn`.

    Raises:
      UserError: for unknown layers, and layers that return no attention.
    """
    model = _unwrapped(model)
    found: list[list[np.ndarray]] = [[] for _ in endpoints]
    to_model = layer_axes.permutation(layer_axes.BORDER_AXES, clips_axes or LAYER_AXES)
    named = list(_named_layers(model))

    def recorded(outputs: list[np.ndarray]) -> Callable[..., None]:
        def record(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            del layer, inputs
            outputs.append(_array(model_checks.find_attention(output, torch.Tensor)))

        return record

    with contextlib.ExitStack() as stack, torch.no_grad(), freezing.frozen(model):
        for endpoint, outputs in zip(endpoints, found, strict=True):
            layer = layer_axes.find_layer(endpoint, named, ".")
            stack.enter_context(layer.register_forward_hook(recorded(outputs)))
        model(torch.as_tensor(clips).permute(to_model))
    for endpoint, outputs in zip(endpoints, found, strict=True):
        model_checks.check_called(outputs, endpoint)
    return attention_rollout.stack([outputs[0] for outputs in found])


def _unwrapped(model: nn.Module) -> nn.Module:
    """Returns the module that a user compiled or wrapped."""
    while _is_wrapper(model):
        model = next(model.children())
    return model


def _is_wrapper(module: nn.Module) -> bool:
    # What `torch.compile` returns is known by its attribute: to import its class takes seconds.
    return hasattr(module, "_orig_mod") or isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)


def _named_layers(model: nn.Module) -> Iterator[tuple[list[str], nn.Module]]:
    """Yields a module's layers, each by its path without wrappers, and with them."""
    wrappers = {name for name, module in model.named_modules(remove_duplicate=False) if _is_wrapper(module)}
    for name, module in model.named_modules(remove_duplicate=False):
        parts = name.split(".")
        own = [part for i, part in enumerate(parts) if ".".join(parts[:i]) not in wrappers]
        if name and name not in wrappers:
            yield [".".join(own), name], module


def _channels(layer: nn.Module) -> int | None:
    """Returns which axis of its output a layer says that the channels are; None for layers that do not say."""
    if isinstance(layer, _CHANNELS_FIRST):
        return 1
    return -1 if isinstance(layer, _CHANNELS_LAST) else None


def _patches(model: nn.Module) -> list[tuple[int, ...]]:
    """Returns the sizes (T, H, W) of the patches that a model cuts clips into, one for each convolution that does."""
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    sizes = [(conv.kernel_size, conv.stride) for conv in convs if max(conv.kernel_size) > 1]
    return [((1,) * (3 - len(kernel))) + kernel for kernel, stride in sizes if kernel == stride]


def _folded(output: torch.Tensor, fold: layer_axes.Fold) -> torch.Tensor:
    """Returns a layer's output as activations `[N, T', H', W', C']`, without what it has before the grid."""
    kept = output.narrow(fold.axis, fold.skipped, output.shape[fold.axis] - fold.skipped)
    return (kept if fold.shape is None else kept.reshape(fold.shape)).permute(fold.order)


def _unfolded(activations: torch.Tensor, output: torch.Tensor, fold: layer_axes.Fold) -> torch.Tensor:
    """Returns a layer's output with these activations: the way back from `_folded`."""
    kept = list(output.shape)
    kept[fold.axis] -= fold.skipped
    tokens = activations.permute(fold.back).reshape(kept)
    # A copy in either case, since the next layer may write into it, which a leaf does not allow.
    return torch.cat([output.narrow(fold.axis, 0, fold.skipped), tokens], fold.axis) if fold.skipped else tokens.clone()


def _full(x: torch.Tensor) -> torch.Tensor:
    """Returns float64 as it is, and anything else as float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _array(x: torch.Tensor) -> np.ndarray:
    return _full(x.detach()).cpu().numpy()
