"""Foreign models: classifiers of clips that this project did not train, and what it must know to ask them.

`--model=KIND:REST` names one (`parse`); the adapters of each build, in its module `foreign`, load it as a
`ForeignModel`. From there on nothing knows where a model came from.
"""

import dataclasses
import hashlib
import importlib
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from common import errors, files
from common.clips import classes

# Kind -> the builds that have an adapter for it.
KINDS = {
    "torchvision": ("torch",),
    "transformers": ("torch",),
    "pytorchvideo": ("torch",),
    "keras": ("tf",),
    "saved_model": ("tf",),
    "python": ("torch", "tf"),
}
# Range of the pixels that a model takes -> scale and shift of pixels in 0…255.
PIXELS = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
_FOLDER = pathlib.Path("models")  # What is computed of a foreign model lies in a folder of its name in here.


@dataclasses.dataclass(frozen=True)
class Spec:
    """A foreign model that has yet to be loaded.

    Attributes:
      kind: one of `KINDS`.
      rest: what an adapter of that kind finds it by.
      weights: file of its weights; None where the rest names them, or the model has none.
      pixels: one of `PIXELS` that the model takes, or "" where the model says it itself.
      class_names: text file of its classes, one a line, in the order of its outputs; None where the model knows them,
        or has those of the clips.
    """

    kind: str
    rest: str
    weights: pathlib.Path | None = None
    pixels: str = ""
    class_names: pathlib.Path | None = None

    @property
    def name(self) -> str:
        """Of its row in tables, and of the folder of its results."""
        if self.kind == "python":
            return self.rest.replace(":", ".")
        path = pathlib.PurePath(self.rest)
        return path.stem if path.suffix == ".keras" else path.name or self.kind


# A run directory, of either framework, or a foreign model.
Source = pathlib.Path | Spec


def parse(text: str, **told: Any) -> Source:
    """Returns what `--model` names: KIND:REST, where run:DIR is a run directory.

    Args:
      text: of the flag.
      **told: further attributes of `Spec`, where neither the kind nor the model says them.

    Raises:
      errors.UserError: for another form, an unknown kind, or attributes of a run, which has its own.
    """
    kind, _, rest = text.partition(":")
    if kind not in ("run", *KINDS) or not rest:
        raise errors.UserError(f"--model must be KIND:NAME, KIND one of run, {', '.join(KINDS)}. Received: {text!r}")
    if kind == "run":
        given = [f"--{name}" for name, value in told.items() if value]
        if given:
            raise errors.UserError(
                f"{given[0]} must be left out for a run, which has its own. Received: {', '.join(given)}"
            )
        return pathlib.Path(rest)
    return Spec(kind, rest, **told)


def check_kind(spec: Spec, framework: str, endpoint: str) -> None:
    """Refuses a kind that a build has no adapter for, and what its adapter would not take.

    Args:
      spec: what is to be loaded.
      framework: "torch" or "tf".
      endpoint: layer for Grad-CAM, or "".
    """
    if framework not in KINDS[spec.kind]:
        raise errors.UserError(
            f"--model={spec.kind}: must be given to a command of {KINDS[spec.kind][0]}_impl. "
            f"Received: one of {framework}_impl"
        )
    if endpoint and spec.kind == "python":
        raise errors.UserError(
            f"--cam_endpoint must be left out for python:, whose function gives an endpoint_fn. Received: {endpoint!r}"
        )
    if bool(spec.pixels) and spec.kind not in ("keras", "saved_model"):
        raise errors.UserError(
            f"--pixels must be left out for {spec.kind}:, which says what it takes. Received: {spec.pixels}"
        )


def folder(source: Source) -> pathlib.Path:
    """Returns where results go unless `--out` says otherwise: the run directory, or models/NAME."""
    return _FOLDER / source.name if isinstance(source, Spec) else source


