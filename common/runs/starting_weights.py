"""Weights of another run to start a training from: what fits is kept, and what does not is drawn as always.

Names and shapes decide, but for the last layer: it is also drawn anew where it has as many classes, but other ones.
"""

import dataclasses
import pathlib

import numpy as np

from common import errors, files
from common.models import architectures, canonical_weights, configs
from common.runs.run_directory import RunDirectory

# Fields of a model that change what its weights mean or compute, and no shape.
_SILENT = ("temporal_strides", "head", "normalization", "share_batch_norm")


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights, and what is known of them.

    Attributes:
      path: where they lie, as the user named it.
      weights: canonical name -> float32 array.
      model: the model they belong to.
      class_names: of its logits; None where only a file of weights was named.
      digest: SHA-256 of the file, in hex.
    """

    path: pathlib.Path
    weights: dict[str, np.ndarray]
    model: configs.ModelConfig
    class_names: tuple[str, ...] | None
    digest: str


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Weights to start with, and where each is from.

    Attributes:
      weights: canonical name -> array, all of the model.
      kept: names of those that are the source's.
      drawn: names of all others.
      left_out: names that only the source has, or has in another shape or for other classes.
    """

    weights: dict[str, np.ndarray]
    kept: tuple[str, ...]
    drawn: tuple[str, ...]
    left_out: tuple[str, ...]


def read(path: pathlib.Path) -> Source:
    """Returns the weights of a run directory (those of its best validation loss) or of a file of canonical weights.

    Raises:
      errors.UserError: for a folder that is no run or has no weights, and a file that is not of this kind.
    """
    names = None
    file = path
    if path.is_file() and not _is_safetensors(path):
        raise errors.UserError(
            "--init must be a run directory or its weights.safetensors; import_weights.py makes a run of published "
            f"weights. Received: {path}"
        )
    if path.is_dir():
        run = RunDirectory(path)
        names, file = tuple(run.read_config().data["class_names"]), run.weights
    weights, model = canonical_weights.load(file)
    return Source(path, weights, model, names, files.sha256(file))


def _is_safetensors(path: pathlib.Path) -> bool:
    """Returns whether a file begins as safetensors do: with 8 bytes, the length of the JSON object that follows."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def fit(
    source: Source, config: configs.TrainConfig, class_names: tuple[str, ...], drawn: dict[str, np.ndarray]
) -> Fitted:
    """Returns the weights that a training starts with.

    Args:
      source: where to take weights from.
      config: of the training.
      class_names: of its clips, in label order.
      drawn: canonical name -> initial array, all of the model.

    Raises:
      errors.UserError: where nothing fits, or where what would be frozen does not.
    """
    kept = {
        name for name, array in drawn.items() if name in source.weights and source.weights[name].shape == array.shape
    }
    head = architectures.head(config.model).weights.keys()
    if not head <= kept or source.class_names not in (None, class_names):
        kept -= head
    if not kept:
        raise errors.UserError(
            f"--init must have weights that fit the {config.model.model} to be trained. "
            f"Received: {source.path}, weights of {configs.to_dict(source.model)}"
        )
    frozen = [name for layer in architectures.frozen_layers(config) for name in layer.weights if name not in kept]
    if frozen:
        raise errors.UserError(
            f"What --freeze={config.freeze} keeps as it is must come from --init. "
            f"Received: {source.path}, in which {len(frozen)} such weights do not fit, {frozen[0]} first"
        )
    return Fitted(
        {name: source.weights[name] if name in kept else array for name, array in drawn.items()},
        tuple(name for name in drawn if name in kept),
        tuple(name for name in drawn if name not in kept),
        tuple(name for name in source.weights if name not in kept),
    )


def report(source: Source, config: configs.TrainConfig, fitted: Fitted) -> str:
    """Returns, for people, what was kept, drawn and left out, and in what the two models differ beside their shapes."""
    lines = [
        f"Starting from {source.path}",
        f"  kept: {_grouped(fitted.kept, config.model)}",
        f"  drawn: {_grouped(fitted.drawn, config.model)}",
        f"  left out: {_grouped(fitted.left_out, source.model)}",
    ]
    for name in _SILENT:
        theirs, ours = (getattr(model, name, None) for model in (source.model, config.model))
        if theirs != ours:
            lines.append(f"  {name}: {theirs} there, {ours} here")
    return "\n".join(lines)


def _grouped(names: tuple[str, ...], model: configs.ModelConfig) -> str:
    """Returns names, in which an endpoint stands for all of its weights."""
    parts: list[str] = []
    for layer in architectures.layers(model):
        mine = [name for name in layer.weights if name in names]
        parts += [layer.name] if mine and len(mine) == len(layer.weights) else mine
    return f"{len(names)} arrays{': ' if parts else ''}{', '.join(parts)}"
