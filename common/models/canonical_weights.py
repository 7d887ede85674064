"""Canonical weights: one safetensors file that either framework reads as it is.

Names are DeepMind's, axes TensorFlow's (`common.models.architectures.weights` lists both), numbers float32, and the
model's config lies in the header, so a file alone says what it is. Nothing is ever unpickled. Loading is strict.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from common import errors, files
from common.models import architectures, configs

FORMAT = "canonical-video-weights-1"
_NAMED = 5  # Faults of a kind that an error names.
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


def load(path: pathlib.Path) -> tuple[dict[str, np.ndarray], configs.ModelConfig]:
    """Returns weights (float32) and the config of their model.

    Raises:
      errors.UserError: for anything missing, unexpected, misshapen, not finite, or of another dtype.
    """
    weights, header = load_arrays(path)
    if header.get("format") != FORMAT:
        raise errors.UserError(f"Weights must have the format {FORMAT}. Received: {header.get('format')} in {path}")
    config = configs.model_config_from_dict(header.get("config", {}))
    check(weights, config, str(path))
    for name, array in weights.items():
        if array.dtype != np.float32:
            raise errors.UserError(f"Weights must be float32. Received: {name} of {array.dtype} in {path}")
    check_finite(weights, str(path))
    return weights, config


def check(weights: Mapping[str, np.ndarray], config: configs.ModelConfig, origin: str) -> None:
    """Refuses, in one error with the first faults of every kind, weights that are not exactly those of `config`."""
    expected = {name: weight.shape for name, weight in architectures.weights(config).items()}
    faults = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "misshapen": [
            f"{name} {tuple(weights[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in weights and tuple(weights[name].shape) != shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{kind}: {_first(names)}" for kind, names in faults.items() if names)
        raise errors.UserError(
            f"Weights must have exactly the names and shapes of the {config.model} config. "
            f"Received from {origin}: {found}"
        )


def check_finite(weights: Mapping[str, np.ndarray], origin: str) -> None:
    """Refuses weights of which any is NaN or infinite."""
    for name, array in weights.items():
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise errors.UserError(
                f"Weights must be finite. Received: {count} NaN or infinite values of {name} in {origin}"
            )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def save_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Writes any arrays with a JSON header, whole or not at all (also after a power cut)."""
    with files.written_whole(path, durable=True) as temporary:
        # One entry: safetensors writes several in an order that differs from run to run.
        temporary.write_bytes(safetensors.numpy.save(arrays, {"header": json.dumps(header, sort_keys=True)}))


def load_arrays(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns arrays and header of `save_arrays`; dtypes that NumPy lacks, such as bfloat16, are refused."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("header", "{}"))
            for name in file.keys():  # noqa: SIM118 (no mapping)
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise errors.UserError(f"Weights must be float32. Received: {name} of {dtype} in {path}")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (no mapping)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise errors.UserError(f"Weights must be a readable safetensors file. Received: {path}: {error}") from None
