"""Times `torch_impl`'s models against plain builds of the same function, side by side in one run.

Prints median seconds of a training step (forward, cross-entropy, backward, Adam) and of an evaluation, and the ratio
plain / ours; checks first that both give the same logits. Example: python benchmarks/torch_models.py --model=i3d
"""

import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import torch
from absl import flags, logging
from torch.nn import functional

from benchmarks import plain_torch, sizes
from common import errors
from common.command_line import commands
from common.models import configs, initial_weights
from torch_impl import layers, weights

_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each build, interleaved.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Clips a step.", lower_bound=1)
_PRECISION = flags.DEFINE_enum("precision", "float32", configs.PRECISIONS, "Of our build; plain bfloat16 is float32.")

_LOGITS_LIMIT = {"float32": 1e-3, "float64": 1e-10, "bfloat16": 0.5}  # Largest difference accepted before timing.


def training_step(model: torch.nn.Module, clips: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Returns a function that makes one training step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(clips), labels).backward()
        optimizer.step()

    return step


def evaluation(model: torch.nn.Module, clips: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Returns a function that scores the clips."""

    def score() -> torch.Tensor:
        model.eval()
        with torch.inference_mode():
            return model(clips)

    return score


def compare(name: str, precision: str) -> list[tuple[str, float, float]]:
    """Returns rows (what, seconds of the plain build, seconds of ours) after checking that both agree."""
    config = dataclasses.replace(sizes.model_config(name), dropout=0.0)  # So that both builds compute the same.
    arrays = initial_weights.initial_weights(config, seed=0)
    ours = weights.build_model(config, precision, arrays=arrays)
    plain = plain_torch.build_model(config, arrays, layers.DTYPES[precision][0])
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (_BATCH.value, *config.input_shape, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, config.num_classes, (_BATCH.value,), generator=generator)
    check_agreement(plain, ours, clips, _LOGITS_LIMIT[precision])
    pairs: dict[str, list[Callable[[], object]]] = {
        "training step": [training_step(model, clips, labels) for model in (plain, ours)],
        "evaluation": [evaluation(model, clips) for model in (plain, ours)],
    }
    rows = []
    for what, functions in pairs.items():
        plain_seconds, our_seconds = interleaved(functions, _REPEATS.value)
        rows.append((f"{name}, {what}", plain_seconds, our_seconds))
    return rows


def check_agreement(plain: torch.nn.Module, ours: torch.nn.Module, clips: torch.Tensor, limit: float) -> None:
    """Refuses to time two builds whose logits differ, in training or in inference."""
    for mode in (True, False):
        with torch.no_grad():
            expected, received = plain.train(mode)(clips), ours.train(mode)(clips)
        error = ((received - expected).abs().max() / max(1, expected.abs().max().item())).item()
        if not error <= limit:
            raise errors.UserError(
                f"Both builds must give the same logits to {limit}. Received: they differ by {error:.2g}"
            )


def interleaved(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Returns the median seconds of each function; they take turns, after one untimed turn each."""
    seconds: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, times in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    torch.set_num_threads(sizes.THREADS.value)
    logging.info("%s, %s", sizes.words(_BATCH.value), _PRECISION.value)
    sys.stdout.write(f"{'':26}{'plain (s)':>10}{'ours (s)':>10}{'ratio':>7}\n")
    for name in sizes.model_names():
        for what, plain_seconds, our_seconds in compare(name, _PRECISION.value):
            ratio = plain_seconds / our_seconds
            sys.stdout.write(f"{what:26}{plain_seconds:10.3f}{our_seconds:10.3f}{ratio:7.2f}\n")


if __name__ == "__main__":
    commands.run(main)
