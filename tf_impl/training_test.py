import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from common.clips import tiny_store_for_tests
from common.command_line import command_lines_for_tests
from common.models import canonical_weights, configs
from common.runs import training_loop
from common.runs.run_directory import RunDirectory
from tf_impl import training

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = {"i3d": ["--width=0.0625"], "conv_lstm": ["--filters=2"]}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "clips"
    tiny_store_for_tests.write_tiny_store(path, clips={"train": 12, "validation": 3})
    return path


def command(script: str, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "tf_impl" / script), *flags]


def start(model, clips, run, *flags: str) -> list[str]:
    shared = [f"--preset={model}_synthetic", f"--clips={clips}", f"--run={run}", "--batch_size=4", "--dropout=0.3"]
    return command("train.py", *shared, *SMALL[model], *flags)


@pytest.mark.parametrize("model", [pytest.param("i3d", marks=pytest.mark.slow), "conv_lstm"])
def test_a_killed_training_resumes_to_the_very_same_weights(clips, tmp_path, model):
    flags = ["--epochs=20", "--checkpoint_minutes=0"]
    subprocess.run(start(model, clips, tmp_path / "whole", *flags), check=True, capture_output=True)
    process = subprocess.Popen(start(model, clips, tmp_path / "run", *flags), stderr=subprocess.DEVNULL)
    killed_in = RunDirectory(tmp_path / "run")
    while len(killed_in.read_log()) < 3 and process.poll() is None:  # Some epochs in, at no particular step.
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(killed_in.read_log())
    subprocess.run(start(model, clips, tmp_path / "run", *flags, "--resume"), check=True, capture_output=True)
    assert 3 <= done < 20
    whole = RunDirectory(tmp_path / "whole")
    for file in ("checkpoint", "weights"):
        expected, _ = canonical_weights.load_arrays(getattr(whole, file))
        resumed, _ = canonical_weights.load_arrays(getattr(killed_in, file))
        assert expected.keys() == resumed.keys()
        for name in expected:
            np.testing.assert_array_equal(resumed[name], expected[name], err_msg=name)
    losses = [[line["train_loss"] for line in run.read_log()] for run in (whole, killed_in)]
    assert losses[0] == losses[1] and len(losses[0]) == 20


@pytest.mark.parametrize(
    ("precision", "model"),
    [
        *((precision, "conv_lstm") for precision in ("float32", "bfloat16", "float64")),
        ("float32", "i3d"),
        *(pytest.param(precision, "i3d", marks=pytest.mark.slow) for precision in ("bfloat16", "float64")),
    ],
)
def test_a_model_learns_the_tiny_clips_in_every_precision(clips, tmp_path, model, precision):
    preset = configs.PRESETS[f"{model}_synthetic"]
    change = {"num_classes": 3, "input_shape": (8, 32, 32), "dropout": 0.0}
    small = dataclasses.replace(preset.model, **change, **({"width": 0.0625} if model == "i3d" else {"filters": 4}))
    config = dataclasses.replace(
        preset, model=small, epochs=24, batch_size=4, precision=precision, learning_rate=3e-3, plateau_factor=1.0
    )
    training.train(config, training_loop.TrainSettings(clips, tmp_path / "run"), device="cpu")
    losses = [line["train_loss"] for line in RunDirectory(tmp_path / "run").read_log()]
    assert losses[-1] < 0.8 * losses[0]
    held_in = {
        array.dtype for array in canonical_weights.load_arrays(tmp_path / "run/checkpoint.safetensors")[0].values()
    }
    assert np.dtype("float64" if precision == "float64" else "float32") in held_in


def test_training_then_evaluation_as_a_user_types_them(clips, tmp_path):
    subprocess.run(start("conv_lstm", clips, tmp_path / "run", "--epochs=1"), check=True, capture_output=True)
    done = subprocess.run(
        command("evaluate.py", f"--run={tmp_path / 'run'}"), check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "run (reversed)" in done.stdout and "class 2" in done.stdout
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["forward"]["clips"] == 3 and result["framework"] == "tf"


_DESCRIBED = [("i3d_something", "12,465,614"), ("conv_lstm_something", "1,324,014")]
_REFUSED = [
    ("--clips=CLIPS --filters=3", "those of the preset's model, i3d. Received: --filters"),
    ("--clips=CLIPS --device=gpu", "With device=gpu there must be a GPU"),
    ("positional", "Arguments must be --flags. Received: positional"),
]


@pytest.fixture(scope="module")
def answers(clips, tmp_path_factory):
    """Flags of train.py, as one string -> what it answers to them."""
    described = [f"--preset={preset} --describe" for preset, _ in _DESCRIBED]
    flags = [*described, *(flags for flags, _ in _REFUSED)]
    lines = [("train.py", line.replace("CLIPS", str(clips)).split()) for line in flags]
    given = command_lines_for_tests.answers("tf_impl", "tf_impl.training", lines, tmp_path_factory.mktemp("answers"))
    return dict(zip(flags, given, strict=True))


@pytest.mark.parametrize(("preset", "number"), _DESCRIBED)
def test_describe_ends_with_the_parameters_that_the_paper_prints(answers, preset, number):
    answer = answers[f"--preset={preset} --describe"]
    assert answer.code == 0
    assert answer.stdout.splitlines()[-1] == f"trainable parameters: {number}"


@pytest.mark.parametrize(("flags", "message"), _REFUSED)
def test_bad_flags_are_one_line_and_code_2_and_leave_nothing(answers, flags, message):
    answer = answers[flags]
    assert answer.code == 2 and message in answer.stderr
    assert answer.stderr.count("\n") == 1 and "Traceback" not in answer.stderr
    assert list(answer.folder.iterdir()) == []


@pytest.mark.parametrize("model", ["i3d", "conv_lstm"])
def test_a_step_is_traced_once_for_all_batch_sizes_rates_and_seeds(model):
    preset = configs.PRESETS[f"{model}_synthetic"]
    change = {"num_classes": 3, "input_shape": (8, 32, 32), "dropout": 0.3}
    small = dataclasses.replace(preset.model, **change, **({"width": 0.0625} if model == "i3d" else {"filters": 2}))
    trainer = training.Trainer(dataclasses.replace(preset, model=small), "cpu")
    for step, clips in enumerate((4, 4, 2, 1)):
        frames = np.full((clips, 8, 32, 32, 3), step, np.uint8)
        loss, correct = trainer.train_step(frames, np.arange(clips) % 3, 0.1 / (step + 1), step)
        assert np.isfinite(float(loss)) and 0 <= int(correct) <= clips
        assert trainer.predict(frames).shape == (clips, 3)
    assert trainer._step.experimental_get_tracing_count() == 1
    assert trainer._logits.experimental_get_tracing_count() == 1
