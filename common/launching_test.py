import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from common import errors, launching
from common.launching import Launch


@pytest.mark.parametrize("workers", [1, 2])
def test_all_jobs_are_done_and_all_work_is_counted(workers):
    amounts = []
    results = sorted(launching.run(_square, [1, 2, 3], Launch(workers), amounts.append))
    assert results == [1, 4, 9]
    assert sum(amounts) == 1 + 2 + 3


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_raises_comes_through(workers):
    with pytest.raises(errors.UserError, match="A number is positive. Received: 0"):
        list(launching.run(_square, [0, 5, 0], Launch(workers), lambda amount: None))


class TwoPartsError(Exception):
    """One that pickle makes, but cannot make again: it keeps the message alone."""

    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")


def _fail_in_two_parts(job, tick):
    raise TwoPartsError("A fault", f"job {job}")


def test_what_a_job_raises_comes_through_though_it_cannot_be_pickled():
    with pytest.raises(RuntimeError, match=r"^TwoPartsError: A fault in job \d$"):
        list(launching.run(_fail_in_two_parts, [1, 2], Launch(2), lambda amount: None))
    _, raised, _ = launching._run_for_ray(launching.pickle.dumps(_fail_in_two_parts), 3, ".")
    assert str(raised) == "TwoPartsError: A fault in job 3"


def test_no_jobs_give_no_results():
    assert list(launching.run(_square, [], Launch(4), lambda amount: None)) == []


def test_a_process_opens_once_what_all_its_jobs_need():
    found = list(launching.run(_Opening(), range(6), Launch(2), lambda amount: None))
    assert sorted(job for job, _, _ in found) == list(range(6))
    assert 1 <= len({process for _, process, _ in found}) <= 2 and os.getpid() not in {p for _, p, _ in found}
    assert {opened for _, _, opened in found} == {1}


def test_workers_share_the_cores_but_for_what_the_user_has_set(monkeypatch):
    monkeypatch.setattr(launching, "available", lambda: 7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in launching._THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    assert launching._environments(3) == [{"OMP_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2"}] * 3
    assert launching._environments(9)[0]["OMP_NUM_THREADS"] == "1"


def test_each_worker_sees_one_of_several_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [values["CUDA_VISIBLE_DEVICES"] for values in launching._environments(3)] == ["3", "5", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # Which all see anyway.
    assert "CUDA_VISIBLE_DEVICES" not in launching._environments(2)[0]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert [values["CUDA_VISIBLE_DEVICES"] for values in launching._environments(2)] == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9")  # A driver that does not answer.
    assert "CUDA_VISIBLE_DEVICES" not in launching._environments(2)[0]


def test_a_worker_has_its_environment_before_it_loads_what_a_job_needs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    found = list(launching.run(_visible, range(20), Launch(2), lambda amount: None))
    assert set(found) <= {"3", "5"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_workers_that_do_not_come_to_a_tick_are_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(launching, "_PATIENCE", 0.1)
    with pytest.raises(errors.UserError, match="A number is positive"):
        list(launching.run(_square_or_hang, [-1, 0], Launch(2), lambda amount: None))


def test_a_worker_that_is_terminated_has_died_and_leaves_nothing_half_done(tmp_path):
    with pytest.raises(launching.WorkerDiedError, match="a worker process died"):
        list(launching.run(_terminated, [tmp_path / "a", tmp_path / "b"], Launch(2), lambda amount: None))
    assert any(tmp_path.iterdir())


@pytest.fixture
def default_sigterm():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray, in other tests, leaves its own.
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_the_work_as_ctrl_c_does(default_sigterm):
    left = []

    def make(job, tick):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            left.append(job)

    with pytest.raises(SystemExit, match="143"):
        list(launching.run(make, [7, 8], Launch(), lambda amount: None))
    assert left == [7] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


_COMMAND = """
import sys
sys.path[0] = {root!r}
from common import launching, launching_test
if __name__ == "__main__":
    jobs = {jobs!r}
    list(launching.run(launching_test.{job}, jobs, launching.Launch(2), lambda amount: None))
"""


def _command(folder, job, jobs):
    """Returns a script that has two workers do jobs, each by a function of this module."""
    script = folder / "command.py"
    script.write_text(_COMMAND.format(root=str(pathlib.Path(__file__).parents[1]), job=job, jobs=jobs))
    return script


def test_a_worker_that_is_killed_while_it_tells_of_its_work_holds_up_nobody(tmp_path):
    command = [sys.executable, _command(tmp_path, "killed_in_its_tick", [1, 2])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "WorkerDiedError: a worker process died" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_ends_workers_at_their_next_tick_and_the_command(tmp_path, number, code):
    jobs = [str(tmp_path / name) for name in ("a", "b")]
    script = _command(tmp_path, "tick_for_a_minute", jobs)
    # A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, before)
    try:
        while not all(map(os.path.exists, jobs)):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=300) == code
    finally:
        process.kill()
    assert not any(map(os.path.exists, jobs))


def tick_for_a_minute(name, tick):
    file = pathlib.Path(name)
    file.touch()
    try:
        for _ in range(600):
            time.sleep(0.1)
            tick(1)
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 0}, "workers must be at least 1. Received: 0"),
        ({"task": 1}, "task must be 0…num_tasks - 1. Received: task 1 with num_tasks 0"),
        ({"num_tasks": 2, "task": 2}, "Received: task 2 with num_tasks 2"),
        ({"num_tasks": 2, "task": -1}, "Received: task -1 with num_tasks 2"),
        ({"ray": "auto", "workers": 2}, "ray must be given without workers and num_tasks"),
        ({"ray": "auto", "num_tasks": 2}, "ray must be given without workers and num_tasks"),
        ({"unit_cpus": 0}, "unit_cpus must be at least 1, unit_gpus at least 0. Received: 0 and 0"),
        ({"unit_gpus": -0.5}, "Received: 1 and -0.5"),
        ({"unit_gpus": float("nan")}, "Received: 1 and nan"),
    ],
)
def test_launches_that_cannot_be_are_refused(values, message):
    with pytest.raises(errors.UserError, match=message):
        Launch(**values)


