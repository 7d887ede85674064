import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common import errors
from common.clips import tiny_store_for_tests
from common.models import architectures, canonical_weights, configs
from common.runs import evaluation_loop, training_loop
from common.runs.run_directory import RunDirectory
from common.runs.schedules import PlateauSchedule
from parity_tests import compare, tolerances, twins
from tf_impl import evaluation as tf_evaluation
from tf_impl import processes_test as tf_processes
from tf_impl import training as tf_training
from torch_impl import evaluation as torch_evaluation
from torch_impl import processes_test as torch_processes
from torch_impl import training as torch_training

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_TRAININGS = {"torch": torch_training, "tf": tf_training}
_EVALUATIONS = {"torch": torch_evaluation, "tf": tf_evaluation}
_CONV_LSTM = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=2, filters=4)
_I3D = configs.I3DConfig(3, (8, 32, 32), dropout=0, width=0.06)
_OPTIMIZERS = {
    "adam": {"optimizer": "adam", "weight_decay": 5e-5},
    "sgd with momentum": {"optimizer": "sgd", "momentum": 0.2, "weight_decay": 1e-2, "learning_rate": 0.05},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
}


def run_steps(trainer, batches, config, steps):
    """Returns losses and learning rates of `steps` steps; every 2 of them end an epoch with a plateau's chance."""
    schedule = PlateauSchedule(config.learning_rate, patience=2, factor=0.5)
    losses, rates = [], []
    for step in range(steps):
        frames, labels = batches[step % len(batches)]
        rates.append(schedule.learning_rate)
        losses.append(float(trainer.train_step(frames, labels, schedule.learning_rate, step)[0]))
        if step % 2:
            schedule.update(1.0 if step > 4 else 2.0 - losses[-1] * 1e-3)  # A plateau from the fifth step on.
    return np.array(losses), np.array(rates)


def assert_steps_agree(model, optimizer, precision, steps=20, **changes):
    limit = tolerances.limit("training", precision)
    config = configs.TrainConfig(model, epochs=1, precision=precision, seed=5, **_OPTIMIZERS[optimizer], **changes)
    # The last batch is smaller, as at the end of an epoch.
    batches = [twins.random_batch(model, clips, seed) for seed, clips in enumerate((4, 4, 2))]
    trainers = {name: training.Trainer(config, "cpu") for name, training in _TRAININGS.items()}
    start = twins.trained_weights(model)
    frozen = {name for layer in architectures.frozen_layers(config) for name in layer.weights}
    if frozen:
        for trainer in trainers.values():
            trainer.load(start, trainer.optimizer_state())
    (ours, our_rates), (theirs, their_rates) = (run_steps(t, batches, config, steps) for t in trainers.values())
    compare.assert_close("loss of each step", ours, theirs, limit)
    assert our_rates.tolist() == their_rates.tolist()
    assert steps < 20 or our_rates[-1] < our_rates[0]
    compare.assert_all_close("weights", *(trainer.weights() for trainer in trainers.values()), limit)
    for trainer in trainers.values():
        for name in frozen:
            np.testing.assert_array_equal(trainer.weights()[name], start[name], err_msg=name)
    compare.assert_all_close("optimiser", *(trainer.optimizer_state() for trainer in trainers.values()), limit)
    logits = [trainer.predict(batches[0][0]) for trainer in trainers.values()]
    compare.assert_close("logits after training", *logits, 10 * limit)
    return ours


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
def test_twenty_steps_of_conv_lstm(optimizer, precision):
    losses = assert_steps_agree(_CONV_LSTM, optimizer, precision)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
def test_twenty_steps_of_fine_tuning(optimizer, precision):
    # Dropout is before the second layer: where that is frozen, nothing is drawn, and both compute the same.
    model = dataclasses.replace(_CONV_LSTM, dropout=0.3)
    assert_steps_agree(model, optimizer, precision, freeze="ConvLSTM_2", head_learning_rate=5e-3)


@pytest.mark.slow
def test_twenty_steps_of_fine_tuning_i3d():
    assert_steps_agree(_I3D, "adam", "float64", freeze="Mixed_5b", head_learning_rate=1e-2)


