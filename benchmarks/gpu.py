"""What one GPU makes of the full-size presets: training, evaluation, masks and their oracle, in PyTorch.

Random clips and weights: no data is needed. Prints, for each model and precision, what is done in a second, and its
share of the rate at which the card multiplies large bfloat16 matrices; then how long the 24,777 validation clips of
Something-something-V2 would take (computed from these rates). The FLOPs are those of convolutions and dense layers, 2
for a multiply-add (`common/models/architectures.py`): in training thrice the forward pass without the gradient in the
clip; a step of a mask search twice the forward pass after the first convolution, which is taken once for a clip.

Measurements are made in order of interest until --seconds are over; what is left is said to be. Most of the time goes
into cuDNN's choice of algorithms, which tries several for every convolution.

Example: python benchmarks/gpu.py --out=gpu.json
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
import torch
from absl import flags

from benchmarks import costs
from common import errors
from common.command_line import commands
from common.explaining import mask_search, masks
from common.explaining import scorer as scoring
from common.models import configs, convolution_check
from torch_impl import devices, evaluation, explanation, temporal_mask, training, weights

_PRESETS = flags.DEFINE_list("presets", ["i3d_something", "conv_lstm_something"], "What to time.")
_PRECISIONS = flags.DEFINE_list("precisions", ["bfloat16", "tf32", "float32"], "In which arithmetic.")
_WHAT = flags.DEFINE_list("what", ["mask", "train", "evaluate", "oracle", "eager"], "What to measure, in this order.")
_BATCH = flags.DEFINE_integer("batch", 32, "Clips at a time in evaluation and masks.", lower_bound=1)
_TRAIN_BATCH = flags.DEFINE_integer("train_batch", 0, "Clips of a training step; 0: the preset's.", lower_bound=0)
_ITERATIONS = flags.DEFINE_integer("iterations", 20, "Steps of a timed mask search.", lower_bound=1)
_EACH = flags.DEFINE_float("each", 1.5, "Seconds of each measurement, at least.", lower_bound=0)
_SECONDS = flags.DEFINE_float("seconds", 230, "No measurement begins later.", lower_bound=0)
_DEVICE = flags.DEFINE_enum("device", "gpu", ["cpu", "gpu"], "cpu: to try out this command.")
_SIZE = flags.DEFINE_list("size", [], "Frames, height and width of other clips than the presets'.")
_PROFILE = flags.DEFINE_bool("profile", False, "Also list the kernels that take longest, of the first precision.")
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")

_PRODUCT = 8192  # Rows and columns of the matrices that the card's rate is measured with.


@dataclasses.dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
      preset, what, precision: of which model what was done how.
      batch: clips at a time.
      per_second: clips, or steps of one clip in a mask search.
      flops: of one of these.
      memory: peak, GiB.
    """

    preset: str
    what: str
    precision: str
    batch: int
    per_second: float
    flops: int
    memory: float


class _Unrecorded(explanation.Probabilities):
    recordable = False


def preset_config(name: str) -> configs.TrainConfig:
    """Returns a preset, with the size of clips that the flags ask for."""
    errors.check_choice("presets", name, configs.PRESETS)
    config = configs.PRESETS[name]
    if _SIZE.value:
        frames, height, width = (int(size) for size in _SIZE.value)
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, input_shape=(frames, height, width))
        )
    return config


def rate(work: Callable[[], object], amount: float) -> float:
    """Returns how much is done in a second by calls of `work` that do `amount` each, after two that are not timed."""
    for _ in range(2):
        work()
    _wait()
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < _EACH.value:
        work()
        calls += 1
        if calls % 4 == 0:
            _wait()  # Or the queue would grow beyond the time that is meant.
    _wait()
    return amount * calls / (time.perf_counter() - start)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def product_rate(device: torch.device) -> float:
    """Returns the FLOP/s of bfloat16 products of large random matrices."""
    size = _PRODUCT if device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return rate(lambda: [a @ b for _ in range(10)], 10 * 2 * size**3)


def measure(preset: str, precision: str, what: str) -> Row:
    """Measures one thing."""
    config = preset_config(preset)
    model = config.model
    device = devices.find_device(_DEVICE.value, precision)
    stream = np.random.default_rng(0)
    batch = (_TRAIN_BATCH.value or config.batch_size) if what == "train" else _BATCH.value
    frames = stream.integers(0, 256, (batch, *model.input_shape, 3), np.uint8)
    labels = stream.integers(0, model.num_classes, batch)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    work, amount, count = _work(what, config, precision, device, frames, labels)
    per_second = rate(work, amount)
    if _PROFILE.value and device.type == "cuda" and precision == _PRECISIONS.value[0] and what in ("mask", "train"):
        _profile(work, f"{preset}, {what}, {precision}")
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Row(preset, what, precision, batch, per_second, count, memory)


