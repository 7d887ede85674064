"""Initial weights, drawn once in NumPy from a config and a seed, so that both builds start from the same numbers.

Kernels are Glorot uniform (Glorot & Bengio 2010, section 4.2), recurrent kernels orthogonal (Saxe et al. 2014,
arXiv:1312.6120), biases zero but for the forget gate's, which is one (Jozefowicz et al. 2015); batch norm starts as
the identity. These are Keras' defaults for `ConvLSTM2D`. Each array has its own stream of random numbers, derived
from the seed and its name: adding a layer changes no other.
"""

import hashlib
import math
from collections.abc import Callable

import numpy as np

from common.models import architectures, configs


def initial_weights(config: configs.ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Returns every canonical array of a model at the start of training.

    Args:
      config: the model.
      seed: at least 0; the same seed gives the same numbers.

    Returns:
      Canonical name -> float32 array of the shape in `architectures.weights(config)`.
    """
    return {
        name: _INITIALIZERS[weight.initializer](weight.shape, _stream(seed, name)).astype(np.float32)
        for name, weight in architectures.weights(config).items()
    }


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *hashlib.sha256(name.encode()).digest()])


def _glorot_uniform(shape: tuple[int, ...], stream: np.random.Generator) -> np.ndarray:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)); a fan is the receptive field times the channels in or out."""
    *receptive_field, channels_in, channels_out = shape
    limit = math.sqrt(6 / (math.prod(receptive_field) * (channels_in + channels_out)))
    return stream.uniform(-limit, limit, shape)


def _orthogonal(shape: tuple[int, ...], stream: np.random.Generator) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer, of the kernel as a matrix (other axes x last axis)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(stream.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # Without it, the distribution would not be uniform over orthogonal matrices.
    return (q if rows >= columns else q.T).reshape(shape)


def _zeros(shape: tuple[int, ...], stream: np.random.Generator) -> np.ndarray:
    return np.zeros(shape)


def _ones(shape: tuple[int, ...], stream: np.random.Generator) -> np.ndarray:
    return np.ones(shape)


def _forget_gate_ones(shape: tuple[int, ...], stream: np.random.Generator) -> np.ndarray:
    gates = {gate: np.zeros(shape[0] // len(architectures.GATES)) for gate in architectures.GATES}
    gates["f"] += 1
    return np.concatenate([gates[gate] for gate in architectures.GATES])


_INITIALIZERS: dict[str, Callable[[tuple[int, ...], np.random.Generator], np.ndarray]] = {
    "glorot_uniform": _glorot_uniform,
    "orthogonal": _orthogonal,
    "zeros": _zeros,
    "ones": _ones,
    "forget_gate_ones": _forget_gate_ones,
}
