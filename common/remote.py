"""Files at a URL: fsspec opens it, and what is read is kept on a local disk, in a cache of bounded size.

    CACHE/SHA256-NAME             a file that has this SHA-256, whatever URL it came from
    CACHE/.SHA256-NAME.lock       held by the process that fetches it
    CACHE/.SIZE-SHA256-NAME.room  held by the same: SIZE bytes are reserved

All processes of a machine share the cache. Each file is fetched once, however many ask for it, and appears under its
name when it is whole and has its digest. A reader holds a shared lock on it. Where room is needed, the files go first
that were not read for longest, and none that a reader holds; a fetch waits until there is room.

fsspec (https://filesystem-spec.readthedocs.io) is imported where a URL is read, and nowhere else.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

from common import errors, files, locks

_GIGABYTE = 10**9
_POLL = 0.2  # Seconds between looks at a cache that is full of what others read or fetch.
_PATIENCE = 60  # Seconds without a byte from a server.
_MOMENT = 0.01  # Seconds for which a file is locked while it is published or removed.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_KEPT = re.compile(r"[0-9a-f]{64}-.+")
_ROOM = re.compile(r"\.(\d+)-([0-9a-f]{64}-.+)\.room")


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where files are kept.

    Attributes:
      folder: on a local disk, for several URLs and processes; None for `interpreting-video-features` in the user's
        folder of caches (XDG_CACHE_HOME, ~/.cache).
      gigabytes: that it may hold, of 10^9 bytes.
    """

    folder: pathlib.Path | None = None
    gigabytes: float = 20.0

    def __post_init__(self) -> None:
        if not self.gigabytes > 0:
            raise errors.UserError(f"--cache_gb must be greater than 0. Received: {self.gigabytes:g}")

    @property
    def path(self) -> pathlib.Path:
        """The folder."""
        if self.folder is not None:
            return self.folder
        try:
            caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        except RuntimeError as error:  # A user without a home.
            raise errors.UserError(f"--cache_dir must name a folder here. Received: none: {error}") from None
        return caches / "interpreting-video-features"

    def check_holds(self, size: int, what: str) -> None:
        """Refuses what the cache cannot hold.

        Args:
          size: of it, in bytes.
          what: it is, for the message.
        """
        if size > self.gigabytes * _GIGABYTE:
            last = 10 ** max(len(str(size)) - 3, 0)  # Of three digits, rounded up so that it is enough.
            least = -(-size // last) * last / _GIGABYTE
            raise errors.UserError(
                f"--cache_gb must be at least {least:.3g}, to hold {what}. Received: {self.gigabytes:g}"
            )


DEFAULT = Cache()


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder at a URL.

    Attributes:
      url: of it, without a slash at the end.
      cache: where its files are kept.
    """

    url: str
    cache: Cache

    @contextlib.contextmanager
    def held(self, name: str, sha256: str, size: int | None = None) -> Iterator[pathlib.Path]:
        """Yields the local path of a file, where it stays until the end of the block; fetches it first if need be.

        Args:
          name: of the file in the folder.
          sha256: that it must have, in hex.
          size: that it must have, in bytes; None: that the URL says.

        Raises:
          errors.UserError: for a file that cannot be fetched, is not what it must be, or is larger than the cache.
          OSError: where the cache cannot be written.
        """
        path = self.cache.path / f"{sha256}-{name}"
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except (FileNotFoundError, NotADirectoryError):
                self._fetch(name, path, sha256, size)
                continue
            try:
                taken = locks.take(descriptor, shared=True)
                if taken is None:
                    raise errors.UserError(f"--cache_dir must be on a disk with locks. Received: {path.parent}")
                if taken and locks.is_named(descriptor, path):
                    os.utime(descriptor)
                    yield path
                    return
            finally:
                os.close(descriptor)
            time.sleep(_MOMENT)  # It has just been published, or is being removed.

    def _fetch(self, name: str, path: pathlib.Path, sha256: str, size: int | None) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(
                f"--cache_dir must be a folder that can be made. Received: {path.parent}: {error}"
            ) from None
        with locks.exclusive(path.parent, f".{path.name}.lock", wait=True):
            if path.exists():  # Another process has fetched it in the meantime.
                return
            url = f"{self.url}/{name}"
            size = _size(url) if size is None else size
            self.cache.check_holds(size, url)
            with _room(self.cache, path, size), files.written_whole(path) as temporary:
                with _reading(url) as (system, place):
                    system.get_file(place, str(temporary))
                came = temporary.stat().st_size
                if came != size or files.sha256(temporary) != sha256:
                    raise errors.UserError(
                        f"A file of a clip store must have the SHA-256 in dataset.json, {sha256[:8]}…, and {size} "
                        f"bytes. Received: another of {came} bytes from {url}"
                    )


@contextlib.contextmanager
def _room(cache: Cache, path: pathlib.Path, size: int) -> Iterator[None]:
    """Makes room for a file, waiting for others if need be, and holds it during the block."""
    while True:
        with locks.exclusive(path.parent, wait=True), contextlib.ExitStack() as stack:
            if _make_room(path.parent, int(cache.gigabytes * _GIGABYTE) - size):
                stack.enter_context(locks.exclusive(path.parent, f".{size}-{path.name}.room"))
                held = stack.pop_all()
                break
        time.sleep(_POLL)
    with held:
        yield


def _make_room(folder: pathlib.Path, most: int) -> bool:
    """Removes the files that were not read for longest until those in a cache have `most` bytes; returns whether."""
    kept: dict[str, os.stat_result] = {}
    spoken_for: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            room = _ROOM.fullmatch(entry.name)
            with contextlib.suppress(FileNotFoundError):
                if _KEPT.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    kept[entry.name] = entry.stat(follow_symlinks=False)
                elif room and not _remove_unless_held(entry.path):  # Else of a process that was killed.
                    spoken_for[room[2]] = int(room[1])
    waiting = sum(size for name, size in spoken_for.items() if name not in kept)
    if waiting > most:
        return False
    total = waiting + sum(stat.st_size for stat in kept.values())
    for name in sorted(kept, key=lambda name: kept[name].st_mtime_ns):
        if total <= most:
            break
        if _remove_unless_held(folder / name):
            total -= kept[name].st_size
    return total <= most


def _remove_unless_held(path: pathlib.Path | str) -> bool:
    """Removes a file unless a process holds a lock on it; returns whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        taken = locks.take(descriptor)
        if taken:
            os.unlink(path)
        return bool(taken)
    finally:
        os.close(descriptor)


def read(url: str, most: int) -> bytes:
    """Returns the bytes of a small file at a URL, which is not kept.

    Args:
      url: of the file.
      most: bytes that are read.

    Raises:
      errors.UserError: where it cannot be read.
    """
    with _reading(url) as (system, place), system.open(place, "rb") as file:
        return file.read(most)


def _size(url: str) -> int:
    with _reading(url) as (system, place):
        size = system.size(place)
    if size is None:
        raise errors.UserError(f"A server must say how large a file is. Received: {url}, of no size")
    return int(size)


@contextlib.contextmanager
def _reading(url: str) -> Iterator[tuple[Any, str]]:
    """Yields fsspec's file system for a URL, and what that calls the file; whatever goes wrong with it is one line."""
    try:
        import fsspec
    except ImportError:
        raise errors.UserError(
            "fsspec must be installed for clips at a URL (pip install fsspec, the extra [remote]). "
            "Received: no module of that name"
        ) from None
    try:
        yield fsspec.core.url_to_fs(url, **_options(url))
    except ImportError as error:
        raise errors.UserError(
            f"The driver of a URL must be installed (the extra [remote] has http's). Received: {url}: {error}"
        ) from None
    except Exception as error:  # Drivers raise errors of many libraries.
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise  # The local disk's.
        cause: BaseException = error
        while cause.__cause__:  # fsspec says "not found" where no server answers.
            cause = cause.__cause__
        raise errors.UserError(
            f"Clips at a URL must be readable. Received: {url}: {type(cause).__name__}: {errors.first_line(cause)}"
        ) from None


def _options(url: str) -> dict[str, Any]:
    """Returns what fsspec's driver must be told: aiohttp would end any download after five minutes."""
    if not url.startswith(("http://", "https://")):
        return {}
    import aiohttp

    return {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=_PATIENCE)}
