"""The steps of a mask search on a GPU: recorded once as a CUDA graph, and replayed.

A step launches about a thousand kernels. A graph launches them at once, but is of one number of clips and reads and
writes memory that stays where it is. So what a step takes is copied to where its graph reads it, and batches are filled
up to one of few sizes: as clips converge, their number falls from step to step. (cuDNN, too, tries its algorithms
anew for every size.)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from absl import logging

# (prepared clips [n, …], targets [n], values [n, …] …) -> tensors [n, …]; a row depends on that row alone.
Step = Callable[..., Sequence[torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Recording:
    """A step on tensors that stay where they are.

    Attributes:
      inputs: targets and values; what is to be computed is written here.
      outputs: what was computed; valid until the next replay.
      replay: computes.
    """

    inputs: Sequence[torch.Tensor]
    outputs: Sequence[torch.Tensor]
    replay: Callable[[], object]


class Replayer:
    """Runs steps on prepared clips that it holds.

    Args:
      recorded: whether steps are recorded as CUDA graphs. They must be free of synchronisation, and of choices that
        depend on values. Otherwise they run as they are, and only the sizes of batches are few.
    """

    def __init__(self, recorded: bool) -> None:
        self._recorded = recorded
        self._prepared = self._held = torch.empty(0)
        self._recordings: dict[tuple[Step, int], Recording] = {}
        self._pool: Any = None  # A handle, whose type is PyTorch's own.

    def hold(self, prepared: torch.Tensor) -> torch.Tensor:
        """Copies prepared clips [n, …] to where steps read them, instead of those held before; returns them there."""
        kept, size = self._prepared, padded_size(len(prepared))
        if len(kept) < size or (kept.shape[1:], kept.dtype) != (prepared.shape[1:], prepared.dtype):
            self._recordings.clear()  # They read the old place; its memory is needed.
            self._prepared = self._held = kept = torch.empty(0)
            self._prepared = prepared.new_zeros(size, *prepared.shape[1:])
        self._held = self._prepared[: len(prepared)]
        self._held.copy_(prepared)
        return self._held

    def holds(self, prepared: torch.Tensor) -> bool:
        """Returns whether what `hold` returned is still what it holds."""
        return prepared is self._held

    def run(self, step: Step, targets: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns what a step computes of the clips that are held.

        Args:
          step: to run; the same object whenever it is the same step.
          targets: int64 [n].
          values: what else it takes, [n, …] each.
        """
        count, size = len(targets), padded_size(len(targets))
        recording = self._recordings.get((step, size))
        given = (targets, *values)
        if recording is None:
            inputs = [value.new_zeros(size, *value.shape[1:]) for value in given]
            _fill(inputs, given)
            recording = self._recordings[step, size] = self._record(step, self._prepared[:size], inputs)
        else:
            _fill(recording.inputs, given)
        recording.replay()
        return tuple(output[:count].clone() for output in recording.outputs)

    def _record(self, step: Step, prepared: torch.Tensor, inputs: Sequence[torch.Tensor]) -> Recording:
        if not self._recorded:
            return _as_it_is(step, prepared, inputs)
        # Once before: cuDNN tries its algorithms, libraries take their workspaces, constants are made.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(prepared, *inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # What is computed on the way may share memory between graphs, since one replays at a time; outputs are kept.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = step(prepared, *inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logging.warning("The steps are not recorded as a CUDA graph: %s", str(error).partition("\n")[0])
            self._recorded = False
            return _as_it_is(step, prepared, inputs)
        return Recording(inputs, outputs, graph.replay)


def _as_it_is(step: Step, prepared: torch.Tensor, inputs: Sequence[torch.Tensor]) -> Recording:
    outputs: list[torch.Tensor] = []

    def replay() -> None:
        outputs[:] = step(prepared, *inputs)

    return Recording(inputs, outputs, replay)


def _fill(inputs: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for place, value in zip(inputs, values, strict=True):
        place[: len(value)].copy_(value)


def padded_size(count: int) -> int:
    """Returns the least of 1, 2, 3, 4, 6, 8, 12, 16, 24 … that is not below `count`."""
    unit = 1 << max(count.bit_length() - 2, 0)
    return -(-count // unit) * unit
