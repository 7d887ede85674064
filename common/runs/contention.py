"""Notices that other programs take the processor's cores, which slows PyTorch's training more than their share.

Threads of OpenMP wait for each other by spinning. Where one has no core, the others spin until it gets one, and take
the cores that it waits for: 20 steps of the preset conv_lstm_planted took 102 s beside other programs on two cores,
16 s with passive waiting, 12 s with one thread (docs/performance.md).

The kernel counts for each thread how long it was ready to run and had no core (Linux, /proc/self/schedstat); a thread
that waits for a disk or a GPU is not ready, and counts nothing.
"""

import os
import pathlib
import time

from absl import logging

_STEPS = 10  # Between two looks.
_SHARE = 0.3  # Of the time between them: a third is what one other program costs two threads on two cores.
_SCHEDSTAT = pathlib.Path("/proc/self/schedstat")  # Of the main thread: ns on a core, ns waiting for one, times.


class Watch:
    """Tells the user once what helps, if the main thread of a training waits for a core.

    Args:
      framework: "torch", whose threads are OpenMP's, or "tf", which this does nothing for.
    """

    def __init__(self, framework: str) -> None:
        passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
        alone = os.environ.get("OMP_NUM_THREADS") == "1"
        self._on = framework == "torch" and not passive and not alone and _SCHEDSTAT.exists()
        self._steps = 0
        self._look()

    def after_step(self) -> None:
        """Counts a step, and looks at the time of the last ten."""
        self._steps += 1
        if not self._on or self._steps % _STEPS:
            return
        waited, at = self._waited, self._at
        self._look()
        if self._waited - waited > _SHARE * (self._at - at):
            self._on = False
            logging.warning(
                "Other programs take the cores: %.0f %% of the time of ten steps was waiting for one. "
                "Training is faster then with OMP_WAIT_POLICY=passive in the environment (--resume goes on)",
                100 * (self._waited - waited) / (self._at - at),
            )

    def _look(self) -> None:
        if self._on:
            self._waited = int(_SCHEDSTAT.read_text().split()[1]) / 1e9
            self._at = time.monotonic()
