"""Several processes take the steps of one: through `train.py` and `evaluate.py`, on the loopback."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from torch import distributed

from common import errors
from common.clips import tiny_store_for_tests
from common.models import canonical_weights
from common.runs import processes_test
from common.runs.run_directory import RunDirectory
from torch_impl import processes

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_SMALL = {"i3d": ["--multiplier=0.0625"], "conv_lstm": ["--filters=2"]}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """13 clips in batches of 4: in the last one, the second process has none."""
    path = tmp_path_factory.mktemp("store") / "clips"
    tiny_store_for_tests.write_tiny_store(path, clips={"train": 13, "validation": 3})
    return path


def command(model, clips, run, *flags):
    given = [f"--preset={model}_synthetic", f"--clips={clips}", f"--run={run}", "--batch_size=4", *_SMALL[model]]
    return [str(_ROOT / "torch_impl" / "train.py"), *given, "--device=cpu", "--loader_threads=1", *flags]


def started_together(arguments, count):
    """Starts a script in so many processes, as a launcher does."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def run_together(arguments, count):
    """Runs a script in so many processes; returns the exit code, stdout and stderr of each."""
    started = started_together(arguments, count)
    outputs = [process.communicate(timeout=1800) for process in started]
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def trained(model, clips, run, count, *flags):
    for code, _, stderr in run_together(command(model, clips, run, *flags), count):
        assert code == 0, stderr
    arrays, _ = canonical_weights.load_arrays(RunDirectory(run).checkpoint)
    return arrays, RunDirectory(run).read_log()


def assert_close(received, expected, limit):
    assert received.keys() == expected.keys()
    for name in expected:
        scale = max(1, np.abs(expected[name]).max())
        np.testing.assert_allclose(received[name], expected[name], rtol=0, atol=limit * scale, err_msg=name)


def assert_runs_agree(runs, limit):
    (one, log), (two, shared_log) = runs
    assert_close(two, one, limit)
    assert [line["processes"] for line in log] == [1] * len(log)
    assert len({line["processes"] for line in shared_log} - {1}) == 1
    for line, shared in zip(log, shared_log, strict=True):
        assert (shared["step"], shared["train_accuracy"]) == (line["step"], line["train_accuracy"])
        for name in ("train_loss", "validation_loss", "validation_top_1"):
            assert shared[name] == pytest.approx(line[name], abs=limit)


_FLAGS = ("--precision=float64", "--epochs=5", "--dropout=0.3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(clips, folder):
    """20 steps of the ConvLSTM in one process and in two."""
    return [trained("conv_lstm", clips, folder / str(count), count, *_FLAGS) for count in (1, 2)]


def test_two_processes_take_the_steps_of_one(runs):
    assert_runs_agree(runs, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "flags", "limit"),
    [
        ("conv_lstm", ("--precision=float32", "--epochs=5", "--dropout=0.3", "--optimizer=adam"), 1e-3),
        # Of I3D 4 steps: Adam divides by the size of gradients, some of which are rounding (1.5e-8 was measured).
        ("i3d", ("--precision=float64", "--epochs=1", "--dropout=0.3"), 1e-7),
    ],
)
def test_two_processes_of_other_models_and_precisions(clips, tmp_path, model, flags, limit):
    assert_runs_agree([trained(model, clips, tmp_path / str(count), count, *flags) for count in (1, 2)], limit)


@pytest.mark.slow
@pytest.mark.parametrize("num_clips", [13, 2])  # In batches of 4: shares of 2, 1 and 1; one process never has a clip.
def test_three_processes_take_the_steps_of_one_whatever_their_shares(tmp_path, num_clips):
    clips = tmp_path / "clips"
    tiny_store_for_tests.write_tiny_store(clips, clips={"train": num_clips, "validation": 3})
    flags = ("--precision=float64", "--epochs=2", "--dropout=0.3")
    one, three = (trained("conv_lstm", clips, tmp_path / str(count), count, *flags) for count in (1, 3))
    assert_runs_agree([one, three], 1e-10)
    assert three[1][0]["processes"] == 3


