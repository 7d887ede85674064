"""Whether a GPU's convolutions compute what they should, asked before anything is computed with them.

Some versions of cuDNN, NVIDIA's library of convolutions, compute 3-D convolutions of reduced precision wrongly and say
nothing. Those that are known are refused by name; all others are asked: a few of I3D's convolutions and their gradients
against float64, on the same device.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from common import errors


@dataclasses.dataclass(frozen=True)
class Case:
    """A SAME convolution.

    Attributes:
      clips: shape of the input, [N, T, H, W, I].
      kernel: shape of the kernel, [T, H, W, I, O].
      strides: in time, height and width.
    """

    clips: tuple[int, int, int, int, int]
    kernel: tuple[int, int, int, int, int]
    strides: tuple[int, int, int]


# I3D's first convolution, one of 3x3x3 after the first pools, and one of Mixed_4d.
CASES = (
    Case((2, 16, 112, 112, 3), (7, 7, 7, 3, 64), (1, 2, 2)),
    Case((2, 16, 28, 28, 64), (3, 3, 3, 64, 192), (1, 1, 1)),
    Case((2, 8, 14, 14, 112), (3, 3, 3, 112, 224), (1, 1, 1)),
)

# Largest |result - float64's| / |float64's| (Euclidean norms). Rounding alone gives about 1e-6, 3e-4 and 3e-3.
LIMITS = {"float32": 1e-4, "tf32": 3e-3, "bfloat16": 2e-2}


@dataclasses.dataclass(frozen=True)
class Fault:
    """A known fault of cuDNN.

    Attributes:
      precision: that it spoils.
      first, beyond: versions v with first <= v < beyond have it, as cuDNN counts them: 91002 is 9.10.2.
      versions: the same in words.
      source: who says so.
    """

    precision: str
    first: int
    beyond: int
    versions: str
    source: str


FAULTS = (
    Fault("bfloat16", 90800, 91500, "9.8 to 9.14", "github.com/pytorch/pytorch/issues/163539 and pull/166480"),
    Fault("tf32", 91002, 91600, "9.10.2 to 9.15", "github.com/pytorch/pytorch/pull/167024"),
)

# (clips, kernel, gradient of the result, strides, precision) -> the result, and the gradients of clips and kernel.
Convolve = Callable[[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...], str], Sequence[np.ndarray]]


def check(convolve: Convolve, precision: str, cudnn: int | None, cases: Sequence[Case] = CASES) -> None:
    """Refuses a device whose 3-D convolutions are wrong in a precision.

    Args:
      convolve: computes a SAME convolution of float32 arrays and its gradients, in a precision, on the device.
      precision: one of `LIMITS`.
      cudnn: version of cuDNN as it counts them (91002 is 9.10.2); None where it is not known.
      cases: what is computed.

    Raises:
      errors.UserError: for a version with a known fault, or a result too far from float64's.
    """
    for fault in FAULTS:
        if precision == fault.precision and cudnn is not None and fault.first <= cudnn < fault.beyond:
            raise errors.UserError(
                f"With precision={precision} cuDNN must not be one of {fault.versions}, whose conv3d is wrong "
                f"({fault.source}). Received: cuDNN {version_name(cudnn)}"
            )
    stream = np.random.default_rng(0)
    for case in cases:
        sizes = [-(-size // stride) for size, stride in zip(case.clips[1:4], case.strides, strict=True)]
        shapes = case.clips, case.kernel, (case.clips[0], *sizes, case.kernel[4])
        clips, kernel, weights = (stream.standard_normal(shape, np.float32) for shape in shapes)
        results = [convolve(clips, kernel, weights, case.strides, name) for name in (precision, "float64")]
        for what, received, expected in zip(("result", "clip gradient", "kernel gradient"), *results, strict=True):
            error = float(np.linalg.norm(received.astype(np.float64) - expected) / np.linalg.norm(expected))
            if not error <= LIMITS[precision]:
                raise errors.UserError(
                    f"With precision={precision} 3-D convolutions must be within {LIMITS[precision]:g} of float64's. "
                    f"Received: a {what} {error:.2g} off, of a {'x'.join(map(str, case.kernel[:3]))} convolution of "
                    f"{case.clips}, cuDNN {version_name(cudnn)}"
                )


def check_tf32(precision: str, capability: tuple[int, int] | None) -> None:
    """Refuses the precision "tf32" where the device does not have it.

    Args:
      precision: any.
      capability: compute capability of the GPU; None for the CPU.
    """
    if precision == "tf32" and (capability is None or tuple(capability) < (8, 0)):
        received = "the CPU" if capability is None else f"one of {capability[0]}.{capability[1]}"
        raise errors.UserError(
            f"With precision=tf32 the device must be a GPU of compute capability 8.0 or later. Received: {received}"
        )


def version_name(cudnn: int | None) -> str:
    """Returns "9.10.2" for 91002, which is how cuDNN counts its versions since 9.0; earlier ones are 8902 for 8.9.2."""
    if cudnn is None:
        return "of unknown version"
    major, rest = divmod(cudnn, 10000 if cudnn >= 90000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"
