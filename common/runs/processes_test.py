import threading

import numpy as np
import pytest

from common import errors
from common.runs import processes

# For `python -c`, before the path of a build's `train.py` and its flags: the second of two is lost in validation.
LOST_IN_VALIDATION = """
import json, os, runpy, signal, sys

number = json.loads(os.environ["TF_CONFIG"])["task"]["index"] if "TF_CONFIG" in os.environ else int(os.environ["RANK"])
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(os.path.dirname(sys.argv[0]))
from common.runs import prediction

if number == 1:
    prediction.predict = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Threads:
    """Processes that are threads of this one."""

    def __init__(self, rank, count, shared):
        self.rank, self.count, self._shared = rank, count, shared

    def stack(self, array):
        self._shared["arrays"][self.rank] = array
        self._shared["barrier"].wait()
        found = np.stack([self._shared["arrays"][rank] for rank in range(self.count)])
        self._shared["barrier"].wait()
        return found


def together(count, work):
    """Returns what `work` returns in each of so many processes."""
    shared = {"arrays": {}, "barrier": threading.Barrier(count, timeout=300)}
    results = {}

    def run(rank):
        results[rank] = work(Threads(rank, count, shared))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(count)]


def test_arrays_of_different_lengths_are_gathered_in_order():
    for found in together(3, lambda those: processes.gather(those, np.full((those.rank, 2), those.rank))):
        assert found.tolist() == [[1, 1], [2, 2], [2, 2]]
    assert processes.gather(processes.ALONE, np.arange(3)).tolist() == [0, 1, 2]


def test_a_flag_of_one_is_known_to_all():
    assert together(3, lambda those: processes.any_of(those, those.rank == 1, False)) == [[True, False]] * 3
    assert processes.any_of(processes.ALONE, True, False) == [True, False]


def test_processes_that_differ_are_told_in_each_of_them_in_what():
    def refused(those):
        values = {"config": "a", "clips": f"digest {those.rank // 2}", "steps": 3 + those.rank}
        with pytest.raises(errors.UserError) as caught:
            processes.check_same(those, values)
        return str(caught.value)

    (message,) = set(together(3, refused))
    assert message == "All processes must have the same clips, steps. Received: another in process 1 than in process 0"
    assert together(3, lambda those: processes.check_same(those, {"config": "a", "steps": 3})) == [None] * 3
    processes.check_same(processes.ALONE, {"config": "a"})


def test_patience_is_a_number_of_seconds(monkeypatch):
    monkeypatch.delenv("PROCESSES_PATIENCE_SECONDS", raising=False)
    assert processes.patience() == 600
    monkeypatch.setenv("PROCESSES_PATIENCE_SECONDS", "7")
    assert processes.patience() == 7
    monkeypatch.setenv("PROCESSES_PATIENCE_SECONDS", "soon")
    with pytest.raises(errors.UserError, match="must be a whole number of seconds, at least 1. Received: 'soon'"):
        processes.patience()