@pytest.mark.slow
def test_steps_of_i3d():
    # Each step multiplies a difference by about 3 (57 batch norms over a few values), so 8 of them.
    assert_steps_agree(_I3D, "adam", "float64", steps=8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "clips"
    tiny_store_for_tests.write_tiny_store(path, clips={"train": 13, "validation": 7})
    return path


def train_in_subprocess(framework, clips, run, *options):
    subprocess.run(
        [
            sys.executable,
            _ROOT / f"{framework}_impl" / "train.py",
            "--preset=conv_lstm_synthetic",
            f"--clips={clips}",
            f"--run={run}",
            "--epochs=2",
            "--batch_size=4",
            "--filters=4",
            "--device=cpu",
            *options,
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return RunDirectory(run).read_log()


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        pytest.param(("--precision=float64", "--dropout=0"), 1e-8, id="float64 without dropout"),
        # In float32 the two draw other dropout masks: comparable, not equal.
        pytest.param(("--precision=float32", "--dropout=0.3"), 0.5, id="float32 with dropout", marks=pytest.mark.slow),
    ],
)
def test_both_commands_train_alike(clips, tmp_path, options, limit):
    ours, theirs = (train_in_subprocess(name, clips, tmp_path / name, *options) for name in _TRAININGS)
    assert len(ours) == len(theirs) == 2
    for our_line, their_line in zip(ours, theirs, strict=True):
        assert our_line.keys() == their_line.keys()
        for name in ("epoch", "step", "learning_rate"):
            assert our_line[name] == their_line[name]
        for name in ("train_loss", "validation_loss"):
            compare.assert_close(name, np.array(our_line[name]), np.array(their_line[name]), limit)
        if limit < 1e-3:
            assert our_line["validation_top_1"] == their_line["validation_top_1"]
            assert our_line["train_accuracy"] == their_line["train_accuracy"]
    assert {path.name for path in (tmp_path / "torch").iterdir()} == {path.name for path in (tmp_path / "tf").iterdir()}


def small_run(optimizer, epochs):
    return configs.TrainConfig(
        _CONV_LSTM, epochs=epochs, batch_size=4, precision="float64", seed=1, **_OPTIMIZERS[optimizer]
    )


def last_state(run):
    return canonical_weights.load_arrays(RunDirectory(run).checkpoint)


@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
@pytest.mark.parametrize(("first", "second"), [("torch", "tf"), ("tf", "torch")])
def test_a_run_of_one_is_resumed_by_the_other(clips, tmp_path, first, second, optimizer):
    settings = training_loop.TrainSettings(clips, tmp_path / "mixed")
    # One epoch and a half in the first framework, the rest in the second.
    stopped = dataclasses.replace(settings, max_steps=6)
    _TRAININGS[first].train(small_run(optimizer, 3), stopped, "cpu")
    _TRAININGS[second].train(small_run(optimizer, 3), dataclasses.replace(settings, resume=True), "cpu")
    whole = dataclasses.replace(settings, run=tmp_path / "whole")
    _TRAININGS[first].train(small_run(optimizer, 3), whole, "cpu")
    (mixed, mixed_header), (expected, header) = last_state(settings.run), last_state(whole.run)
    limit = tolerances.limit("training", "float64")
    compare.assert_all_close("checkpoint", expected, mixed, limit)
    assert header["progress"]["step"] == mixed_header["progress"]["step"] == 12
    losses = [
        np.array([line["validation_loss"] for line in RunDirectory(r).read_log()]) for r in (whole.run, settings.run)
    ]
    compare.assert_close("validation losses", *losses, limit)


@pytest.mark.parametrize("framework", _TRAININGS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd with momentum"])
def test_a_state_that_would_have_to_be_broadcast_is_refused(clips, tmp_path, framework, optimizer):
    settings = training_loop.TrainSettings(clips, tmp_path / "run", max_steps=1)
    _TRAININGS[framework].train(small_run(optimizer, 1), settings, "cpu")
    arrays, header = last_state(settings.run)
    name = next(name for name in arrays if name.startswith("optimizer/") and name.endswith("Logits/bias"))
    arrays[name] = arrays[name][:1]
    canonical_weights.save_arrays(RunDirectory(settings.run).checkpoint, arrays, header)
    for training in _TRAININGS.values():
        with pytest.raises(errors.UserError, match=rf"misshapen: {name} \(1,\) instead of \(3,\)"):
            training.train(small_run(optimizer, 1), dataclasses.replace(settings, resume=True), "cpu")


@pytest.mark.parametrize("framework", _TRAININGS)
def test_a_run_of_either_is_evaluated_alike_by_both(clips, tmp_path, framework):
    run = tmp_path / framework
    _TRAININGS[framework].train(small_run("adam", 1), training_loop.TrainSettings(clips, run), "cpu")
    settings = evaluation_loop.EvaluateSettings((run,))
    ours, theirs = (next(iter(module.evaluate(settings, "float64", "cpu"))) for module in _EVALUATIONS.values())
    assert (ours.pop("framework"), theirs.pop("framework")) == ("torch", "tf")
    assert ours["trained_with"] == theirs["trained_with"] == framework
    for direction in ("forward", "reversed"):
        losses = [np.array(results[direction].pop("loss")) for results in (ours, theirs)]
        compare.assert_close(f"{direction} loss", *losses, tolerances.limit("endpoints", "float64"))
    assert json.dumps(ours) == json.dumps(theirs)


@pytest.mark.slow
def test_two_processes_of_either_train_as_one(clips, tmp_path):
    flags = ("--preset=conv_lstm_synthetic", "--precision=float64", "--dropout=0", "--epochs=3")
    ours, _ = torch_processes.trained("conv_lstm", clips, tmp_path / "torch", 2, *flags)
    theirs, _ = tf_processes.trained(clips, tmp_path / "tf", 2, *flags)
    alone, _ = torch_processes.trained("conv_lstm", clips, tmp_path / "alone", 1, *flags)
    limit = tolerances.limit("training", "float64")
    compare.assert_all_close("torch and tf", ours, theirs, limit)
    compare.assert_all_close("tf and one process of torch", alone, theirs, limit)
