"""Times the PyTorch and the TensorFlow build side by side: a training step and an evaluation of both models.

Each framework runs in a process of its own; they take turns, so that what else the machine does falls on both. Prints
median seconds and the ratio TensorFlow / PyTorch. Example: python benchmarks/twins.py --model=i3d --batch=1
"""

import importlib
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from benchmarks import sizes, workers
from common.command_line import commands
from common.models import configs

_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each build, interleaved.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Clips a step.", lower_bound=1)
_PRECISION = flags.DEFINE_enum("precision", "float32", list(configs.PRECISIONS), "Precision of the computation.")
_CLOCK = flags.DEFINE_enum(
    "clock", "wall", ["wall", "cpu"], "What to count; cpu, with --threads=1, hardly heeds what else the machine does."
)

FRAMEWORKS = ("torch", "tf")


def make_trainer(framework: str, config: configs.TrainConfig, threads: int) -> Any:
    """Returns the trainer of a framework, which alone is imported."""
    training = importlib.import_module(f"{framework}_impl.training")  # Before TensorFlow, for a quiet start.
    if framework == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    return training.Trainer(config)


def make_tasks(values: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Returns what a worker does: a training step and an evaluation of one batch."""
    config = configs.train_config_from_dict(values["config"])
    trainer = make_trainer(values["framework"], config, values["threads"])
    stream = np.random.default_rng(0)
    frames = stream.integers(0, 256, (values["batch"], *config.model.input_shape, 3), np.uint8)
    labels = stream.integers(0, config.model.num_classes, values["batch"])
    return {
        "train": lambda: float(trainer.train_step(frames, labels, 1e-5, 0)[0]),
        "evaluate": lambda: trainer.predict(frames),
    }


def compare(name: str) -> list[tuple[str, list[float]]]:
    """Returns rows: what, and median seconds of each framework."""
    config = configs.TrainConfig(sizes.model_config(name), "adam", epochs=1, precision=_PRECISION.value)
    options = {
        "threads": sizes.THREADS.value,
        "batch": _BATCH.value,
        "clock": _CLOCK.value,
        "config": configs.to_dict(config),
    }
    rows = []
    with workers.started(__file__, {each: {"framework": each, **options} for each in FRAMEWORKS}) as processes:
        for task, what in (("train", "training step"), ("evaluate", "evaluation")):
            seconds: dict[str, list[float]] = {framework: [] for framework in processes}
            for repeat in range(_REPEATS.value + 2):
                for framework, worker in processes.items():
                    value = worker.seconds(task)
                    if repeat > 1:  # The first turns build and warm up.
                        seconds[framework].append(value)
            rows.append((f"{name}, {what}", [statistics.median(times) for times in seconds.values()]))
    return rows


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    if workers.WORKER.value:
        values = json.loads(workers.WORKER.value)
        clock = time.perf_counter if values["clock"] == "wall" else time.process_time
        workers.serve(lambda: make_tasks(values), clock)
        return
    sys.stdout.write(
        f"{sizes.words(_BATCH.value)}, {_PRECISION.value}, {_CLOCK.value} time\n"
        f"{'':26}{'torch (s)':>10}{'tf (s)':>10}{'tf / torch':>12}\n"
    )
    for name in sizes.model_names():
        for what, (torch_seconds, tf_seconds) in compare(name):
            ratio = tf_seconds / torch_seconds
            sys.stdout.write(f"{what:26}{torch_seconds:10.3f}{tf_seconds:10.3f}{ratio:12.2f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    commands.run(main)
