"""What a user's model must return to be explained: checked once, where it comes in, with the same words in both builds.

Each check is given what came, or an array made of it, and refuses it in one line: nothing here knows a framework.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from common import errors
from common.explaining import layer_axes

PROBABILITIES = "probabilities [N, K]"
LOGITS = "logits [N, K]"


def check_tensor(output: Any, tensor: type, what: str) -> Any:
    """Returns what a model returned; refuses anything but one tensor.

    Args:
      output: a tensor, or a tuple, a dict, an array of NumPy or whatever else came.
      tensor: the framework's type of tensors.
      what: the model must return, `PROBABILITIES` or `LOGITS`.
    """
    if not isinstance(output, tensor):
        raise errors.UserError(
            f"A model must return {what} as one tensor, through which gradients flow (pick it from tuples and dicts). "
            f"Received: {_description(output, tensor)}"
        )
    return output


def check_endpoint(output: Any, tensor: type) -> tuple[Any, Any]:
    """Returns the logits and activations that an endpoint function returned; refuses anything but two tensors.

    Args:
      output: what came.
      tensor: the framework's type of tensors.
    """
    if not isinstance(output, tuple | list) or len(output) != 2 or not all(isinstance(part, tensor) for part in output):
        raise errors.UserError(
            f"An endpoint function must return two tensors, {LOGITS} and activations [N, T', H', W', C']. "
            f"Received: {_description(output, tensor)}"
        )
    logits, activations = output
    return logits, activations


def _description(output: Any, tensor: type) -> str:
    name = "tensor" if isinstance(output, tensor) else type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} of {', '.join(map(str, [*output][:5])) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"{name} of {', '.join(_description(part, tensor) for part in output[:5]) or 'nothing'}"
    return name


def check_shape(shape: tuple[int, ...], num_clips: int = 1) -> None:
    """Refuses the shape of what a model returns for some clips unless it is (N, K)."""
    if len(shape) != 2 or shape[0] != num_clips or not shape[1]:
        clips = "one clip" if num_clips == 1 else f"{num_clips} clips"
        raise errors.UserError(f"A model must return {PROBABILITIES}. Received: {shape} for {clips}")


def check_probabilities(probabilities: np.ndarray) -> None:
    """Refuses what cannot be class probabilities [1, K] of a clip."""
    check_shape(probabilities.shape)
    low, high, total = probabilities.min(), probabilities.max(), probabilities.sum()
    # Half precision rounds each of many.
    if not (low >= -1e-3 and high <= 1 + 1e-3 and abs(total - 1) <= 1e-2):
        raise errors.UserError(
            "A model must return probabilities, 0…1, whose sum is 1 (softmax of logits). "
            f"Received: {low:g}…{high:g}, whose sum is {total:g}"
        )


def check_targets(targets: np.ndarray, num_classes: int) -> None:
    """Refuses targets, int [N], that are none of the classes."""
    if not (targets.min() >= 0 and targets.max() < num_classes):
        raise errors.UserError(
            f"Targets must be classes 0…{num_classes - 1}. Received: {targets.min()}…{targets.max()}"
        )


def check_steady(alone: np.ndarray, again: np.ndarray, beside: np.ndarray) -> None:
    """Refuses probabilities of a clip that change from call to call, or with the other clips of a batch.

    A model in training mode fails this: a search would follow its noise, and its running statistics the search.

    Args:
      alone: of a clip, [1, K].
      again: of the same clip in a second call, [1, K].
      beside: of the same clip and another one in a batch, [2, K].
    """
    check_shape(again.shape)
    check_shape(beside.shape, num_clips=2)
    # A batch may be computed in another order, in half precision too; dropout and batch statistics change far more.
    for other, limit, when in ((again, 1e-5, "from call to call"), (beside[:1], 2e-2, "with another clip beside it")):
        change = np.abs(other - alone).max()
        if not change <= limit:
            raise errors.UserError(
                "A model's probabilities for a clip must depend on that clip alone, in every call the same (inference "
                f"mode: eval() in PyTorch, training=False in Keras). Received: they change by {change:.2g} {when}"
            )


def steady(probabilities: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the same function of clips, which refuses on its first call what `check_steady` refuses.

    Args:
      probabilities: clips uint8 [n, T, H, W, 3] -> [n, K].
    """
    checked = False

    def asked(clips: np.ndarray) -> np.ndarray:
        nonlocal checked
        if not checked:
            alone, again, beside = (probabilities(some) for some in (clips[:1], clips[:1], clips[[0, -1]]))
            check_shape(alone.shape)
            check_steady(alone, again, beside)
            checked = True
        return probabilities(clips)

    return asked