@dataclasses.dataclass(frozen=True)
class ForeignModel:
    """A foreign model that a build has loaded. Clips are float `[N, T, H, W, 3]`, RGB, 0…255.

    Attributes:
      name: of its row in tables.
      kind: what it is, for the headers of files, e.g. "torchvision:r3d_18".
      score_fn: clips -> probabilities `[N, K]`, differentiable; range, mean, deviation and layout are its business,
        resizing is the clip store's.
      class_names: K names in the order of the probabilities; () where the model does not know them.
      clip_shape: T, H, W that it takes; None for any.
      endpoint_fn: for Grad-CAM, clips -> logits `[N, K]` and activations `[N, T', H', W', C']`; None where it has none.
      frames_per_step: frames that one time step of the model sees together (its tubelets); 1 if none.
      versions: of the libraries that made it, by name.
      licence: of its weights, as far as it is known.
      source: where its weights come from, an address or a name, as far as it is known.
      digest: SHA-256, in hex, of its weights.
      usual_shape: T, H, W of the clips that its weights are meant for, which a video of any shape becomes; None where
        `clip_shape` says it, or nothing does.
    """

    name: str
    kind: str
    score_fn: Callable[[Any], Any]
    class_names: tuple[str, ...] = ()
    clip_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    endpoint_fn: Callable[[Any], tuple[Any, Any]] | None = None
    frames_per_step: int = 1
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    licence: str = ""
    source: str = ""
    digest: str = ""
    usual_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))  # Compared with those of clips.
        if len(set(self.class_names)) < len(self.class_names):
            raise errors.UserError(f"class_names must be all different. Received: {self.class_names!r:.200}")
        if len(self.clip_shape) != 3 or self.frames_per_step < 1:
            raise errors.UserError(
                "clip_shape must be T, H, W and frames_per_step at least 1. "
                f"Received: {self.clip_shape}, {self.frames_per_step}"
            )


def with_names(model: ForeignModel, spec: Spec) -> ForeignModel:
    """Returns a model with the class names that the user gave it.

    Args:
      model: that was loaded.
      spec: what it was loaded by.

    Raises:
      errors.UserError: for a model that has names of its own, and a file that is no list of names.
    """
    if not spec.class_names:
        return model
    if model.class_names:
        raise errors.UserError(
            f"--class_names must be left out for a model that knows its classes, as {model.name} does. "
            f"Received: {spec.class_names}"
        )
    return dataclasses.replace(model, class_names=classes.read_names(spec.class_names))


def shape_text(shape: Sequence[int | None]) -> str:
    """Returns T, H, W for a message, as "16 x any x 112"."""
    return " x ".join("any" if size is None else str(size) for size in shape)


def log_probabilities(probabilities: np.ndarray, num_clips: int) -> np.ndarray:
    """Returns the logarithms of a foreign model's probabilities, float64 [N, K], of 0 that of the least float32.

    Args:
      probabilities: what its `score_fn` returned, [N, K].
      num_clips: N.

    Raises:
      errors.UserError: for anything but K probabilities for each clip.
    """
    check_probabilities(probabilities, num_clips)
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))


