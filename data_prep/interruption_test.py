"""What is left when the command, or one of its workers, is stopped in the middle, and what comes of starting again."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from common.launching import Launch
from data_prep import building, videos_for_tests

needs_proc = pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="no /proc")
ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_killed_and_started_again_it_gives_the_same_bytes(tmp_path):
    """Kills the whole command without warning, with one shard finished and with four, then lets it go through."""
    sizes = {f"{split}/a/{n}.avi": 4 + n for split in ("train", "validation") for n in range(4)}
    config = videos_for_tests.folder_config(tmp_path, sizes, launch=Launch(2))
    assert building.prepare(config) == 0
    killed = dataclasses.replace(config, out=tmp_path / "killed")
    for num_shards in (1, 4):
        with started(killed, hold_at=num_shards) as process:
            wait(lambda: len(list(killed.out.glob("*.h5"))) >= num_shards, process)  # noqa: B023
            process.kill()
        assert num_shards <= len(list(killed.out.glob("*.h5"))) < 8
        assert not (killed.out / "dataset.json").exists()
    assert building.prepare(killed) == 0
    assert videos_for_tests.contents(killed.out) == videos_for_tests.contents(config.out)


@needs_proc
def test_workers_end_with_the_command_that_started_them(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {f"a/{n}.avi": 4 for n in range(8)}, launch=Launch(2))
    with started(config, hold_at=0) as process:
        wait(lambda: len(_workers_of(process)) == 2, process)
        workers = _workers_of(process)
        process.kill()
        process.wait()
        wait(lambda: not any(_is_alive(pid) for pid in workers))


def test_ctrl_c_stops_in_the_middle_of_a_shard_and_leaves_only_whole_ones(tmp_path):
    config = videos_for_tests.folder_config(
        tmp_path, {f"a/{n}.avi": 2 for n in range(201)}, launch=Launch(2), clips_per_shard=100
    )
    with started(config) as process:  # Two shards of 20 s at least, and one of a single clip.
        wait(lambda: len(list(config.out.glob("*.tmp"))) == 2, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) == 130
    stderr = (tmp_path / "stderr").read_text()
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert not list(config.out.iterdir())


@needs_proc
def test_a_killed_worker_is_reported(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {f"a/{n}.avi": 4 for n in range(8)}, launch=Launch(2))
    with started(config, hold_at=1) as process:
        wait(lambda: list(config.out.glob("*.h5")), process)
        os.kill(_workers_of(process)[-1], signal.SIGKILL)
        assert process.wait(timeout=120) == 1
    stderr = (tmp_path / "stderr").read_text()
    assert "a worker process died" in stderr and "Traceback" not in stderr
    assert building.prepare(config) == 0


# The command, with clips that take 0.2 s each, and five minutes from so many shards on: what is killed is sure to be in
# the middle of its work, however late the kill comes.
_SLOW = """
import pathlib, sys, time
sys.path[0] = {root!r}
from common.command_line import commands
from common.launching import Launch
from data_prep import building, shard_jobs
def slow(*args, make=shard_jobs._clip):
    time.sleep(300 if len(list(pathlib.Path({out!r}).glob("*.h5"))) >= {hold_at} else 0.2)
    return make(*args)
shard_jobs._clip = slow
if __name__ == "__main__":
    commands.run(lambda argv: building.prepare(building.{config!r}))
"""


@contextlib.contextmanager
def started(config, hold_at=1_000_000):
    """Runs the command in a process group of its own, which is gone at the end; see `_SLOW` for `hold_at`."""
    script = config.out.parent / "command.py"
    text = _SLOW.format(root=str(ROOT), config=config, out=str(config.out), hold_at=hold_at)
    script.write_text(text.replace("PosixPath(", "pathlib.PosixPath("))
    with (config.out.parent / "stderr").open("w") as stderr:
        # A shell that starts the tests in the background has them, and what they start, ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen([sys.executable, script], stderr=stderr, start_new_session=True)
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(condition, process=None):
    deadline = time.monotonic() + 300
    while not condition():
        assert process is None or process.poll() is None, "the command ended early"
        assert time.monotonic() < deadline, "waited five minutes in vain"
        time.sleep(0.005)


def _workers_of(process):
    """Returns the worker processes of a process: its children but the resource tracker."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (path / "cmdline").read_text()
        except (OSError, IndexError):
            continue
        if parent == process.pid and "spawn_main" in command:
            found.append(int(path.name))
    return sorted(found)


def _is_alive(pid):
    try:
        return (pathlib.Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