def test_where_ray_is_not_installed_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.UserError, match=r"ray must be installed for --ray .* Received: no module of that name"):
        list(launching.run(_square, [1], Launch(ray="local"), lambda amount: None))


def test_gpus_that_ray_hides_from_tasks_are_told(caplog):
    caplog.set_level("INFO", "absl")
    launching._tell_gpus(0, 0)
    launching._tell_gpus(4, 0.5)
    assert not caplog.messages
    launching._tell_gpus(4, 0)
    assert caplog.messages == ["--unit_gpus=0: tasks of Ray do not see the cluster's 4 GPUs."]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_does_all_jobs_and_says_in_one_line_what_it_cannot():
    pytest.importorskip("ray")
    amounts = []
    assert sorted(launching.run(_square, [1, 2, 3], Launch(ray="local"), amounts.append)) == [1, 4, 9]
    assert sum(amounts) == 1 + 2 + 3
    with pytest.raises(errors.UserError, match="^A number is positive. Received: 0$"):
        list(launching.run(_square, [0, 5], Launch(ray="local"), amounts.append))
    for address in ("auto", "127.0.0.1:1", "nowhere:no"):
        with pytest.raises(errors.UserError, match=f"^ray must name a cluster that answers. Received: {address}: .+$"):
            list(launching.run(_square, [1], Launch(ray=address), amounts.append))


def _square(number, tick):
    if not number:
        raise errors.UserError("A number is positive. Received: 0")
    for _ in range(number):
        tick(1)
    return number * number


def _square_or_hang(number, tick):
    if number < 0:
        threading.Event().wait(60)
    return _square(number, tick)


def _terminated(file, tick):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        file.touch()


def killed_in_its_tick(job, tick):
    lines = itertools.count(1)

    def kill_at_second_line(frame, event, argument):
        if event == "line" and next(lines) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return kill_at_second_line

    sys.settrace(lambda frame, event, argument: kill_at_second_line if frame.f_code is tick.__code__ else None)
    tick(1)


def _visible(job, tick):
    return os.environ["CUDA_VISIBLE_DEVICES"]


class _Opening:
    """Counts how often it is made in a process: when it is unpickled, and once here."""

    made = 0

    def __init__(self):
        _Opening.made += 1

    def __reduce__(self):
        return _Opening, ()

    def __call__(self, job, tick):
        return job, os.getpid(), _Opening.made
