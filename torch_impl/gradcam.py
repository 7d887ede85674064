"""Grad-CAM in PyTorch (section 3.2, Eq. 2): where in the activations of an endpoint a class score comes from.

Here are the forward pass to endpoint and logits, and the gradient between the two; Eq. 2 itself, up-sampling and
normalisation are `common/explaining/gradcam_maps.py`. Works on any callable from clips to logits and activations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import nn

from common import errors
from common.explaining import gradcam_maps, model_checks
from common.explaining.gradcam_maps import GradCamConfig
from torch_impl import layers, weights

# Clips [N, T, H, W, C], uint8 or float -> logits [N, K] and activations [N, T', H', W', C'], from which the logits
# were computed.
EndpointFn = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

LAYER_AXES = "NCTHW"  # Of what PyTorch's 3-D layers take and return.
_CHANNELS_FIRST = (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d)  # Whatever the rest of a module does.


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
        # Weights are left as they are: a function of a user's own may have its gradient from nothing else.
        inference = layers.frozen(self._endpoint_fn, weights=False)
        with torch.inference_mode(False), torch.enable_grad(), inference:
            logits, activations = model_checks.check_endpoint(self._endpoint_fn(clips), torch.Tensor)
            gradcam_maps.check_shapes(tuple(clips.shape), tuple(activations.shape), tuple(logits.shape))
            gradcam_maps.check_logits(_array(logits), self._config.score)
            chosen = gradcam_maps.check_targets(targets, *logits.shape)
            gradients = self._gradients(logits, activations, torch.as_tensor(chosen, device=logits.device))
        return gradcam_maps.combine(_array(activations), _array(gradients), self._config.weights)

    def _gradients(self, logits: torch.Tensor, activations: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
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
    model: nn.Module, endpoint: str = "", clips_axes: str = LAYER_AXES, activations_axes: str = LAYER_AXES
) -> EndpointFn:
    """Returns the function from clips to logits and the activations of an endpoint.

    In the call the model is in inference mode, its weights are frozen, and no graph is kept before the endpoint;
    afterwards, also after an exception, the model is as it was.

    Args:
      model: an I3D or a ConvLSTM of this package, or any module from clips to logits `[N, K]`.
      endpoint: one of the model's endpoints, "" for the paper's; of any other module, a layer by the name that
        `get_submodule` takes. Where the layer is called several times, the first call counts.
      clips_axes: the order of the axes in which any other module takes clips, as letters: "NCTHW", "NTHWC", "NTCHW".
      activations_axes: the order in which its layer returns activations.

    Raises:
      UserError: for an endpoint that the model does not have (lists those it has), or axes that cannot be.
    """
    ours = model if isinstance(model, weights.Model) else None
    if ours is not None:
        endpoint = gradcam_maps.find_endpoint(ours.config, endpoint)
        clips_axes = activations_axes = gradcam_maps.BORDER_AXES
    else:
        names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
        errors.check_choice("endpoint", endpoint, names)
    layer = model.get_submodule(endpoint)
    if ours is None:
        gradcam_maps.check_axes(activations_axes, 1 if isinstance(layer, _CHANNELS_FIRST) else None)
    to_model = gradcam_maps.permutation(gradcam_maps.BORDER_AXES, clips_axes)

    def run(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activations: list[torch.Tensor] = []
        with layers.frozen(model), layer.register_forward_hook(_cut(activations, activations_axes)):
            if ours is not None:
                logits, endpoints = ours(clips, return_endpoints=True)
                return logits, endpoints[endpoint]
            logits = model(clips.permute(to_model))
        model_checks.check_called(activations, endpoint)
        return model_checks.check_tensor(logits, torch.Tensor, model_checks.LOGITS), activations[0]

    return run


def _cut(activations: list[torch.Tensor], axes: str) -> Callable[..., torch.Tensor | None]:
    """Returns a hook that begins the graph at a layer's first output, which it appends to `activations`."""
    to_border = gradcam_maps.permutation(axes, gradcam_maps.BORDER_AXES)
    to_layer = gradcam_maps.permutation(gradcam_maps.BORDER_AXES, axes)

    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> torch.Tensor | None:
        del layer, inputs
        if activations:
            return None
        leaf = model_checks.check_layer(output, torch.Tensor).permute(to_border).detach().requires_grad_()
        activations.append(leaf)
        # A copy, since the next layer may write into it, which a leaf does not allow.
        return leaf.clone().permute(to_layer)

    return hook


def _full(x: torch.Tensor) -> torch.Tensor:
    """Returns float64 as it is, and anything else as float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _array(x: torch.Tensor) -> np.ndarray:
    return _full(x.detach()).cpu().numpy()
