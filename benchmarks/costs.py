"""What Something-something-V2 costs on one GPU, computed: FLOPs of the models over a rate that is assumed.

    python benchmarks/costs.py --rates=181,60 --price=3

    hours = clips * FLOPs of a clip / (rate * 3600)    price = hours * price of an hour

Nothing is measured here, and no GPU or framework is needed; `benchmarks/gpu.py` measures what of the rate a card gives.
The FLOPs are those of convolutions and dense layers, 2 for a multiply-add (`common/models/architectures.py`). In
training: thrice the forward pass, without the gradient in the clip, and a forward pass of each validation clip after
each epoch. In explaining: two forward passes a step of the mask search, one an interval of the oracle, each without the
first convolution, which is taken once for a clip. The rest (reading clips, batch norm, pools, Grad-CAM, half a dozen
final scores) is left out: a rate that was measured over all of it has it in.
"""

import math
import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import errors, tables
from common.command_line import commands
from common.explaining import masks
from common.models import architectures, configs
from common.tables import Column, Table

_RATES = flags.DEFINE_list("rates", ["181", "60"], "TFLOP/s that are sustained, assumed.")
_PRICE = flags.DEFINE_float("price", 3.0, "Of an hour of one GPU, assumed, in any currency.", lower_bound=0)
_PRESETS = flags.DEFINE_list("presets", ["i3d_something", "conv_lstm_something"], "Which models.")

TRAIN_CLIPS, VALIDATION_CLIPS = 168_913, 24_777  # Of Something-something-V2.
STEPS = masks.MaskConfig.iterations  # The paper's mask search.
EVALUATIONS, COARSE_FORWARDS = 35, 40  # Until a mask has converged, and of its coarse oracle (docs/performance.md).


class Job(NamedTuple):
    """Something to do with the whole data set.

    Attributes:
      name: of its row.
      clips: that it goes through.
      steps: of training, or of mask searches, one clip each; None where there are none.
      flops: in all.
    """

    name: str
    clips: int
    steps: int | None
    flops: int


def flops(config: configs.ModelConfig) -> dict[str, int]:
    """Returns the FLOPs of one clip by what is done, and of a forward pass after the first convolution."""
    rows = architectures.layers(config)
    total = sum(row.flops for row in rows)
    kernel = next(iter(rows[0].weights.values()))
    first = 2 * math.prod(rows[0].output_shape[:3]) * math.prod(kernel.shape)
    return {"train": 3 * total - first, "evaluate": total, "mask": 2 * (total - first), "forward": total - first}


def jobs(name: str) -> Iterator[Job]:
    """Yields what there is to do with a preset, on Something-something-V2."""
    config = configs.PRESETS[name]
    costs, clips = flops(config.model), VALIDATION_CLIPS
    epoch = TRAIN_CLIPS * costs["train"] + clips * costs["evaluate"]
    steps = math.ceil(TRAIN_CLIPS / config.batch_size) * config.epochs
    yield Job(f"training, {config.epochs} epochs", TRAIN_CLIPS, steps, config.epochs * epoch)
    yield Job("evaluation, forward and reversed", clips, None, 2 * clips * costs["evaluate"])
    intervals = len(masks.intervals(config.model.input_shape[0]))
    for how, forwards, each in (
        (f"explanation, {STEPS} steps and {intervals} intervals", intervals, STEPS),
        ("explanation, coarse oracle, until converged", COARSE_FORWARDS, EVALUATIONS),
    ):
        one = costs["evaluate"] + forwards * costs["forward"] + each * costs["mask"]
        yield Job(how, clips, clips * each, clips * one)


def table(presets: list[str], rates: list[float], price: float) -> Table:
    """Returns hours and price of each preset's jobs.

    Args:
      presets: names of presets.
      rates: FLOP/s.
      price: of an hour.
    """
    columns = [Column("computed"), Column("clips", ",d"), Column("steps", ",d"), Column("EFLOP", ".3f")]
    for rate in rates:
        columns += [Column(f"hours at {rate / 1e12:g} TFLOP/s", ".2f"), Column(f"at {price:g} an hour", ".2f")]
    rows = []
    for preset in presets:
        errors.check_choice("presets", preset, configs.PRESETS)
        for job in jobs(preset):
            hours = [job.flops / rate / 3600 for rate in rates]
            amounts = [amount for each in hours for amount in (each, each * price)]
            rows.append((f"{preset}: {job.name}", job.clips, job.steps, job.flops / 1e18, *amounts))
    return Table(columns, rows)


def _rates() -> list[float]:
    try:
        rates = [float(rate) * 1e12 for rate in _RATES.value]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise errors.UserError(f"--rates must be numbers above 0. Received: {','.join(_RATES.value)}")
    return rates


def main(_: list[str]) -> None:
    """Prints the table."""
    sys.stdout.write(tables.write_text(table(_PRESETS.value, _rates(), _PRICE.value)) + "\n")


if __name__ == "__main__":
    commands.run(main)