def check_probabilities(probabilities: np.ndarray, num_clips: int) -> None:
    """Refuses anything but K probabilities for each of some clips."""
    if probabilities.ndim != 2 or len(probabilities) != num_clips or not probabilities.size:
        raise errors.UserError(
            f"A model must return probabilities [N, K]. Received: {probabilities.shape} for {num_clips} clip(s)"
        )
    low, high, totals = probabilities.min(), probabilities.max(), probabilities.sum(axis=1, dtype=np.float64)
    if not (low >= -1e-3 and high <= 1 + 1e-3 and np.abs(totals - 1).max() <= 1e-2):  # NaN fails each comparison.
        raise errors.UserError(
            "A model must return probabilities, 0…1, whose sum is 1 (softmax of logits). "
            f"Received: {low:g}…{high:g}, whose sum is {totals[0]:g}"
        )


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a model takes instead of pixels: each channel c as `scale[c]` · pixel + `shift[c]`, in an order of axes.

    Attributes:
      scale: of R, G, B.
      shift: of R, G, B.
      axes: "NTHWC", "NCTHW" or "NTCHW".
    """

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    axes: str = "NTHWC"

    @property
    def permutation(self) -> tuple[int, ...]:
        """Of the axes `[N, T, H, W, C]`."""
        return tuple("NTHWC".index(axis) for axis in self.axes)


@dataclasses.dataclass(frozen=True, eq=False)
class Adapted:
    """A model that takes something else than pixels; what asks it for probabilities is each build's `foreign.ScoreFn`.

    Attributes:
      module: from clips in the order of axes of `inputs` to logits, or probabilities, `[N, K]`.
      inputs: what it takes instead of pixels.
      ends_in_softmax: whether it returns probabilities.
    """

    module: Any
    inputs: Inputs
    ends_in_softmax: bool = False


def normalized(mean: Sequence[float], deviation: Sequence[float], axes: str) -> Inputs:
    """Returns inputs of pixels scaled to 0…1, less a mean, over a deviation, each of R, G, B."""
    red, green, blue = ((1 / (255 * wide), -middle / wide) for middle, wide in zip(mean, deviation, strict=True))
    return Inputs((red[0], green[0], blue[0]), (red[1], green[1], blue[1]), axes)


def in_range(pixels: str) -> Inputs:
    """Returns inputs of pixels in one of `PIXELS`."""
    scale, shift = PIXELS[pixels]
    return Inputs((scale,) * 3, (shift,) * 3)


def probed(process: Callable[[np.ndarray], np.ndarray], axes: str) -> Inputs:
    """Returns what a library's own preprocessing does to pixels, by showing it black, white and grey.

    Args:
      process: a colour, uint8 [3], as the library's preprocessing returns clips of it, float [3].
      axes: that the model takes.

    Raises:
      errors.UserError: where that is no scale and shift of each channel.
    """
    black, white, grey = (process(np.full(3, level, np.uint8)).astype(np.float64) for level in (0, 255, 51))
    scale = (white - black) / 255
    if not np.allclose(grey, 51 * scale + black, rtol=0, atol=1e-4 * np.abs(white - black).max()):
        raise errors.UserError(
            f"A model's preprocessing must scale and shift pixels. Received: {black}, {grey}, {white} for 0, 51, 255"
        )
    return Inputs(tuple(scale.tolist()), tuple(black.tolist()), axes)


def are_probabilities(outputs: np.ndarray) -> bool:
    """Returns whether what a model returns, [N, K], are probabilities; if not, they are logits.

    Raises:
      errors.UserError: for what may be either, as the sigmoids of classes that do not exclude one another.
    """
    if outputs.ndim != 2 or not outputs.size or not np.isfinite(outputs).all():
        raise errors.UserError(f"A model must return finite logits or probabilities [N, K]. Received: {outputs.shape}")
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    if np.abs(outputs.sum(axis=1, dtype=np.float64) - 1).max() > 1e-2:
        raise errors.UserError(
            "A model must return probabilities whose sum is 1, or logits (not all of which lie in 0…1; give others a "
            f"softmax). Received: 0…1, whose sum is {outputs[0].sum():g}"
        )
    return True


def from_python(spec: Spec) -> ForeignModel:
    """Returns the model that a user's own function makes, `python:package.module:function`.

    The function is called with the file of `--weights` where there is one, else without arguments, and returns a
    `ForeignModel`, or a `score_fn` alone. Modules are looked for where Python looks, and then in the current folder.
    Where it gives no digest, it is that of the source file and the weights.

    Raises:
      errors.UserError: for a name that leads to no function, or what is no model.
    """
    module_name, _, function_name = spec.rest.partition(":")
    if not module_name or not function_name or module_name.startswith("."):
        raise errors.UserError(f"--model=python: must go on with MODULE:FUNCTION. Received: {spec.rest!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise errors.UserError(f"--model must name a module that can be imported. Received: {error}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise errors.UserError(f"--model must name a function of {module_name}. Received: {function_name!r}")
    given = [spec.weights] if spec.weights else []
    _check_takes(function, given, spec.rest)
    made = function(*given)
    if callable(made):
        made = ForeignModel(spec.name, f"{spec.kind}:{spec.name}", made)
    if not isinstance(made, ForeignModel):
        raise errors.UserError(
            f"{spec.rest} must return a ForeignModel or a score_fn. Received: {type(made).__name__}, no function"
        )
    read = [pathlib.Path(str(module.__file__)), *given]
    digest = made.digest or digest_of(read)
    return dataclasses.replace(made, digest=digest)


def _check_takes(function: Callable[..., Any], given: Sequence[pathlib.Path], name: str) -> None:
    """Refuses a function that does not take what it is given, as a `score_fn` that nobody makes."""
    try:
        inspect.signature(function).bind(*given)
    except ValueError:  # Some of C say nothing.
        pass
    except TypeError as error:
        what = "the file of --weights" if given else "nothing (or the file of --weights)"
        raise errors.UserError(
            f"{name} must be a function that takes {what} and returns a ForeignModel or a score_fn. Received: {error}"
        ) from None


def digest_of(paths: Sequence[pathlib.Path]) -> str:
    """Returns the SHA-256, in hex, of those of files, in their order."""
    return hashlib.sha256("".join(map(files.sha256, paths)).encode()).hexdigest()
