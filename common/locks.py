"""One writer at a time for a folder, or for a file in it, on local and on network file systems.

The lock is a file, opened for writing: NFS has no exclusive locks for what is open for reading only, and folders cannot
be opened in another way. The system gives a lock back when its process ends, however it ends; the file says who holds
it, and is removed with it.

Some file systems have no locks at all (NFS without its lock service, many FUSE ones). There the file itself is the
claim, made so that of two processes only one can make it. A process that is killed leaves it behind; the next one takes
it over if it can tell that the process has ended, which it can on the same machine only.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import secrets
import socket
import time
from collections.abc import Iterator

from absl import logging

from common import errors

try:
    import fcntl
except ImportError:  # Windows: claims only.
    fcntl = None  # type: ignore[assignment]

# What `flock` answers where there are no locks; EBADF comes from NFS.
_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_RECORD_BYTES = 1000  # At most, of the file.
_told: set[pathlib.Path] = set()  # Folders without locks that this process has warned about.
_POLL = 0.2  # Seconds between looks at a lock that another process holds.
_POLLS_BEFORE_TOLD = 10


@dataclasses.dataclass(frozen=True)
class _Owner:
    """Who holds a lock, as its file says in JSON.

    Attributes:
      user: name, or number where there is none.
      host: name of the machine.
      processes: which processes `pid` counts; containers of one host count their own.
      pid: of the process.
      since: local time.
      started: when the process began, as the system counts: another one may have its number later. "" where the
        system does not say.
    """

    user: str
    host: str
    processes: str
    pid: int
    since: str
    started: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.since}"

    def has_ended(self) -> bool:
        """Returns whether the process is known to have ended; of another machine's nothing is known."""
        if fcntl is None or (self.host, self.processes) != (socket.gethostname(), _processes()):
            return False
        try:
            os.kill(self.pid, 0)  # Sends nothing.
        except ProcessLookupError:
            return True
        except PermissionError:  # Another user's.
            pass
        return bool(self.started) and _started(self.pid) not in ("", self.started)


class HeldError(errors.UserError):
    """Another process holds what a lock stands for.

    Attributes:
      holder: what its lock file says of it, and what to do if it has ended without a trace.
    """

    def __init__(self, path: pathlib.Path, holder: str) -> None:
        super().__init__(
            f"A folder must be written by one run at a time. Received: {path.parent}, where one is at work: {holder}"
        )
        self.holder = holder


@contextlib.contextmanager
def exclusive(folder: pathlib.Path, name: str = ".lock", wait: bool = False) -> Iterator[None]:
    """Holds a folder, or what `name` stands for in it, against other processes; ends with this one, however it ends.

    Args:
      folder: exists.
      name: of the lock file, which is made in the folder and removed at the end.
      wait: whether to wait until another process gives it up; after two seconds a message says so.

    Raises:
      HeldError: where another process holds it, unless it waits.
      OSError: where the lock file cannot be written, or is a link.
    """
    path = folder / name
    descriptor = _hold_after_others(path) if wait else _hold(path)
    try:
        _write_owner(descriptor)
        yield
    finally:
        if is_named(descriptor, path):  # Not a successor's, after somebody removed ours.
            path.unlink(missing_ok=True)
        os.close(descriptor)


def take(descriptor: int, shared: bool = False) -> bool | None:
    """Locks an open file for this process until it is closed; never waits.

    Args:
      descriptor: open for writing; for a shared lock, for reading.
      shared: whether others may hold it, too, if they share it.

    Returns:
      True: it is locked. False: another process, or another descriptor, holds it. None: there are no locks here.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # Either, where locks of files are made of locks of bytes.
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def is_named(descriptor: int, path: pathlib.Path) -> bool:
    """Returns whether a path is the name of an open file: not of another one, of a link or of nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _hold_after_others(path: pathlib.Path) -> int:
    """Waits as long as another process holds the lock file, and then returns what `_hold` does."""
    polls = 0
    while True:
        try:
            return _hold(path)
        except HeldError as held:
            polls += 1
            if polls == _POLLS_BEFORE_TOLD:
                logging.info("Waiting: %s", held.holder)
            time.sleep(_POLL)


def _hold(path: pathlib.Path) -> int:
    """Returns a descriptor of the lock file, which is this process's from now on."""
    while True:
        made = True
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            made = False
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # It has just been given up.
        try:
            if _is_ours(path, descriptor, made):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_ours(path: pathlib.Path, descriptor: int, made: bool) -> bool:
    """Returns whether an open lock file is this process's now; False where it is nobody's and must be made anew.

    Args:
      path: of the file.
      descriptor: of the file.
      made: whether this process made it.

    Raises:
      HeldError: where it is another process's.
    """
    taken = take(descriptor)
    owner = None if made else _read_owner(descriptor)
    if taken:
        named = is_named(descriptor, path)  # Between opening and locking, its holder may have removed it.
        if named and owner is not None:
            logging.info("%s is taken over: it was of %s, which has ended.", path, owner)
        return named
    if taken is None and made:
        if path.parent not in _told:
            logging.warning("%s is on a file system without locks: that it is there keeps others out.", path)
            _told.add(path.parent)
        return True
    if taken is None and owner is not None and owner.has_ended():
        logging.warning("%s is taken over: it was of %s, which has ended.", path, owner)
        _set_aside(path, descriptor)
        return False
    way_out = "" if taken is False else f"; if that one has ended, remove {path.name}"
    raise HeldError(path, f"{path.name} is of {owner or 'an unknown process'}{way_out}")


def _set_aside(path: pathlib.Path, descriptor: int) -> None:
    """Removes the claim that is open; another process may have done so, and have made its own in its place."""
    aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if is_named(descriptor, aside):
            aside.unlink()
        else:
            aside.rename(path)


def _write_owner(descriptor: int) -> None:
    owner = _Owner(
        os.environ.get("USER") or str(getattr(os, "getuid", int)()),
        socket.gethostname(),
        _processes(),
        os.getpid(),
        time.strftime("%Y-%m-%d %H:%M:%S"),
        _started(os.getpid()),
    )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(dataclasses.asdict(owner)).encode(), 0)


def _read_owner(descriptor: int) -> _Owner | None:
    """Returns what a lock file says; None where it says nothing that can be believed."""
    try:
        owner = _Owner(**json.loads(os.pread(descriptor, _RECORD_BYTES, 0)))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (owner.user, owner.host, owner.processes, owner.since, owner.started)
    if not all(isinstance(text, str) for text in texts) or type(owner.pid) is not int or not 0 < owner.pid < 1 << 31:
        return None
    return owner


def _processes() -> str:
    """Returns the name of the processes that this one counts among; "" where there are no others."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Returns when a process began, in ticks since the machine did; "" where the system does not say."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # Field 22; the name before it, in parentheses, may hold anything.
