"""Times the PyTorch and the TensorFlow build side by side: a training step and an evaluation of both models.

Each framework runs in a process of its own; they take turns, so that what else the machine does falls on both. Prints
median seconds and the ratio TensorFlow / PyTorch. Example: python benchmarks/twins.py --model=i3d --batch=1
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from common import configs, errors

_MODEL = flags.DEFINE_enum("model", "all", ["all", "i3d", "conv_lstm"], "Which model to time.")
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of each build.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each build, interleaved.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Clips a step.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 16, "Frames of a clip.", lower_bound=8)
_HEIGHT = flags.DEFINE_integer("height", 224, "Height in px.", lower_bound=32)
_WIDTH = flags.DEFINE_integer("width", 224, "Width in px.", lower_bound=32)
_MULTIPLIER = flags.DEFINE_float("multiplier", 1.0, "Channel multiplier of I3D; ConvLSTM has 32 filters times it.")
_PRECISION = flags.DEFINE_enum("precision", "float32", list(configs.PRECISIONS), "Precision of the computation.")
_CLOCK = flags.DEFINE_enum(
    "clock", "wall", ["wall", "cpu"], "What to count; cpu, with --threads=1, hardly heeds what else the machine does."
)
_WORKER = flags.DEFINE_string("worker", None, "Used by the command itself: be one framework, with a JSON config.")

FRAMEWORKS = ("torch", "tf")


def model_config(name: str) -> configs.ModelConfig:
    """Returns the config that the flags ask for."""
    shape = (_FRAMES.value, _HEIGHT.value, _WIDTH.value)
    if name == "i3d":
        return configs.I3DConfig(174, shape, width=_MULTIPLIER.value)
    return configs.ConvLSTMConfig(
        174,
        shape,
        num_layers=3 if min(shape[1:]) >= 63 else 2,
        filters=max(1, round(32 * _MULTIPLIER.value)),
    )


class Worker:
    """A process that is one framework; it works when asked and says how long it took."""

    def __init__(self, framework: str, config: configs.TrainConfig) -> None:
        values = json.dumps(
            {
                "framework": framework,
                "threads": _THREADS.value,
                "batch": _BATCH.value,
                "clock": _CLOCK.value,
                "config": configs.to_dict(config),
            }
        )
        self._process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).resolve()), f"--worker={values}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, task: str) -> float:
        """Does a task, "train" or "evaluate", once."""
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def make_trainer(framework: str, config: configs.TrainConfig, threads: int) -> Any:
    """Returns the trainer of a framework, which alone is imported."""
    if framework == "torch":
        import torch

        from torch_impl import training

        torch.set_num_threads(threads)
    else:
        from tf_impl import backend, training  # noqa: F401, I001  (chooses Keras' backend)
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    return training.Trainer(config)


def work(values: dict[str, Any]) -> None:
    """Reads tasks from stdin and writes their seconds to stdout, until stdin ends."""
    config = configs.train_config_from_dict(values["config"])
    trainer = make_trainer(values["framework"], config, values["threads"])
    stream = np.random.default_rng(0)
    frames = stream.integers(0, 256, (values["batch"], *config.model.input_shape, 3), np.uint8)
    labels = stream.integers(0, config.model.num_classes, values["batch"])
    tasks: dict[str, Callable[[], Any]] = {
        "train": lambda: float(trainer.train_step(frames, labels, 1e-5, 0)[0]),
        "evaluate": lambda: trainer.predict(frames),
    }
    clock = time.perf_counter if values["clock"] == "wall" else time.process_time
    for line in sys.stdin:
        start = clock()
        tasks[line.strip()]()
        sys.stdout.write(f"{clock() - start}\n")
        sys.stdout.flush()


def compare(name: str) -> list[tuple[str, list[float]]]:
    """Returns rows: what, and median seconds of each framework."""
    config = configs.TrainConfig(model_config(name), "adam", epochs=1, precision=_PRECISION.value)
    workers = [Worker(framework, config) for framework in FRAMEWORKS]
    rows = []
    for task, what in (("train", "training step"), ("evaluate", "evaluation")):
        seconds: list[list[float]] = [[] for _ in workers]
        for repeat in range(_REPEATS.value + 2):
            for worker, times in zip(workers, seconds, strict=True):
                value = worker.seconds(task)
                if repeat > 1:  # The first turns build and warm up.
                    times.append(value)
        rows.append((f"{name}, {what}", [statistics.median(times) for times in seconds]))
    for worker in workers:
        worker.close()
    return rows


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    if _WORKER.value:
        work(json.loads(_WORKER.value))
        return
    sys.stdout.write(
        f"{_BATCH.value} clip(s) of {_FRAMES.value}x{_HEIGHT.value}x{_WIDTH.value}, {_THREADS.value} threads, "
        f"{_PRECISION.value}, {_CLOCK.value} time\n{'':26}{'torch (s)':>10}{'tf (s)':>10}{'tf / torch':>12}\n"
    )
    for name in ("i3d", "conv_lstm") if _MODEL.value == "all" else (_MODEL.value,):
        for what, (torch_seconds, tf_seconds) in compare(name):
            ratio = tf_seconds / torch_seconds
            sys.stdout.write(f"{what:26}{torch_seconds:10.3f}{tf_seconds:10.3f}{ratio:12.2f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    errors.run(main)