def _work(
    what: str,
    config: configs.TrainConfig,
    precision: str,
    device: torch.device,
    frames: np.ndarray,
    labels: np.ndarray,
) -> tuple[Callable[[], object], float, int]:
    """Returns what to time, how much of it a call does, and the FLOPs of one of these."""
    model, cost, batch = config.model, costs.flops(config.model), len(frames)
    if what == "train":
        trainer = training.Trainer(dataclasses.replace(config, precision=precision), _DEVICE.value)
        return lambda: trainer.train_step(frames, labels, 1e-4, 0), batch, cost["train"]
    arrays = weights.get_weights(weights.build_model(model))
    if what == "evaluate":
        predict = evaluation.predictor(model, arrays, precision, _DEVICE.value)
        return lambda: predict(frames), batch, cost["evaluate"]
    built = weights.build_model(model, precision, device=device, arrays=arrays).eval().requires_grad_(False)
    clips = torch.from_numpy(frames).to(device)
    if what == "oracle":
        settings = masks.MaskConfig()
        search = temporal_mask.MaskSearch(explanation.Probabilities(built), settings, batch_size=batch)
        scorer = search.on(clips[:1], labels[:1])
        counted = scoring.remembering(scorer)
        mask_search.best_intervals(counted, settings)
        return lambda: mask_search.best_intervals(scorer, settings), 1, int(counted.forwards[0]) * cost["forward"]
    score_fn = (explanation.Probabilities if what == "mask" else _Unrecorded)(built)
    search = temporal_mask.MaskSearch(score_fn, masks.MaskConfig(iterations=_ITERATIONS.value))
    scorer = search.on(clips, labels)
    logits = np.tile(np.linspace(-5, 5, scorer.time), (batch, 1))
    return lambda: scorer.descend(np.arange(batch), logits), batch * _ITERATIONS.value, cost["mask"]


def _profile(work: Callable[[], object], title: str) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        _wait()
    rows = [row for row in profile.key_averages() if row.self_device_time_total]
    total = sum(row.self_device_time_total for row in rows) or 1
    sys.stdout.write(f"{title}: {total / 1e3:.1f} ms on the device\n")
    for row in sorted(rows, key=lambda row: -row.self_device_time_total)[:22]:
        share = row.self_device_time_total / total
        sys.stdout.write(f"  {share:6.1%} {row.count:6d}  {row.key[:110]}\n")
    sys.stdout.flush()


def card() -> dict[str, Any]:
    """Returns what computes."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cudnn": convolution_check.version_name(devices.cudnn_version()),
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "driver": "unknown",
    }
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        pass
    return found


def hours(rows: list[Row]) -> Iterator[tuple[str, float, float]]:
    """Yields what, and the hours of explaining the validation split with all steps, and with stopping."""
    rates = {(row.preset, row.precision, row.what): row for row in rows}
    for (preset, precision, what), mask in rates.items():
        oracle = rates.get((preset, precision, "oracle"))
        if what != "mask" or oracle is None:
            continue
        forwards = oracle.flops / costs.flops(preset_config(preset).model)["forward"]
        whole = costs.STEPS / mask.per_second + 1 / oracle.per_second
        stopping = costs.EVALUATIONS / mask.per_second + costs.COARSE_FORWARDS / (oracle.per_second * forwards)
        yield f"{preset}, {precision}", costs.VALIDATION_CLIPS * whole / 3600, costs.VALIDATION_CLIPS * stopping / 3600


def main(argv: list[str]) -> None:
    """Prints the table, row by row."""
    del argv
    begun = time.perf_counter()
    device = devices.find_device(_DEVICE.value)
    what_is = card()
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in what_is.items()) + "\n")
    product = product_rate(device)
    sys.stdout.write(f"bfloat16 matrix product: {product / 1e12:.0f} TFLOP/s\n")
    sys.stdout.write(
        f"{'model':20} {'what':9} {'precision':9} {'clips':>5} {'per s':>9} {'TFLOP/s':>8} {'share':>6} {'GiB':>5}\n"
    )
    rows: list[Row] = []
    left: list[str] = []
    for precision in _PRECISIONS.value:
        for preset in _PRESETS.value:
            for what in _WHAT.value:
                name = f"{preset} {what} {precision}"
                if time.perf_counter() - begun > _SECONDS.value:
                    left.append(name)
                    continue
                try:
                    row = measure(preset, precision, what)
                except (errors.UserError, torch.OutOfMemoryError) as error:
                    left.append(f"{name} ({errors.first_line(error)})")
                    continue
                rows.append(row)
                tera = row.per_second * row.flops / 1e12
                sys.stdout.write(
                    f"{preset:20} {what:9} {precision:9} {row.batch:5d} {row.per_second:9.1f} {tera:8.2f} "
                    f"{tera * 1e12 / product:6.1%} {row.memory:5.1f}   ({time.perf_counter() - begun:.0f} s)\n"
                )
                sys.stdout.flush()
    computed = [dict(zip(("what", "hours", "hours_with_stopping"), line, strict=True)) for line in hours(rows)]
    for line in computed:
        sys.stdout.write(
            f"computed: {costs.VALIDATION_CLIPS:,} clips, oracle and {costs.STEPS} steps each, {line['what']}: "
            f"{line['hours']:.2f} hours; coarse oracle and {costs.EVALUATIONS} evaluations: "
            f"{line['hours_with_stopping']:.2f} hours\n"
        )
    for name in left:
        sys.stdout.write(f"not measured: {name}\n")
    if _OUT.value:
        found = {
            **what_is,
            "product_flops_per_second": product,
            "rows": [dataclasses.asdict(row) for row in rows],
            "computed": computed,
            "not_measured": left,
        }
        pathlib.Path(_OUT.value).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    commands.run(main)