@pytest.mark.slow
def test_two_processes_resume_what_one_began(clips, tmp_path, runs):
    trained("conv_lstm", clips, tmp_path / "mixed", 1, *_FLAGS, "--max_steps=5")
    mixed, _ = trained("conv_lstm", clips, tmp_path / "mixed", 2, *_FLAGS, "--resume")
    assert_close(mixed, runs[0][0], 1e-10)


def test_two_processes_evaluate_as_one(runs, folder):
    results = []
    for count in (1, 2):
        out = folder / f"{count}.json"
        script = [str(_ROOT / "torch_impl" / "evaluate.py"), f"--run={folder / '1'}", f"--out={out}"]
        done = run_together([*script, "--device=cpu", "--batch_size=2"], count)
        assert [code for code, _, _ in done] == [0] * count, done
        assert ["1 (reversed)" in stdout for _, stdout, _ in done] == [True, False][:count]
        results.append(out.read_bytes())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("environment", "received"),
    [
        ({"RANK": "0"}, r"one that was lost \(Timed out after \d seconds waiting for clients"),
        ({"RANK": "1"}, r"one that was lost \(.*while trying to connect"),
        ({}, "environment variable RANK expected, but not set"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "invalid literal for int.* 'two'"),
    ],
)
def test_processes_that_never_come_or_are_not_named_end_in_one_line(monkeypatch, environment, received):
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.delenv("RANK", raising=False)
    given = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in {**given, "PROCESSES_PATIENCE_SECONDS": "1", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(errors.UserError, match=received), processes.joined("cpu"):
        pass


@pytest.mark.slow
def test_a_process_lost_in_validation_ends_the_other_in_one_line(clips, tmp_path):
    arguments = ["-c", processes_test.LOST_IN_VALIDATION, *command("conv_lstm", clips, tmp_path / "run")]
    (code, _, stderr), (killed, _, _) = run_together(arguments, 2)
    assert (code, killed) == (2, -signal.SIGKILL), stderr
    assert stderr.splitlines()[-1].startswith(
        "error: All 2 processes must stay to the end. Received: one that was lost"
    )


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both(clips, tmp_path):
    first, second = started_together(command("conv_lstm", clips, tmp_path / "run", "--epochs=10000"), 2)
    run = RunDirectory(tmp_path / "run")
    while len(run.read_log()) < 2 and first.poll() is None:
        time.sleep(0.05)
    second.send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [130, 130], ends
    assert "Stopped by a signal to another process at step" in ends[0] and "Stopped by SIGTERM" in ends[1]
    _, header = canonical_weights.load_arrays(run.checkpoint)
    assert header["progress"]["step"] >= 8


def test_processes_meet_in_a_store_in_which_lost_ones_have_left_their_name():
    store = distributed.HashStore()
    store.set("name", "lost")
    names = {}

    def meet(rank):
        if rank == 0:
            time.sleep(0.2)  # The other one reads the lost name first.
        names[rank] = processes._met(store, rank, 2)

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert names[0] == names[1] != "lost"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_a_launched_training_survives_the_loss_of_a_process_and_a_signal(clips, tmp_path, sent):
    flags = ["--epochs=12", "--checkpoint_minutes=0", "--dropout=0.3"]
    trained("conv_lstm", clips, tmp_path / "whole", 2, *flags)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=2", "--standalone"]
    launched = [*launcher, "--", *command("conv_lstm", clips, tmp_path / "run", *flags, "--resume")]
    run, environment = RunDirectory(tmp_path / "run"), {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(launched, stderr=subprocess.PIPE, text=True, env=environment)
    while len(run.read_log()) < 2 and process.poll() is None:
        time.sleep(0.01)
    if sent == signal.SIGTERM:
        process.send_signal(sent)
        process.communicate(timeout=120)
        assert 2 <= len(run.read_log()) < 12
        resumed = subprocess.run(launched, env=environment, capture_output=True, text=True)
        assert resumed.returncode == 0, resumed.stderr
    else:
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        os.kill(int(found.stdout.split()[-1]), sent)
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
    whole, _ = canonical_weights.load_arrays(RunDirectory(tmp_path / "whole").checkpoint)
    survived, _ = canonical_weights.load_arrays(run.checkpoint)
    assert_close(survived, whole, 0)
    assert len(run.read_log()) == 12
