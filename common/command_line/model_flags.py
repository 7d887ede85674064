"""Flags of foreign models, which several commands share, and what they name together with `--run` and `--model`."""

import pathlib

from absl import flags

from common import errors
from common.models import foreign

_WEIGHTS = flags.DEFINE_string(
    "weights", None, "File of a foreign model's weights. Unset: those that --model names, or the library's."
)
_PIXELS = flags.DEFINE_enum(
    "pixels", None, list(foreign.PIXELS), "Range of pixels that a model takes, where no layer of it says."
)
MODEL_HELP = "KIND:NAME of a foreign model (docs/foreign_models.md), or run:DIR."


def sources(runs: list[str], models: list[str]) -> tuple[foreign.Source, ...]:
    """Returns what `--run` and `--model` name; refuses nothing at all, and weights that may be of several."""
    if not runs and not models:
        raise errors.UserError("--run or --model must name at least one model. Received: neither")
    if (_WEIGHTS.value or _PIXELS.value) and (runs or len(models) > 1):
        raise errors.UserError(
            f"--weights and --pixels must be given with one --model. Received: {len(runs) + len(models)} models"
        )
    weights = pathlib.Path(_WEIGHTS.value) if _WEIGHTS.value else None
    return *map(pathlib.Path, runs), *(foreign.parse(text, weights, _PIXELS.value or "") for text in models)


def source(run: str | None, model: str | None) -> foreign.Source:
    """Returns what either `--run` or `--model` names."""
    if run and model:
        raise errors.UserError(f"--run or --model must name the model, not both. Received: {run} and {model}")
    return sources([run] if run else [], [model] if model else [])[0]
