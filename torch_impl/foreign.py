"""Foreign models in PyTorch: adapters from what `--model` names to `common.models.foreign.ForeignModel`.

An adapter knows how a library is asked for a model, what the model takes instead of pixels, and which shape of clips.
What it takes comes from the library itself, not from a table here. No library is imported that is not asked for.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import pathlib
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from common import errors, files
from common.explaining import model_checks
from common.models import foreign
from common.models.foreign import ForeignModel, Inputs, Spec
from torch_impl import devices, gradcam, layers, weight_files


def load(spec: Spec, endpoint: str = "", precision: str = "float32", device: str = "auto") -> ForeignModel:
    """Loads a foreign model, in inference mode.

    Args:
      spec: what `--model` says.
      endpoint: layer for Grad-CAM; "" for what the adapter knows of the model, which may be none.
      precision: "float32", "tf32" (a GPU only), "bfloat16" or "float64".
      device: "auto", "cpu" or "gpu".

    Raises:
      errors.UserError: for a kind of the other build, a library that is not installed, weights that are not there or do
        not fit, and a model that is no classifier of clips.
    """
    foreign.check_kind(spec, "torch", endpoint)
    place = devices.find_device(device, precision)
    if spec.kind == "python":
        with place:  # What it makes lies there.
            model = foreign.from_python(spec)
    else:
        model = _ADAPTERS[spec.kind](spec, _Finish(spec, endpoint, layers.DTYPES[precision][-1], place))
    return foreign.with_names(model, spec)


class ScoreFn(foreign.Adapted):
    """An adapted model's probabilities, `[N, K]`, for clips of pixels, float `[N, T, H, W, 3]`, 0…255."""

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips -> probabilities `[N, K]`."""
        try:
            output = self.module(self.prepared(clips).permute(self.inputs.permutation))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:  # What layers say of a shape that is not theirs.
            shape = " x ".join(map(str, clips.shape[1:4]))
            raise errors.UserError(
                f"A model must take clips of T x H x W = {shape}. Received: {errors.first_line(error)}"
            ) from error
        output = model_checks.find_logits(output, torch.Tensor)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        return output if self.ends_in_softmax else output.softmax(dim=1)

    def prepared(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips of pixels -> what the module takes, still `[N, T, H, W, 3]`."""
        scale, shift = (
            torch.tensor(values, dtype=clips.dtype, device=clips.device)
            for values in (self.inputs.scale, self.inputs.shift)
        )
        return (clips * scale + shift).to(next(self.module.parameters()).dtype)


