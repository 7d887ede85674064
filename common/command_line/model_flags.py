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
_CLASS_NAMES = flags.DEFINE_string(
    "class_names",
    None,
    "Text file of a foreign model's classes, one a line, in the order of its outputs. Unset: what it says itself, or "
    "those of the clips.",
)
MODEL_HELP = "KIND:NAME of a foreign model (docs/foreign_models.md), or run:DIR."


def sources(runs: list[str], models: list[str]) -> tuple[foreign.Source, ...]:
    """Returns what `--run` and `--model` name; refuses nothing at all, and what may be of several."""
    if not runs and not models:
        raise errors.UserError("--run or --model must name at least one model. Received: neither")
    told = {
        "weights": pathlib.Path(_WEIGHTS.value) if _WEIGHTS.value else None,
        "pixels": _PIXELS.value or "",
        "class_names": pathlib.Path(_CLASS_NAMES.value) if _CLASS_NAMES.value else None,
    }
    given = [f"--{name}" for name, value in told.items() if value]
    if given and runs:
        raise errors.UserError(
            f"{given[0]} must be left out for a run, which has its own. Received: {', '.join(given)}"
        )
    if given and len(models) > 1:
        raise errors.UserError(f"{', '.join(given)} must be given with one --model. Received: {len(models)} models")
    return *map(pathlib.Path, runs), *(foreign.parse(text, **told) for text in models)


def source(run: str | None, model: str | None) -> foreign.Source:
    """Returns what either `--run` or `--model` names."""
    if run and model:
        raise errors.UserError(f"--run or --model must name the model, not both. Received: {run} and {model}")
    return sources([run] if run else [], [model] if model else [])[0]
