"""The same file, byte for byte, from one process, two workers, two tasks of which one is killed, and Ray."""

import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from common import errors, units
from common.explaining import explanation_loop, explanation_parts
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanation_loop_for_tests import MASK, NumpyExplainer, seven_clips
from common.launching import Launch
from common.runs.run_directory import RunDirectory

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ["000000.h5", "000001.h5", "000002.h5", "000003.h5"]  # Of seven clips, two at a time.


def make_explainer(classifier, mask, cam, precision, on_step):
    return NumpyExplainer(on_step)


def make_slow_explainer(classifier, mask, cam, precision, on_step):
    explainer = NumpyExplainer(on_step)
    probabilities = explainer.probabilities
    explainer.probabilities = lambda frames: time.sleep(0.5) or probabilities(frames)
    return explainer


def make_held_explainer(classifier, mask, cam, precision, on_step):
    """One that does not come to the end of its second part, for a kill that comes late."""
    explainer = NumpyExplainer(on_step)
    probabilities = explainer.probabilities
    explainer.probabilities = lambda frames: signal.pause() if explainer.calls else probabilities(frames)
    return explainer


def explain(folder, out, launch, make=make_explainer):
    settings = ExplainSettings(folder, mask=MASK, batch_size=2, out=out)
    return explanation_loop.explain(settings, make, launch=launch)[0]


@pytest.fixture
def whole(tmp_path):
    """The run's folder, a file that is to be made, and the bytes that it must have."""
    folder = seven_clips(tmp_path).path
    explain(folder, tmp_path / "whole.h5", Launch())
    return folder, tmp_path / "out.h5", (tmp_path / "whole.h5").read_bytes()


def test_two_workers_make_the_same_file(whole):
    folder, out, expected = whole
    assert len(explain(folder, out, Launch(2))) == 7
    assert out.read_bytes() == expected
    assert not list(out.parent.glob("*.parts")) and not list(out.parent.glob(".*.lock"))


def test_two_tasks_make_the_same_file_and_the_last_one_joins(whole):
    folder, out, expected = whole
    with pytest.raises(units.UnfinishedError, match="out.h5: 2 of 4 units left to other tasks"):
        explain(folder, out, Launch(num_tasks=2, task=1))
    parts = out.with_name("out.h5.parts")
    assert sorted(path.name for path in parts.iterdir()) == [PARTS[1], PARTS[3], "plan.json"]
    with pytest.raises(units.UnfinishedError):  # Its share is there already.
        explain(folder, out, Launch(num_tasks=2, task=1))
    assert len(explain(folder, out, Launch(num_tasks=2, task=0))) == 7
    assert out.read_bytes() == expected and not parts.exists()
    assert len(explain(folder, out, Launch(num_tasks=2, task=1))) == 7  # It is there already.


def test_a_task_of_other_settings_is_refused(whole):
    folder, out, _ = whole
    with pytest.raises(units.UnfinishedError):
        explain(folder, out, Launch(num_tasks=2, task=1))
    settings = ExplainSettings(folder, mask=MASK, batch_size=2, target="label", limit=4, out=out)
    with pytest.raises(errors.UserError, match=r"out.h5.parts, which differs in target"):
        explanation_loop.explain(settings, make_explainer, launch=Launch(num_tasks=2, task=0))


def test_a_task_that_is_killed_and_run_again_while_the_other_works(whole):
    folder, out, expected = whole
    parts = out.with_name("out.h5.parts")
    with started(folder, out, 0, make_held_explainer) as killed, started(folder, out, 1) as other:
        wait(lambda: (parts / PARTS[0]).exists() and (parts / f".{PARTS[2]}.lock").exists(), killed)
        killed.send_signal(signal.SIGKILL)  # In the middle of its second part.
        assert killed.wait() == -signal.SIGKILL
        assert (parts / f".{PARTS[2]}.lock").exists() and not (parts / PARTS[2]).exists()
        assert other.wait(timeout=600) == 0
    assert not out.exists()
    with started(folder, out, 0) as again:
        assert again.wait(timeout=600) == 0
    assert out.read_bytes() == expected
    assert not parts.exists() and not list(out.parent.glob(".*.lock"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_makes_the_same_file_though_a_node_is_lost_in_the_middle(whole):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    folder, out, expected = whole
    parts = out.with_name("out.h5.parts")
    cluster = cluster_utils.Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)

        def lose():  # While it and the head make a part each.
            while len(list(parts.glob(".*.h5.lock"))) < 2:
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)

        losing = threading.Thread(target=lose, daemon=True)
        losing.start()
        assert len(explain(folder, out, Launch(ray=cluster.address), make_slow_explainer)) == 7
        losing.join(timeout=60)
        assert not losing.is_alive()
    finally:
        cluster.shutdown()
    assert out.read_bytes() == expected and not parts.exists()


def started(folder, out, task, make=make_slow_explainer):
    """A process that is one of two tasks, and takes its time over each part, or has another explainer."""
    code = f"""
import pathlib, sys
sys.path[0] = {str(ROOT)!r}
from common.explaining import explanation_launch_test as test
launch = test.Launch(num_tasks=2, task={task})
try:
    test.explain(pathlib.Path({str(folder)!r}), pathlib.Path({str(out)!r}), launch, test.{make.__name__})
except test.units.UnfinishedError:
    pass
"""
    return subprocess.Popen([sys.executable, "-c", code])


def wait(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the task ended early"
        assert time.monotonic() < deadline, "waited five minutes in vain"
        time.sleep(0.01)


def test_a_worker_of_another_version_refuses_the_part(whole):
    folder, out, _ = whole
    settings = ExplainSettings(RunDirectory(folder).path, mask=MASK, out=out)
    maker = explanation_loop._PartMaker(settings, make_explainer, explanation_loop.subjects.load_none)
    header = {**maker.header, "versions": {"numpy": "0.1"}}
    part = explanation_parts.Part(out.parent / "000000.h5", maker.store.labels[:1], header)
    with pytest.raises(errors.UserError, match="which differs in versions"):
        maker(part, lambda clips: None)
