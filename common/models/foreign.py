"""Foreign models: classifiers of clips that this project did not train, and what it must know to ask them.

`--model=KIND:REST` names one (`parse`); the adapters of each build, in its module `foreign`, load it as a
`ForeignModel`. From there on nothing knows where a model came from.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from common import errors

# Kind -> the builds that have an adapter for it.
KINDS = {
    "torchvision": ("torch",),
    "transformers": ("torch",),
    "pytorchvideo": ("torch",),
    "keras": ("tf",),
    "saved_model": ("tf",),
    "python": ("torch", "tf"),
}
_FOLDER = pathlib.Path("models")  # What is computed of a foreign model lies in a folder of its name in here.


@dataclasses.dataclass(frozen=True)
class Spec:
    """A foreign model that has yet to be loaded.

    Attributes:
      kind: one of `KINDS`.
      rest: what an adapter of that kind finds it by.
      weights: file of its weights; None where the rest names them, or the model has none.
    """

    kind: str
    rest: str
    weights: pathlib.Path | None = None

    @property
    def name(self) -> str:
        """Of its row in tables, and of the folder of its results."""
        if self.kind == "python":
            return self.rest.replace(":", ".")
        path = pathlib.PurePath(self.rest)
        return path.stem if path.suffix == ".keras" else path.name or self.kind


# A run directory, of either framework, or a foreign model.
Source = pathlib.Path | Spec


def parse(text: str, weights: pathlib.Path | None = None) -> Source:
    """Returns what `--model` names: KIND:REST, where run:DIR is a run directory.

    Args:
      text: of the flag.
      weights: file of the weights, where the kind alone has none.

    Raises:
      errors.UserError: for another form, an unknown kind, or weights of a run, which has its own.
    """
    kind, _, rest = text.partition(":")
    if kind not in ("run", *KINDS) or not rest:
        raise errors.UserError(f"--model must be KIND:NAME, KIND one of run, {', '.join(KINDS)}. Received: {text!r}")
    if kind == "run":
        if weights is not None:
            raise errors.UserError(f"--weights must be left out for a run, which has its own. Received: {weights}")
        return pathlib.Path(rest)
    return Spec(kind, rest, weights)


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
      digest: SHA-256, in hex, of its weights.
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
    digest: str = ""


def log_probabilities(probabilities: np.ndarray, num_clips: int) -> np.ndarray:
    """Returns the logarithms of a foreign model's probabilities, float64 [N, K], of 0 that of the least float32.

    Args:
      probabilities: what its `score_fn` returned, [N, K].
      num_clips: N.

    Raises:
      errors.UserError: for anything but K probabilities for each clip.
    """
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
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
