"""Canonical weights: one safetensors file that either framework reads as it is.

Names are DeepMind's, axes TensorFlow's (`common.models.architectures.weights` lists both), numbers float32, and the
model's config lies in the header, so a file alone says what it is. Nothing is ever unpickled. Loading is strict.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import numpy as np
import safetensors
import safetensors.numpy

from common import errors, files
from common.models import architectures, configs

FORMAT = "canonical-video-weights-1"
_NAMED = 5  # Faults of a kind that an error names.
# What weights of other releases of I3D are called: whose names -> what stands in them.
_OTHERS = {
    "DeepMind's": re.compile(r"(RGB|Flow)/inception_i3d/"),
    "piergiaj's": re.compile(r"(Conv3d_\w+\.conv3d|Mixed_\w+\.b\d[ab]?\.\w+|logits\.conv3d)\."),
    "hassony2's": re.compile(r"(conv3d_\w+\.conv3d|mixed_\w+\.branch_\d)\."),
}
_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}  # That NumPy has.


def save(path: pathlib.Path, weights: dict[str, np.ndarray], config: configs.ModelConfig) -> None:
    """Writes weights as float32 with their config, whole or not at all.

    Args:
      path: of the file; replaced if it exists.
      weights: canonical name -> array.
      config: the model they belong to.
    """
    check(weights, config, str(path))
    single = {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}
    save_arrays(path, single, {"format": FORMAT, "config": configs.to_dict(config)})


class _Header(TypedDict):
    format: files.Text
    config: dict[str, Any]


def load(path: pathlib.Path) -> tuple[dict[str, np.ndarray], configs.ModelConfig]:
    """Returns weights (float32) and the config of their model.

    Raises:
      errors.UserError: for anything missing, unexpected, misshapen, not finite, or of another dtype.
    """
    weights, header = load_arrays(path)
    if header.get("format") != FORMAT:
        raise errors.UserError(
            f"Weights must have the format {FORMAT}. Received: {header.get('format')!r:.100} in {path}{_whose(weights)}"
        )
    what = "The header of weights"
    files.convert(header, _Header, what, path)
    config = configs.model_config_from_dict(header["config"], path, "$.config")
    check(weights, config, str(path))
    for name, array in weights.items():
        if array.dtype != np.float32:
            raise errors.UserError(f"Weights must be float32. Received: {name} of {array.dtype} in {path}")
    check_finite(weights, path)
    return weights, config


def check(weights: Mapping[str, np.ndarray], config: configs.ModelConfig, origin: str) -> None:
    """Refuses, in one error with the first faults of every kind, weights that are not exactly those of `config`."""
    expected = {name: weight.shape for name, weight in architectures.weights(config).items()}
    check_names(
        weights, expected, f"Weights must have exactly the names and shapes of the {config.model} config", origin
    )


def check_names(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], rule: str, origin: object
) -> None:
    """Refuses, in one error with the first faults of every kind, arrays of other names or shapes.

    Args:
      arrays: name -> array.
      expected: name -> shape.
      rule: what they must be, to begin the message with.
      origin: where they come from.
    """
    faults = {
        "missing": [name for name in expected if name not in arrays],
        "unexpected": [name for name in arrays if name not in expected],
        "misshapen": [
            f"{name} {tuple(arrays[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in arrays and tuple(arrays[name].shape) != shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{kind}: {_first(names)}" for kind, names in faults.items() if names)
        raise errors.UserError(f"{rule}. Received from {origin}: {found}{_whose(faults['unexpected'])}")


def check_finite(arrays: Mapping[str, np.ndarray], origin: object, what: str = "Weights") -> None:
    """Refuses arrays with NaN or infinite values, and names the first such array."""
    for name, array in arrays.items():
        count = int((~np.isfinite(array)).sum())
        if count:
            raise errors.UserError(
                f"{what} must be finite. Received: {count} NaN or infinite values of {name} in {origin}"
            )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"{name:.200}" for name in names[:_NAMED]) + more


def _whose(names: Iterable[str]) -> str:
    """Returns the end of a message: whose names these are, and what reads such weights; nothing for unknown names."""
    found = [whose for name in names for whose, pattern in _OTHERS.items() if pattern.search(name)]
    return f" (these are {found[0]} names: import_weights.py reads them)" if found else ""


def save_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Writes any arrays with a JSON header, whole or not at all (also after a power cut)."""
    with files.written_whole(path, durable=True) as temporary:
        # One entry: safetensors writes several in an order that differs from run to run.
        temporary.write_bytes(safetensors.numpy.save(arrays, {"header": json.dumps(header, sort_keys=True)}))


def load_arrays(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns arrays and header of `save_arrays`; dtypes that NumPy lacks, such as bfloat16, are refused.

    The header may hold Infinity: the best loss before the first epoch is.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = files.parse_json(
                (file.metadata() or {}).get("header", "{}"), "The header of weights", path, infinity=True
            )
            for name in file.keys():  # noqa: SIM118 (no mapping)
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise errors.UserError(f"Weights must be float32. Received: {name} of {dtype} in {path}")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (no mapping)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise errors.UserError(f"Weights must be a readable safetensors file. Received: {path}: {error}") from None
