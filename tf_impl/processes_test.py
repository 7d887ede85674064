"""Several replicas, and several processes, take the steps of one: two devices of a CPU, two workers on the loopback."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from common import errors
from common.clips import tiny_store_for_tests
from common.models import canonical_weights
from common.runs import processes_test
from common.runs.run_directory import RunDirectory
from tf_impl import processes

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_SMALL = {"i3d": ["--multiplier=0.0625"], "conv_lstm": ["--filters=2"]}
_REPLICAS = """
import sys
import numpy as np
import tf_impl  # noqa: F401
import tensorflow as tf

devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
from common.models import configs
from parity_tests import twins
from tf_impl import evaluation, processes, training

name, precision, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
shape = {"num_classes": 3, "input_shape": (8, 32, 32), "dropout": 0.3}
model = {
    "i3d": lambda: configs.I3DConfig(**shape, width=0.0625),
    "conv_lstm": lambda: configs.ConvLSTMConfig(**shape, num_layers=2, filters=3),
}[name]()
config = configs.TrainConfig(model, "sgd", momentum=0.2, epochs=1, precision=precision, weight_decay=1e-3)
batches = [twins.random_batch(model, clips, seed) for seed, clips in enumerate((4, 5, 1))]  # 1: the other has none.

def outcome(trainer):
    taken = [trainer.train_step(*batches[step % 3], 1e-2, step) for step in range(count)]
    losses = np.array([[float(value) for value in step] for step in taken])
    logits = np.asarray(trainer.predict(batches[1][0]))
    return {"losses": losses, "logits": logits, **trainer.weights(), **trainer.optimizer_state()}

def evaluated():
    return np.asarray(evaluation.predictor(model, arrays, precision, "cpu")(batches[1][0]))

trainer = training.Trainer(config, "cpu")
expected, arrays = outcome(trainer), {key: array.astype(np.float32) for key, array in trainer.weights().items()}
expected["evaluated"] = evaluated()
with tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"]).scope() as strategy:
    parts, joined_rows = [], processes.joined_rows
    def recording(values, count):
        parts.append([len(part) for part in strategy.experimental_local_results(values)])
        return joined_rows(values, count)
    processes.joined_rows = recording
    found = evaluated()
    assert parts == [[3, 2]], parts  # Of the five clips.
    trainer = training.Trainer(config, "cpu")
    assert trainer._shared
    received = {**outcome(trainer), "evaluated": found}
    assert trainer._shared_step.experimental_get_tracing_count() <= 3
for key, array in expected.items():
    error = np.abs(received[key] - array).max() / max(1, np.abs(array).max())
    assert error <= limit, (key, error)
