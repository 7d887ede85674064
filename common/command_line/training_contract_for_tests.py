"""What training in either build does: it learns, goes on after a kill, and answers to flags."""

import dataclasses
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pytest

from common.clips import tiny_store_for_tests
from common.command_line import command_lines_for_tests
from common.models import canonical_weights, configs
from common.runs import training_loop
from common.runs.run_directory import RunDirectory

RUNS = ("first", "second")
ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {"i3d": ["--multiplier=0.0625"], "conv_lstm": ["--filters=2"]}
# For `python -c`, before a build's package, the path of its `train.py` and flags: at a step it waits to be killed.
WAITING = """
import importlib, os, runpy, signal, sys

step, package = int(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[3:]
sys.path[0] = os.path.dirname(os.path.dirname(sys.argv[0]))
training = importlib.import_module(f"{package}.training")

class Trainer(training.Trainer):
    taken = 0

    def train_step(self, *arguments):
        Trainer.taken += 1
        while Trainer.taken >= step:
            signal.pause()
        return super().train_step(*arguments)

training.Trainer = Trainer
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Precision and model that learns in it; I3D takes long.
LEARNING = [
    pytest.param(precision, model, marks=() if model == "conv_lstm" else pytest.mark.slow)
    for model in ("conv_lstm", "i3d")
    for precision in ("float32", "bfloat16", "float64")
]
DESCRIBED = [("i3d_something", "12,465,614"), ("conv_lstm_something", "1,324,014")]
OF_CLIPS = "--preset=i3d_something --describe --clips=CLIPS"  # Three classes.
REFUSED = [
    ("--preset=i3d_kth", "--preset=i3d_kth needs --clips=DIR"),
    ("--clips=nowhere", "A clip store must hold dataset.json (data_prep/prepare.py makes clip stores"),
    ("--clips=CLIPS --filters=3", "those of the preset's model, i3d. Received: --filters"),
    ("--clips=CLIPS --width=0.5", "given by --multiplier; a width is one of clips, in px"),
    ("--preset=conv_lstm_synthetic --multiplier=2", "the preset's model, conv_lstm. Received: --multiplier"),
    ("--clips=CLIPS --dropout=1.5", "in [0, 1). Received: 1.5"),
    ("--clips=CLIPS --run=CLIPS/dataset.json", "--run must be a folder that can be made"),
    ("--clips=CLIPS --device=gpu", "With device=gpu there must be a GPU"),
    ("--epochs=-1", "epochs"),
    ("--clips=CLIPS --init=nowhere", "Weights must be a readable safetensors file. Received: nowhere"),
    ("--clips=CLIPS --freeze=Mixed_9z", "freeze must be one of Conv3d_1a_7x7"),
    ("--clips=CLIPS --crop=0", "crop must be in (0, 1]"),
    ("--clips=CLIPS --flip=something_something_v2", "names of two classes of the clips"),
    ("--clips=CLIPS --head_learning_rate=-1", "head_learning_rate must be positive. Received: -1.0"),
    ("positional", "Arguments must be --flags. Received: positional"),
]


class TrainingContract:
    """The tests that both builds share.

    Attributes:
      training: the build's module.
      package: "torch_impl" or "tf_impl".
    """

    training: ModuleType
    package: str

    @pytest.fixture(scope="class")
    @classmethod
    def clips(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("training") / "clips"
        tiny_store_for_tests.write_tiny_store(path, clips={"train": 12, "validation": 3})
        return path

    def command(self, script: str, *flags: str) -> list[str]:
        return [sys.executable, str(ROOT / self.package / script), *flags]

    def start(self, model, clips, run, *flags: str) -> list[str]:
        shared = [f"--preset={model}_synthetic", f"--clips={clips}", f"--run={run}", "--batch_size=4", "--dropout=0.3"]
        return self.command("train.py", *shared, *SMALL[model], *flags)

    @pytest.mark.parametrize("model", [pytest.param("i3d", marks=pytest.mark.slow), "conv_lstm"])
    def test_a_killed_training_resumes_to_the_very_same_weights(self, clips, tmp_path, model):
        flags = ["--epochs=8", "--checkpoint_minutes=0"]
        subprocess.run(self.start(model, clips, tmp_path / "whole", *flags), check=True, capture_output=True)
        python, *command = self.start(model, clips, tmp_path / "run", *flags)
        # Of 24 steps the 16th is not taken, for a kill that comes late.
        process = subprocess.Popen([python, "-c", WAITING, "16", self.package, *command], stderr=subprocess.DEVNULL)
        killed_in = RunDirectory(tmp_path / "run")
        while len(killed_in.read_log()) < 3 and process.poll() is None:  # Some epochs in, at no particular step.
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done = len(killed_in.read_log())
        subprocess.run(self.start(model, clips, tmp_path / "run", *flags, "--resume"), check=True, capture_output=True)
        assert 3 <= done < 8
        whole = RunDirectory(tmp_path / "whole")
        for file in ("checkpoint", "weights"):
            expected, _ = canonical_weights.load_arrays(getattr(whole, file))
            resumed, _ = canonical_weights.load_arrays(getattr(killed_in, file))
            assert expected.keys() == resumed.keys()
            for name in expected:
                np.testing.assert_array_equal(resumed[name], expected[name], err_msg=name)
        losses = [[line["train_loss"] for line in run.read_log()] for run in (whole, killed_in)]
        assert losses[0] == losses[1] and len(losses[0]) == 8

    def check_learning(self, clips, tmp_path, model, precision):
        preset = configs.PRESETS[f"{model}_synthetic"]
        change = {"num_classes": 3, "input_shape": (8, 32, 32), "dropout": 0.0}
        small = dataclasses.replace(preset.model, **change, **({"width": 0.0625} if model == "i3d" else {"filters": 4}))
        config = dataclasses.replace(
            preset, model=small, epochs=24, batch_size=4, precision=precision, learning_rate=3e-3, plateau_factor=1.0
        )
        self.training.train(config, training_loop.TrainSettings(clips, tmp_path / "run"), device="cpu")
        losses = [line["train_loss"] for line in RunDirectory(tmp_path / "run").read_log()]
        assert losses[-1] < 0.8 * losses[0]
        held_in = {
            array.dtype for array in canonical_weights.load_arrays(tmp_path / "run/checkpoint.safetensors")[0].values()
        }
        assert np.dtype("float64" if precision == "float64" else "float32") in held_in

    def test_fine_tuning_as_a_user_types_it(self, clips, tmp_path):
        subprocess.run(
            self.start("conv_lstm", clips, tmp_path / "first", "--epochs=1"), check=True, capture_output=True
        )
        flags = [f"--init={tmp_path / 'first'}", "--freeze=BatchNorm_1", "--head_learning_rate=0.01", "--epochs=1"]
        done = subprocess.run(
            self.start("conv_lstm", clips, tmp_path / "second", *flags), check=True, capture_output=True, text=True
        )
        assert "kept: 14 arrays: ConvLSTM_1, BatchNorm_1, ConvLSTM_2, BatchNorm_2, Logits\n" in done.stderr
        (first, _), (second, config) = (canonical_weights.load(tmp_path / run / "weights.safetensors") for run in RUNS)
        changed = {name.split("/")[0] for name in first if (first[name] != second[name]).any()}
        assert changed == {"ConvLSTM_2", "BatchNorm_2", "Logits"}  # Gamma and beta are those of the frozen BatchNorm_1.
        stored = RunDirectory(tmp_path / "second").read_config().train
        assert (stored.model, stored.freeze, stored.head_learning_rate) == (config, "BatchNorm_1", 0.01)
        assert len(stored.init) == 64

    def test_training_then_evaluation_as_a_user_types_them(self, clips, tmp_path):
        subprocess.run(self.start("conv_lstm", clips, tmp_path / "run", "--epochs=1"), check=True, capture_output=True)
        done = subprocess.run(
            self.command("evaluate.py", f"--run={tmp_path / 'run'}"),
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert "run (reversed)" in done.stdout and "class 2" in done.stdout
        result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
        assert result["forward"]["clips"] == 3 and result["framework"] == self.package.removesuffix("_impl")

    def test_training_does_not_begin_where_its_own_clips_could_not_be_made(self, tmp_path):
        fail = f"import sys; sys.path[0] = {str(ROOT)!r}; sys.argv = ['train.py', '--preset=i3d_synthetic']\n"
        fail += "from data_prep import building; building.prepare = lambda config: 1  # After a line that says why.\n"
        fail += f"import runpy; runpy.run_path({str(ROOT / self.package / 'train.py')!r}, run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", fail], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "") and list(tmp_path.iterdir()) == []

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, clips, tmp_path_factory):
        """Flags of train.py, as one string -> what it answers to them."""
        described = [f"--preset={preset} --describe" for preset, _ in DESCRIBED] + [OF_CLIPS]
        flags = [*described, *(flags for flags, _ in REFUSED)]
        lines = [("train.py", line.replace("CLIPS", str(clips)).split()) for line in flags]
        module, folder = f"{cls.package}.training", tmp_path_factory.mktemp("answers")
        given = command_lines_for_tests.answers(cls.package, module, lines, folder)
        return dict(zip(flags, given, strict=True))

    @pytest.mark.parametrize(("preset", "number"), DESCRIBED)
    def test_describe_ends_with_the_parameters_that_the_paper_prints(self, answers, preset, number):
        answer = answers[f"--preset={preset} --describe"]
        assert answer.code == 0
        assert answer.stdout.splitlines()[-1] == f"trainable parameters: {number}"

    def test_describe_looks_at_the_clips(self, answers):
        # 12,465,614 for 174 classes; each class has 1024 weights and a bias.
        assert answers[OF_CLIPS].stdout.splitlines()[-1] == f"trainable parameters: {12_465_614 - 171 * 1025:,}"

    @pytest.mark.parametrize(("flags", "message"), REFUSED)
    def test_bad_flags_are_one_line_and_code_2_and_leave_nothing(self, answers, flags, message):
        answer = answers[flags]
        assert answer.code == 2 and message in answer.stderr
        lines = [line for line in answer.stderr.splitlines() if not re.match(r"I\d{4} ", line)]  # Those of the log.
        assert len(lines) == 1 and lines[0].startswith("error: ")
        assert list(answer.folder.iterdir()) == []
