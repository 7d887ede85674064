import contextlib
import errno
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from common import errors, locks

ROOT = pathlib.Path(__file__).parents[1]
ENDED = (1 << 31) - 1  # More than any system numbers its processes with.
NO_LOCKS = [errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP]


@contextlib.contextmanager
def another_process(folder):
    """A process that holds the lock until it is killed, here or by its caller."""
    code = f"import pathlib, time\nfrom common import locks\nwith locks.exclusive(pathlib.Path({str(folder)!r})):\n"
    code += "    print('held', flush=True)\n    time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def without_locks(monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def claim(**changes):
    return json.dumps(
        {
            "user": "ann",
            "host": socket.gethostname(),
            "processes": locks._processes(),
            "pid": ENDED,
            "since": "2026-01-01 00:00:00",
            **changes,
        }
    )


def test_a_second_holder_is_refused_until_the_first_is_done(tmp_path):
    with (
        locks.exclusive(tmp_path),
        pytest.raises(errors.UserError, match=rf"written by one run at a time.*\.lock is of process {os.getpid()} of"),
        locks.exclusive(tmp_path),
    ):
        pass
    with locks.exclusive(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


def test_who_waits_gets_it_when_the_first_is_done_and_is_told_whom_it_waits_for(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "absl")
    with contextlib.ExitStack() as first:
        first.enter_context(locks.exclusive(tmp_path))
        polls = iter(range(20))
        monkeypatch.setattr(locks.time, "sleep", lambda seconds: first.close() if next(polls) == 12 else None)
        with locks.exclusive(tmp_path, wait=True):
            assert next(polls) == 13
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Waiting: .lock is of process {os.getpid()} of")
    assert not list(tmp_path.iterdir())


def test_names_in_a_folder_are_held_one_by_one(tmp_path):
    with locks.exclusive(tmp_path), locks.exclusive(tmp_path, ".a.lock"), locks.exclusive(tmp_path, ".b.lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_an_error_inside_is_not_taken_for_a_held_lock(tmp_path):
    with pytest.raises(BlockingIOError), locks.exclusive(tmp_path):
        raise BlockingIOError
    assert not list(tmp_path.iterdir())


def test_another_process_holds_a_folder_until_it_is_killed(tmp_path, caplog):
    with another_process(tmp_path) as process:
        with pytest.raises(errors.UserError, match=f"process {process.pid} of"), locks.exclusive(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / ".lock").exists()
        caplog.set_level("INFO", "absl")
        with locks.exclusive(tmp_path):
            assert f".lock is taken over: it was of process {process.pid} of" in caplog.text
            assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_what_is_locked_is_open_for_writing_as_nfs_wants_it(tmp_path, monkeypatch, caplog):
    def flock(descriptor, operation, system=fcntl.flock):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        system(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.exclusive(tmp_path), pytest.raises(errors.UserError), locks.exclusive(tmp_path):
        pass
    assert not caplog.records


def test_a_lock_that_is_given_up_while_another_opens_it_is_made_anew(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()

    def flock(descriptor, operation, system=fcntl.flock):
        monkeypatch.setattr(fcntl, "flock", system)
        (tmp_path / ".lock").unlink()  # By its holder, just before it lets go.
        system(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.exclusive(tmp_path), pytest.raises(errors.UserError), locks.exclusive(tmp_path):
        pass


def test_other_errors_of_locking_are_raised(tmp_path, monkeypatch):
    without_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), locks.exclusive(tmp_path):
        pass


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_the_file_is_a_claim(tmp_path, monkeypatch, caplog, number):
    without_locks(monkeypatch, number)
    with locks.exclusive(tmp_path):
        (record,) = caplog.records
        assert record.levelname == "WARNING" and "file system without locks" in record.getMessage()
        with locks.exclusive(tmp_path, ".other.lock"):
            assert len(caplog.records) == 1  # Once for a folder.
        with (
            pytest.raises(errors.UserError, match=r"one run at a time.*if that one has ended, remove \.lock"),
            locks.exclusive(tmp_path),
        ):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", NO_LOCKS)
def test_the_claim_of_a_process_that_has_ended_is_taken_over(tmp_path, monkeypatch, caplog, number):
    without_locks(monkeypatch, number)
    (tmp_path / ".lock").write_text(claim())
    with locks.exclusive(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert "taken over: it was of process" in caplog.records[0].getMessage()
    assert not list(tmp_path.iterdir())


def test_a_process_that_has_the_number_of_one_that_ended_is_another(tmp_path, monkeypatch, caplog):
    """As after a restart of the machine, or in a container, where the numbers are few."""
    without_locks(monkeypatch, errno.ENOLCK)
    (tmp_path / ".lock").write_text(claim(pid=os.getppid(), started="never"))
    with locks.exclusive(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["started"] == locks._started(os.getpid()) != ""
    assert f"taken over: it was of process {os.getppid()} of" in caplog.records[0].getMessage()
    (tmp_path / ".lock").write_text(claim(pid=os.getppid(), started=locks._started(os.getppid())))
    with pytest.raises(errors.UserError, match=f"process {os.getppid()} of ann"), locks.exclusive(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "holder"),
    [
        (claim(host="elsewhere"), "of ann on elsewhere, since 2026-01-01 00:00:00"),
        (claim(processes="of another container"), "of ann on"),
        (claim(pid=os.getpid()), "of ann on"),
        (claim(pid=1), "process 1 of ann"),
        (claim(pid=os.getpid(), started=""), "of ann on"),
        *(
            (text, "an unknown process")
            for text in (
                "",
                "{",
                "[" * 900,
                "[1]",
                "{}",
                claim(pid=-1),
                claim(pid=0),
                claim(pid=1 << 40),
                claim(user=1),
                claim(started=1),
            )
        ),
    ],
)
def test_a_claim_that_may_be_alive_is_refused_and_how_to_go_on_is_said(tmp_path, monkeypatch, text, holder):
    without_locks(monkeypatch, errno.ENOLCK)
    (tmp_path / ".lock").write_text(text)
    with (
        pytest.raises(errors.UserError, match=rf"{holder}.*; if that one has ended, remove \.lock$"),
        locks.exclusive(tmp_path),
    ):
        pass
    assert (tmp_path / ".lock").read_text() == text


def test_a_claim_that_another_took_over_first_is_left_to_it(tmp_path, monkeypatch):
    without_locks(monkeypatch, errno.ENOLCK)
    lock = tmp_path / ".lock"
    lock.write_text(claim())

    def set_aside(path, descriptor, ours=locks._set_aside):
        path.rename(tmp_path / "old")
        path.write_text(claim(pid=os.getpid()))
        ours(path, descriptor)

    monkeypatch.setattr(locks, "_set_aside", set_aside)
    with pytest.raises(errors.UserError, match="one run at a time"), locks.exclusive(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "old"]


def test_a_lock_of_a_successor_stays(tmp_path):
    with locks.exclusive(tmp_path):
        (tmp_path / ".lock").unlink()
        (tmp_path / ".lock").write_text("of a successor")
    assert (tmp_path / ".lock").read_text() == "of a successor"


@pytest.mark.parametrize("there", [True, False])
def test_no_lock_is_written_through_a_link(tmp_path, there):
    target, folder = tmp_path / "target", tmp_path / "folder"
    folder.mkdir()
    (folder / ".lock").symlink_to(target)
    if there:
        target.write_text("mine")
    with pytest.raises(OSError, match="symbolic links"), locks.exclusive(folder):
        pass
    assert target.read_text() == "mine" if there else not target.exists()