def check_prepared(score: float, prepared: float) -> None:
    """Refuses a model whose `perturbed(prepare(clips), matrix)` is not what it returns for matrix · clips.

    Args:
      score: of the target class of a clip.
      prepared: the same from `perturbed(prepare(clip), identity)`.
    """
    if not abs(prepared - score) <= 2e-2:  # In half precision the two may differ by some rounding.
        raise errors.UserError(
            "A model's perturbed(prepare(clips), matrix) must be its probabilities of matrix · clips. "
            f"Received: {prepared:.3g} for the identity, {score:.3g} for the clip"
        )


def check_gradient(exists: bool) -> None:
    """Refuses a score that has no gradient: the mask would follow its own cost alone and silently vanish."""
    if not exists:
        raise errors.UserError("A model's probabilities must be differentiable in the clips. Received: no gradient")


def find_logits(output: Any, tensor: type[Any]) -> Any:
    """Returns the logits among what a model returned.

    They are what came if that is one tensor, else what it calls `logits` (a key of a dict, a field of a `ModelOutput`
    or any other object), else the only tensor of two axes in a tuple, list or dict.

    Raises:
      UserError: for anything else.
    """
    if isinstance(output, tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, tensor):
        return logits
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    found = [part for part in parts if isinstance(part, tensor) and part.ndim == 2]
    if len(found) != 1:
        raise errors.UserError(
            f"A model must return {LOGITS}: one tensor, what it calls logits, or the only tensor of 2 axes of several. "
            f"Received: {_description(output, tensor)}"
        )
    return found[0]


def find_activations(output: Any, tensor: type[Any], axes: layer_axes.LayerAxes) -> Any:
    """Returns the tensor among what a layer returned: what came, or the first of a tuple or list.

    Args:
      output: what came.
      tensor: the framework's type of tensors.
      axes: which it must have.

    Raises:
      UserError: for anything else.
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, tensor) or first.ndim != len(axes.groups):
        shape = tuple(first.shape) if isinstance(first, tensor) else _description(output, tensor)
        raise errors.UserError(
            f"Grad-CAM must be given a layer whose output has the axes {axes.axes} (activations_axes; tokens have "
            f"'N(THW)C', TimeSformer's 'N(HWT)C', single frames '(NT)CHW' or '(NT)HWC'). Received: {shape}"
        )
    return first


def with_activations(output: Any, activations: Any) -> Any:
    """Returns what a layer returned, with other activations in the place of those that `find_activations` finds."""
    if isinstance(output, tuple | list):
        kind = type(output)
        return getattr(kind, "_make", kind)([activations, *output[1:]])  # A named tuple takes its fields one by one.
    return activations


def find_attention(output: Any, tensor: type[Any]) -> Any:
    """Returns the attention [N, heads, L, L], or [N, L, L], among what a layer returned.

    It is what came, or the only tensor of a tuple or list that is square in its last two axes, of 4, or of 3 if none of
    4 is.

    Raises:
      UserError: for anything else.
    """
    parts = output if isinstance(output, tuple | list) else [output]
    tensors = [part for part in parts if isinstance(part, tensor) and part.ndim in (3, 4)]
    square = [part for part in tensors if part.shape[-1] == part.shape[-2] and part.shape[-1]]
    most = max((part.ndim for part in square), default=0)
    found = [part for part in square if part.ndim == most]
    if len(found) != 1:
        raise errors.UserError(
            "Attention rollout must be given layers that return their attention [N, heads, L, L] (attn_implementation="
            "'eager' in transformers, return_attention_scores=True in Keras; or name a dropout of it). "
            f"Received: {_description(output, tensor)}"
        )
    return found[0]


def check_called(outputs: list, endpoint: str) -> None:
    """Refuses a layer that the model did not call."""
    if not outputs:
        raise errors.UserError(f"The model must call the endpoint. Received: no call of {endpoint!r}")