"""


@pytest.mark.parametrize(
    ("model", "precision", "steps", "limit"),
    [
        ("conv_lstm", "float64", 6, 1e-10),
        pytest.param("conv_lstm", "float64", 20, 1e-10, marks=pytest.mark.slow),
        pytest.param("conv_lstm", "float32", 20, 1e-3, marks=pytest.mark.slow),
        pytest.param("i3d", "float64", 3, 1e-8, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_take_the_steps_of_one(model, precision, steps, limit):
    arguments = [sys.executable, "-c", _REPLICAS, model, precision, str(steps), str(limit)]
    done = subprocess.run(arguments, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """13 clips in batches of 4: in the last one, the second worker has none."""
    path = tmp_path_factory.mktemp("store") / "clips"
    tiny_store_for_tests.write_tiny_store(path, clips={"train": 13, "validation": 3})
    return path


def command(clips, run, *flags):
    given = ["--preset=conv_lstm_synthetic", f"--clips={clips}", f"--run={run}", "--batch_size=4", "--filters=2"]
    return [str(_ROOT / "tf_impl" / "train.py"), *given, "--device=cpu", "--loader_threads=1", *flags]


def free_addresses(count):
    ports = []
    with contextlib.ExitStack() as probes:
        for _ in range(count):
            probe = probes.enter_context(contextlib.closing(socket.socket()))
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    return [f"127.0.0.1:{port}" for port in ports]


def started(arguments, count, **environment):
    """Starts a script in so many workers."""
    cluster = {"worker": free_addresses(count)}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={
                **os.environ,
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finished(processes):
    outputs = [process.communicate(timeout=1800) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def trained(clips, run, count, *flags):
    for code, _, stderr in finished(started(command(clips, run, *flags), count)):
        assert code == 0, stderr[-3000:]
    return canonical_weights.load_arrays(RunDirectory(run).checkpoint)[0], RunDirectory(run).read_log()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(clips, folder):
    """20 steps in one process and in two workers."""
    flags = ("--precision=float64", "--epochs=5", "--dropout=0.3")
    return [trained(clips, folder / str(count), count, *flags) for count in (1, 2)]


def test_two_workers_take_the_steps_of_one(runs):
    (one, log), (two, shared_log) = runs
    assert one.keys() == two.keys()
    for name, array in one.items():
        limit = 1e-10 * max(1, np.abs(array).max())
        np.testing.assert_allclose(two[name], array, rtol=0, atol=limit, err_msg=name)
    assert [line["processes"] for line in log + shared_log] == [1] * 5 + [2] * 5
    for line, shared in zip(log, shared_log, strict=True):
        for name in ("train_loss", "train_accuracy", "validation_loss", "validation_top_1"):
            assert shared[name] == pytest.approx(line[name], abs=1e-10)


@pytest.mark.slow
def test_two_workers_evaluate_as_one(runs, folder):
    results = []
    for count in (1, 2):
        out = folder / f"{count}.json"
        script = [str(_ROOT / "tf_impl" / "evaluate.py"), f"--run={folder / '1'}", f"--out={out}"]
        done = finished(started([*script, "--device=cpu", "--batch_size=2"], count))
        assert [code for code, _, _ in done] == [0] * count, done
        results.append(out.read_bytes())
    assert results[0] == results[1]


_TWO = {"cluster": {"worker": ["127.0.0.1:1111", "127.0.0.1:2222"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "TF_CONFIG must be a readable JSON"),
        ("[]", "TF_CONFIG must be a JSON object. Received: a list"),
        ({"cluster": _TWO["cluster"]}, "missing required field `task`"),
        ({**_TWO, "task": {"type": "chief", "index": 0}}, "'chief' at `.*type` in the environment"),
        ({**_TWO, "cluster": {**_TWO["cluster"], "chief": ["127.0.0.1:3333"]}}, "unknown field `.*chief`"),
        ({**_TWO, "cluster": {"worker": ["a:1", "b"]}}, r"at `.*worker\[1\]`"),
        ({**_TWO, "cluster": {"worker": ["a:1", "a:1"]}}, "must name each worker once.*Received: index 0 of a:1, a:1"),
        ({**_TWO, "task": {"type": "worker", "index": 2}}, "by its index the one that this is. Received: index 2 of"),
        (
            {**_TWO, "cluster": {"worker": ["127.0.0.1:99999", "b:1"]}},
            "at a port below 65536.*Received: index 0 of .*99999",
        ),
    ],
)
def test_a_malformed_tf_config_is_refused_in_one_line(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(errors.UserError, match=message) as caught, processes.joined("cpu"):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", ["", "{}", json.dumps({**_TWO, "cluster": {"worker": ["127.0.0.1:1111"]}})])
def test_a_single_worker_is_alone(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with processes.joined("cpu") as those:
        assert (those.rank, those.count) == (0, 1)


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_never_comes_is_not_waited_for_longer_than_patience(monkeypatch, index):
    workers = free_addresses(2)
    config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    monkeypatch.setenv("PROCESSES_PATIENCE_SECONDS", "1")
    message = f"All 2 workers must come within 1 s. Received: none at {workers[1 - index]}"
    with pytest.raises(errors.UserError, match=message), processes.joined("cpu"):
        pass


def test_of_a_graphs_error_what_happened_is_told():
    message = (
        'Graph execution error:\n\nDetected at node X defined at (most recent call last):\n  File "a.py"\n\nAborted.'
    )
    assert processes._reason(RuntimeError(message)) == "Aborted."
    assert processes._reason(RuntimeError("Aborted.\nMore.")) == "Aborted."
    assert processes._reason(RuntimeError()) == "RuntimeError"


def test_a_port_that_something_else_has_is_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        cluster = {"worker": [address, "127.0.0.1:2222"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({**_TWO, "cluster": cluster}))
        message = f"TF_CONFIG must give this worker a free port of this machine. Received: {address}: "
        with pytest.raises(errors.UserError, match=message), processes.joined("cpu"):
            pass


@pytest.mark.slow
def test_a_worker_lost_in_validation_ends_the_other_in_one_line(clips, tmp_path):
    arguments = ["-c", processes_test.LOST_IN_VALIDATION, *command(clips, tmp_path / "run")]
    (code, _, stderr), (killed, _, _) = finished(started(arguments, 2, PROCESSES_PATIENCE_SECONDS="20"))
    assert (code, killed) == (2, -signal.SIGKILL), stderr[-3000:]
    assert stderr.splitlines()[-1].startswith(
        "error: All 2 processes must stay to the end. Received: one that was lost"
    )


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_both(clips, tmp_path):
    first, second = started(command(clips, tmp_path / "run", "--epochs=10000"), 2)
    run = RunDirectory(tmp_path / "run")
    while len(run.read_log()) < 2 and first.poll() is None:
        time.sleep(0.05)
    second.send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [130, 130], ends
    assert "Stopped by a signal to another process at step" in ends[0] and "Stopped by SIGTERM" in ends[1]


@pytest.mark.slow
def test_a_lost_worker_ends_the_other_in_one_line(clips, tmp_path):
    flags = ("--epochs=10000", "--checkpoint_minutes=0")
    first, second = started(command(clips, tmp_path / "run", *flags), 2, PROCESSES_PATIENCE_SECONDS="10")
    run = RunDirectory(tmp_path / "run")
    while len(run.read_log()) < 2 and first.poll() is None:
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == 2
    assert stderr.splitlines()[-1].startswith(
        "error: All 2 processes must stay to the end. Received: one that was lost"
    )
    assert run.checkpoint.exists()