class _Finish:
    """What is the same for every module: precision, device, digest, Grad-CAM."""

    def __init__(self, spec: Spec, endpoint: str, dtype: torch.dtype, device: torch.device) -> None:
        self._spec, self._endpoint, self._dtype, self._device = spec, endpoint, dtype, device

    def __call__(
        self,
        module: nn.Module,
        inputs: Inputs,
        endpoint: str = "",
        axes: str = gradcam.LAYER_AXES,
        grid: Callable[[str], tuple[int, int, int]] | None = None,
        ends_in_softmax: bool = False,
        **values: Any,
    ) -> ForeignModel:
        """Returns the model.

        Args:
          module: of the library.
          inputs: what it takes instead of pixels.
          endpoint: layer for Grad-CAM unless the user names another; "" for none.
          axes: of a layer's output.
          grid: name of a layer -> T', H', W' of its tokens, where they do not follow from patches.
          ends_in_softmax: whether it returns probabilities.
          **values: other fields of a `ForeignModel`.
        """
        broken = [name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise errors.UserError(f"Weights must be finite. Received: {self._spec.rest}, where {broken[0]} is not")
        digest = _digest(module)
        module = module.to(self._device, self._dtype).eval().requires_grad_(False)
        score_fn = ScoreFn(module, inputs, ends_in_softmax)
        endpoint = self._endpoint or endpoint
        kind = f"{self._spec.kind}:{self._spec.name}"
        library = self._spec.kind
        versions = {library: importlib.metadata.version(library)}
        return ForeignModel(
            self._spec.name,
            kind,
            score_fn,
            endpoint_fn=_endpoint_fn(score_fn, endpoint, axes, grid and grid(endpoint)) if endpoint else None,
            versions=versions,
            digest=digest,
            **values,
        )


def _endpoint_fn(score_fn: ScoreFn, endpoint: str, axes: str, grid: tuple[int, int, int] | None) -> gradcam.EndpointFn:
    """Returns the function from pixels to logits and activations; where a model ends in softmax, to its logarithm."""
    run = gradcam.endpoint_fn(score_fn.module, endpoint, score_fn.inputs.axes, axes, grid)

    def run_on_pixels(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, activations = run(score_fn.prepared(clips))
        return output.clamp_min(1e-37).log() if score_fn.ends_in_softmax else output, activations

    return run_on_pixels


def _torchvision(spec: Spec, finish: _Finish) -> ForeignModel:
    """Of `torchvision.models.video`; normalisation and class names are those of its published weights."""
    video = _library("torchvision.models.video", "torchvision")
    models = importlib.import_module("torchvision.models")
    errors.check_choice("The model of torchvision:", spec.rest, models.list_models(module=video))
    published = models.get_model_weights(spec.rest).DEFAULT
    if spec.weights:
        state = _read_weights(spec.weights)
        with torch.device("meta"):
            head = [name for name, _ in getattr(video, spec.rest)().named_parameters()][-1]
        module = getattr(video, spec.rest)(num_classes=len(state[head]) if head in state else 400)
        _load_state(module, state, spec.weights)
        # PyTorch's hub has the first digits of a file's SHA-256 in its name.
        is_published = files.sha256(spec.weights).startswith(published.url.rpartition("-")[2].partition(".")[0])
    else:
        module, is_published = _downloaded(spec, lambda: getattr(video, spec.rest)(weights=published)), True
    preset = published.transforms()
    frames = re.search(r"clip_len=(\d+)", published.meta["_docs"])  # Nowhere else does the library say it.
    layer, axes = _TORCHVISION_ENDPOINTS.get(type(module).__name__, ("", gradcam.LAYER_AXES))
    of_kind: dict[str, Any] = {}
    if hasattr(module, "pos_encoding"):  # MViT has learnt it for one size.
        of_kind = {"clip_shape": _mvit_shape(module), "grid": functools.partial(_mvit_grid, module)}
    elif frames:
        of_kind = {"usual_shape": (int(frames[1]), *preset.crop_size)}
    return finish(
        module,
        foreign.normalized(preset.mean, preset.std, "NCTHW"),
        layer.format(last=len(getattr(module, "blocks", ())) - 1),
        axes,
        class_names=tuple(published.meta["categories"]) if is_published else (),
        source=published.url if is_published else "",
        **of_kind,
    )


def _mvit_shape(module: Any) -> tuple[int, int, int]:
    """Returns T, H, W of an MViT's clips: of its grid of tokens times the strides of its patches."""
    grid = module.pos_encoding.temporal_size, *module.pos_encoding.spatial_size
    frames, height, width = (size * stride for size, stride in zip(grid, module.conv_proj.stride, strict=True))
    return frames, height, width


def _mvit_grid(module: Any, endpoint: str) -> tuple[int, int, int]:
    """Returns T', H', W' of the tokens that an MViT's layer returns.

    Blocks pool their queries, and with them the tokens that they hand on. What a block does before that, its first norm
    and the projection to queries, keys and values, still has the tokens that came in.
    """
    place = re.search(r"blocks\.(\d+)\.?(.*)", endpoint)
    passed = int(place[1]) + (place[2] not in ("norm1", "attn.qkv")) if place else len(module.blocks)
    sizes = [module.pos_encoding.temporal_size, *module.pos_encoding.spatial_size]
    for block in module.blocks[:passed]:
        if block.attn.pool_q is not None:
            pool = block.attn.pool_q.pool
            axes = zip(sizes, pool.kernel_size, pool.stride, pool.padding, strict=True)
            sizes = [(size + 2 * pad - kernel) // stride + 1 for size, kernel, stride, pad in axes]
    return sizes[0], sizes[1], sizes[2]


def _transformers(spec: Spec, finish: _Finish) -> ForeignModel:
    """Of `transformers`, a folder or a name on its hub; normalisation is what its own processor does to pixels."""
    transformers = _library("transformers", "transformers")
    if spec.weights:
        raise errors.UserError(
            f"--weights must be left out for transformers:, which has its own. Received: {spec.weights}"
        )

    def read() -> tuple[nn.Module, dict[str, Any], Any]:
        transformers.logging.set_verbosity_error()  # What is missing is told below.
        transformers.logging.disable_progress_bar()
        model, loading = transformers.AutoModelForVideoClassification.from_pretrained(
            spec.rest, output_loading_info=True, dtype=torch.float32
        )
        return model, loading, transformers.AutoVideoProcessor.from_pretrained(spec.rest)

    module, loading, processor = _downloaded(spec, read)
    faults = [*sorted(loading["missing_keys"]), *(str(fault) for fault in loading["mismatched_keys"])]
    if faults:
        raise errors.UserError(
            f"A model must have all its weights, those of its classes too. Received: {spec.rest} without "
            f"{', '.join(faults[:3])}{f' and {len(faults) - 3} more' if len(faults) > 3 else ''}"
        )
    config = module.config
    frames = int(getattr(config, "num_frames", None) or config.frames_per_clip)
    step = getattr(config, "tubelet_size", 1)  # ViViT's is of time, height and width.
    size = getattr(config, "image_size", None)  # Where it is not, positions are relative.
    fixed = (frames, *_pair(size)) if size else (None, None, None)
    usual = None if size else (frames, *_pair(config.crop_size))
    names = tuple(config.id2label[number] for number in range(config.num_labels))
    local = pathlib.Path(spec.rest).is_dir()
    layer, axes = _TRANSFORMERS_ENDPOINTS.get(config.model_type, ("", ""))
    return finish(
        module,
        foreign.probed(lambda color: _processed(processor, color, frames), "NTCHW"),
        layer.format(last=config.num_hidden_layers - 1, before=config.num_hidden_layers - 2),
        axes or "N(THW)C",
        class_names=() if names[0] == "LABEL_0" else names,
        clip_shape=fixed,
        usual_shape=usual,
        source="" if local else f"https://huggingface.co/{spec.rest}",
        frames_per_step=int(step if isinstance(step, int) else step[0]),
    )


def _pytorchvideo(spec: Spec, finish: _Finish) -> ForeignModel:
    """Of `pytorchvideo.models.hub`, trained on Kinetics; all of them take the same mean and deviation."""
    hub = _library("pytorchvideo.models.hub", "pytorchvideo")
    others = re.compile(r"slowfast|detection|efficient")  # Of two clips at two rates, of boxes, for telephones.
    names = [name for name, value in vars(hub).items() if inspect.isfunction(value) and not others.search(name)]
    errors.check_choice("The model of pytorchvideo:", spec.rest, names)
    make = getattr(hub, spec.rest)
    if spec.weights:
        module = make(pretrained=False)
        _load_state(module, _read_weights(spec.weights), spec.weights)
    else:
        module = _downloaded(spec, lambda: make(pretrained=True))
    blocks = module.blocks
    return finish(
        module,
        foreign.normalized([0.45] * 3, [0.225] * 3, "NCTHW"),
        "" if spec.rest.startswith("mvit") else f"blocks.{len(blocks) - 2}",  # The last before the head.
        ends_in_softmax=isinstance(getattr(blocks[-1], "activation", None), nn.Softmax),
    )


def _processed(processor: Any, color: np.ndarray, frames: int) -> np.ndarray:
    """Returns what a processor makes of clips of one colour."""
    clip = np.broadcast_to(color, (frames, 64, 64, 3)).copy()
    (tensor,) = processor(list(clip), return_tensors="pt").values()  # [1, T, C, H, W]
    return tensor[0, 0, :, tensor.shape[-2] // 2, tensor.shape[-1] // 2].numpy()


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _read_weights(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a file, by name: safetensors, or PyTorch's, whose pickle may hold nothing else.

    Raises:
      errors.UserError: for another file, and for tensors that are not finite.
    """
    if path.suffix == ".safetensors":
        try:
            state: Any = safetensors.torch.load_file(path)
        except OSError:
            raise
        except Exception as error:  # Whatever a damaged file sets off in a header.
            raise errors.UserError(
                f"--weights must be a whole file of safetensors. Received: {path}: {errors.first_line(error)}"
            ) from None
    else:
        state = weight_files.load(path, "--weights")
    for name in ("state_dict", "model_state", "model"):  # What training scripts put around it.
        state = state.get(name, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise errors.UserError(f"--weights must be tensors by name. Received: {type(state).__name__} in {path}")
    broken = [name for name, tensor in state.items() if not (weight_files.is_whole(tensor) and tensor.isfinite().all())]
    if broken:
        raise errors.UserError(f"--weights must be finite, and all there. Received: {path}, where {broken[0]} is not")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load_state(module: nn.Module, state: dict[str, torch.Tensor], path: pathlib.Path) -> None:
    """Loads weights of exactly the module's names and shapes."""
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [f"{name} is unexpected" for name in state if name not in own]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise errors.UserError(
            f"--weights must be the model's. Received: {path}, where {', '.join(faults[:3])}"
            f"{f' and {len(faults) - 3} more faults' if len(faults) > 3 else ''}"
        )
    module.load_state_dict(state)


def _digest(module: nn.Module) -> str:
    """Returns the SHA-256, in hex, of a module's weights and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _library(name: str, extra: str) -> ModuleType:
    """Imports a library; says what to install where it is not there."""
    try:
        _declare_operators()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise errors.UserError(
            f"--model={extra}: must have its library: pip install -e '.[{extra}]'. Received: {error}"
        ) from None


def _declare_operators() -> None:
    """Lets torchvision, which all libraries want, be imported where its operators were built for another PyTorch.

    So it is where PyTorch has no CUDA and torchvision has. Its operators are for boxes; models of clips call none.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _downloaded(spec: Spec, read: Callable[[], Any]) -> Any:
    """Returns what `read` does; refuses in one line a folder that is not there and a download that fails."""
    try:
        return read()
    except (*_NOT_THERE, *_DAMAGED) as error:
        named = "" if spec.kind == "transformers" else ", or its weights named by --weights=FILE"
        raise errors.UserError(
            f"--model={spec.kind}:{spec.rest} must be found, or downloaded{named}. Received: {errors.first_line(error)}"
        ) from None


# Class of torchvision's models -> the last layer whose output is of clips, and the order of its axes.
_TORCHVISION_ENDPOINTS = {
    "VideoResNet": ("layer4", "NCTHW"),
    "S3D": ("features", "NCTHW"),
    "SwinTransformer3d": ("norm", "NTHWC"),
    "MViT": ("blocks.{last}.norm1", "N(THW)C"),  # After the last attention the class token alone has a gradient.
}
_NOT_THERE = (OSError, ValueError, ImportError)
_DAMAGED = (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, safetensors.SafetensorError)
# Type of transformers' models -> the last layer whose tokens all have a gradient, and the order of its axes.
_TRANSFORMERS_ENDPOINTS = {
    "videomae": ("videomae.encoder.layer.{last}", "N(THW)C"),
    "timesformer": ("timesformer.encoder.layer.{before}", "N(HWT)C"),  # After the last one the class token alone has.
    "vivit": ("vivit.layers.{last}.layernorm_before", "N(THW)C"),
    "vjepa2": ("vjepa2.encoder.layer.{last}", "N(THW)C"),
}
_ADAPTERS = {"torchvision": _torchvision, "transformers": _transformers, "pytorchvideo": _pytorchvideo}
