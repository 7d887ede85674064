import os
import sys

import pytest

from common import errors, memory

_ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Sizes of the machine are read from Linux' /proc.")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 5000 KiB to take, and the folder that tells of its container."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(
        "MemTotal:        8000 kB\nMemFree:         1000 kB\nMemAvailable:    5000 kB\nHugePages_Total:  0\n"
    )
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    return tmp_path


def write_container(folder, limit, used, inactive_file=0):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\nfile 300\ninactive_file {inactive_file}\nactive_file 200\n")


@_ON_LINUX
def test_this_machine_has_some_and_not_more_than_all():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.available() < total


def test_without_a_container_it_is_the_machines(machine):
    assert memory.available() == 5000 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "inactive_file", "expected"),
    [
        (3000, 1000, 0, 2000),
        (3000, 1000, 400, 2400),  # Files that were read give way.
        (3000, 3000, 0, 0),
        (3000, 3001, 0, 0),
        (10_000_000_000, 1000, 0, 5000 * 1024),
        ("max", 1000, 0, 5000 * 1024),
    ],
)
def test_a_container_has_its_limit_or_what_the_machine_has(machine, limit, used, inactive_file, expected):
    write_container(machine, limit, used, inactive_file)
    assert memory.available() == expected


def test_a_system_that_does_not_tell_has_half_of_all(machine, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", machine / "nowhere")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert memory.available() == 4096 * 500


@pytest.mark.skipif(sys.platform == "win32", reason="The driver's command is a shell script here.")
@pytest.mark.parametrize(
    ("visible", "asked"), [(None, []), ("", []), ("3", ["--id=3"]), ("GPU-a1b2,0", ["--id=GPU-a1b2"])]
)
def test_a_gpu_has_what_its_driver_tells(tmp_path, monkeypatch, visible, asked):
    command = tmp_path / "nvidia-smi"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nprintf "40123\\n512\\n"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert memory.available_on_gpu() == 40123 * 2**20
    arguments = (tmp_path / "asked").read_text().split()
    assert arguments == ["--query-gpu=memory.free", "--format=csv,noheader,nounits", *asked]


@pytest.mark.skipif(sys.platform == "win32", reason="The driver's command is a shell script here.")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("printf '[N/A]\\n'", r"or --batch how many clips go at a time\. Received: invalid literal .* '\[N/A\]'"),
        ("exit 9", "Received: .* returned non-zero exit status 9"),
        ("true", "Received: list index out of range"),
        (None, "Received: .*No such file or directory: 'nvidia-smi'"),
    ],
)
def test_a_driver_that_does_not_tell_is_one_line(tmp_path, monkeypatch, script, message):
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.UserError, match=message):
        memory.available_on_gpu()
