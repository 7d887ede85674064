import contextlib
import errno
import hashlib
import http.server
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest

from common import errors, files, locks, remote
from common.remote import Cache, Folder

pytest.importorskip("fsspec")
from common import counted_files_for_tests  # noqa: E402


@pytest.fixture(autouse=True)
def counted(tmp_path, monkeypatch):
    counted_files_for_tests.register()
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.txt"))


def fetched():
    """Returns the names of files that were fetched, one as often as it was."""
    return sorted(name for name, sizes in counted_files_for_tests.fetched().items() for _ in sizes)


def make(tmp_path, **sizes):
    """Makes files of these sizes; returns name -> (SHA-256, size)."""
    (tmp_path / "far").mkdir()
    made = {}
    for name, size in sizes.items():
        data = name.encode() * (size // len(name))
        (tmp_path / "far" / name).write_bytes(data)
        made[name] = hashlib.sha256(data).hexdigest(), size
    return made


def folder(tmp_path, size=10**6):
    return Folder(f"counted://{tmp_path / 'far'}", Cache(tmp_path / "near", size / 10**9))


def kept(tmp_path):
    return sorted(path.name[65:] for path in (tmp_path / "near").iterdir() if path.name[64:65] == "-")


def read(where, made, name):
    with where.held(name, *made[name]) as path:
        return path.read_bytes()


def test_a_file_is_fetched_once_and_is_the_same(tmp_path):
    made = make(tmp_path, a=100, b=200)
    where = folder(tmp_path)
    assert read(where, made, "a") == read(where, made, "a") == b"a" * 100
    assert read(folder(tmp_path), made, "b") == b"b" * 200
    assert fetched() == ["a", "b"] and kept(tmp_path) == ["a", "b"]
    assert not [path for path in (tmp_path / "near").iterdir() if path.name.startswith(".")]  # No locks are left.


def test_a_size_that_is_not_known_is_asked_for(tmp_path):
    made = make(tmp_path, a=100)
    with folder(tmp_path).held("a", made["a"][0]) as path:
        assert path.stat().st_size == 100
    with pytest.raises(
        errors.UserError, match="--cache_gb must be at least 1e-07, to hold counted.*/a. Received: 9e-08"
    ):
        with Folder(f"counted://{tmp_path / 'far'}", Cache(tmp_path / "small", 9e-8)).held("a", made["a"][0]):
            pass


@pytest.mark.parametrize("size", [1, 99, 131_133, 10**9, 57_300_000_001])
def test_a_cache_as_large_as_a_message_asks_for_is_large_enough(size):
    with pytest.raises(errors.UserError) as raised:
        Cache(gigabytes=size / 2e9).check_holds(size, "it")
    (least,) = re.findall(r"^--cache_gb must be at least (\S+), to hold it\. Received: ", str(raised.value))
    Cache(gigabytes=float(least)).check_holds(size, "it")
    assert float(least) < size * 1.01 / 1e9


def test_what_was_not_read_for_longest_goes_first(tmp_path):
    made = make(tmp_path, a=100, b=100, c=100, d=200)
    where = folder(tmp_path, 300)
    for name in "abcab":
        read(where, made, name)
        time.sleep(0.05)  # Linux tells times apart that are 10 ms apart, or less.
    assert fetched() == ["a", "b", "c"]
    read(where, made, "d")
    assert kept(tmp_path) == ["b", "d"]
    (tmp_path / "near" / "mine.txt").write_bytes(
        b"x" * 1000
    )  # Not a file of the cache: it counts for nothing, and stays.
    read(where, made, "a")
    assert kept(tmp_path) == ["a", "d"] and (tmp_path / "near" / "mine.txt").exists()


def test_what_is_read_stays_and_a_fetch_waits_for_it(tmp_path):
    made = make(tmp_path, a=100, b=100, c=100)
    where = folder(tmp_path, 200)
    done = []

    def read_c():
        done.append(read(where, made, "c"))

    with where.held("a", *made["a"]) as a, where.held("b", *made["b"]):
        thread = threading.Thread(target=read_c)
        thread.start()
        time.sleep(0.5)
        assert not done and a.read_bytes() == b"a" * 100 and kept(tmp_path) == ["a", "b"]
    thread.join(300)
    assert done == [b"c" * 100] and kept(tmp_path) == ["b", "c"]


def test_what_others_are_fetching_counts_and_what_killed_processes_were_does_not(tmp_path):
    made = make(tmp_path, a=100, b=100)
    near = tmp_path / "near"
    near.mkdir()
    where = folder(tmp_path, 200)
    (near / f".150-{'0' * 64}-x.room").touch()  # Of a process that was killed.
    read(where, made, "a")
    with locks.exclusive(near, f".150-{'0' * 64}-x.room"):
        thread = threading.Thread(target=lambda: read(where, made, "b"))
        thread.start()
        time.sleep(0.5)
        assert fetched() == ["a"]
    thread.join(300)
    assert fetched() == ["a", "b"] and kept(tmp_path) == ["a", "b"]


def _read_all(url, near, made, number):
    counted_files_for_tests.register()
    where = Folder(url, Cache(pathlib.Path(near), 1e-3))
    for name in sorted(made, reverse=bool(number % 2)):
        with where.held(name, *made[name]) as path:
            assert files.sha256(path) == made[name][0]


def test_four_processes_fetch_each_file_once(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTED_SECONDS", "0.1")
    made = make(tmp_path, a=10_000, b=20_000, c=30_000)
    context = multiprocessing.get_context("spawn")
    arguments = f"counted://{tmp_path / 'far'}", str(tmp_path / "near"), made
    processes = [context.Process(target=_read_all, args=(*arguments, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert fetched() == ["a", "b", "c"]


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_that_counts(tmp_path):
    made = make(tmp_path, a=100)
    code = f"""
import pathlib
from common import counted_files_for_tests
from common.remote import Cache, Folder
counted_files_for_tests.register()
where = Folder("counted://{tmp_path / "far"}", Cache(pathlib.Path("{tmp_path / "near"}"), 1e-7))
with where.held("a", *{made["a"]!r}):
    pass
"""
    environment = {**os.environ, "COUNTED_SECONDS": "600"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        while not list((tmp_path / "near").glob(".*.room")):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    assert read(folder(tmp_path, 100), made, "a") == b"a" * 100
    assert [path.name[65:] for path in (tmp_path / "near").iterdir()] == ["a"]


@pytest.mark.parametrize("data", [b"a" * 99, b"a" * 101, b"b" * 100, b""], ids=["short", "long", "other", "empty"])
def test_another_file_than_the_digest_says_is_refused_and_not_kept(tmp_path, data):
    made = make(tmp_path, a=100)
    (tmp_path / "far" / "a").write_bytes(data)
    match = (
        f"must have the SHA-256 in dataset.json, .* and 100 bytes. Received: another of {len(data)} bytes from counted"
    )
    with pytest.raises(errors.UserError, match=match):
        read(folder(tmp_path), made, "a")
    assert list((tmp_path / "near").iterdir()) == []


def test_a_file_that_is_not_there_is_refused_and_nothing_is_left(tmp_path):
    make(tmp_path)
    with pytest.raises(errors.UserError, match="Clips at a URL must be readable. Received: counted.*/a: FileNotFound"):
        read(folder(tmp_path), {"a": ("0" * 64, 1)}, "a")
    assert list((tmp_path / "near").iterdir()) == []
    with pytest.raises(errors.UserError, match="must be readable. Received: counted.*/x: FileNotFoundError"):
        remote.read(f"counted://{tmp_path}/x", 10)
    with pytest.raises(errors.UserError, match="Received: nothing://x: ValueError: Protocol not known"):
        remote.read("nothing://x", 10)


def test_a_full_disk_is_told_as_such_with_the_name_of_the_file(tmp_path, monkeypatch):
    made = make(tmp_path, a=100)

    def full(self, path1, path2, **kwargs):
        pathlib.Path(path2).write_bytes(b"a" * 10)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(counted_files_for_tests.CountedFiles, "get_file", full)
    with pytest.raises(OSError, match="No space left on device: .*-a'") as raised:
        read(folder(tmp_path), made, "a")
    assert raised.value.errno == errno.ENOSPC and list((tmp_path / "near").iterdir()) == []


def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch):
    made = make(tmp_path, a=100)
    monkeypatch.setattr(locks, "take", lambda descriptor, shared=False: None)
    with pytest.raises(errors.UserError, match="--cache_dir must be on a disk with locks. Received: "):
        read(folder(tmp_path), made, "a")


def test_the_folder_of_caches_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().path == tmp_path / "interpreting-video-features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache().path == tmp_path / ".cache" / "interpreting-video-features"
    (tmp_path / ".cache").write_text("a file")
    with pytest.raises(errors.UserError, match="--cache_dir must be a folder that can be made. Received: "):
        with Folder("memory://x", Cache()).held("a", "0" * 64, 1):
            pass
    for size in (0, float("inf"), float("nan")):
        with pytest.raises(errors.UserError, match=f"--cache_gb must be greater than 0 and finite. Received: {size}"):
            Cache(gigabytes=size)


def test_without_a_driver_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(
        errors.UserError, match=r"The driver of a URL must be installed .* Received: http://x: .*aiohttp"
    ):
        remote.read("http://x", 10)


def test_without_fsspec_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(errors.UserError, match=r"fsspec must be installed .* the extra \[remote\]"):
        remote.read("memory://x", 10)


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`, without ranges; writes down what it sent."""

    files: dict[str, bytes] = {}
    sent: list[tuple[str, int]] = []
    answers = threading.Event()  # Until this is set it does not.

    def do_HEAD(self):  # noqa: N802
        self._answer(body=False)

    def do_GET(self):  # noqa: N802
        self._answer(body=True)

    def _answer(self, body):
        self.answers.wait()
        name = self.path.rpartition("/")[2]
        data = self.files.get(name)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if body and data is not None:
            self.sent.append((name, len(data)))
            with contextlib.suppress(ConnectionError):  # Of a client that has gone.
                self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_over_http_each_byte_travels_once(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="needs the extra [remote]")
    _Server.files, _Server.sent = {"a": b"a" * 12_000_000, "x.json": b"{}"}, []
    _Server.answers.set()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/clips"
    digest = hashlib.sha256(_Server.files["a"]).hexdigest()
    try:
        assert remote.read(f"{url}/x.json", 10) == b"{}"
        for size in (12_000_000, None):
            with Folder(url, Cache(tmp_path / "near")).held("a", digest, size) as path:
                assert path.stat().st_size == 12_000_000
        assert _Server.sent == [("x.json", 2), ("a", 12_000_000)]
        with pytest.raises(errors.UserError, match="Received: http.*/gone: .*404"):
            remote.read(f"{url}/gone", 10)
        with monkeypatch.context() as patch:
            _Server.answers.clear()
            patch.setattr(remote, "_PATIENCE", 0.2)
            with pytest.raises(errors.UserError, match="Received: http.*/x.json: .*Timeout"):
                remote.read(f"{url}/x.json", 10)
    finally:
        _Server.answers.set()
        server.shutdown()
        server.server_close()
    with pytest.raises(errors.UserError, match="must be readable. Received: http.*/x.json: ConnectionRefusedError"):
        remote.read(f"{url}/x.json", 10)
