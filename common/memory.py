"""How much memory is free, for choosing how many clips go at a time."""

import os
import pathlib
import subprocess

from common import errors

_MEMINFO = pathlib.Path("/proc/meminfo")
_CGROUP = pathlib.Path("/sys/fs/cgroup")


def available() -> int:
    """Returns the bytes that a process can still take: of the machine, or of its container where that has fewer."""
    limits = [_available_to_container()]
    if _MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        limits.append(int(lines["MemAvailable"].split()[0]) << 10)
    else:  # Not Linux: half of all memory is taken for free.
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(limit for limit in limits if limit is not None)


def _available_to_container() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (_CGROUP / "memory.current").read_text(encoding="ascii").strip()
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return None
    # Files that were read stay in memory until it is needed for something else.
    return None if limit == "max" else max(int(limit) - int(used) + int(stat["inactive_file"]), 0)


def available_on_gpu() -> int:
    """Returns the free bytes of the first visible NVIDIA GPU, as its driver says; TensorFlow has no function for it.

    Raises:
      errors.UserError: where the driver's command is not there, fails, or does not know, as for memory that a GPU
        shares with the processor.
    """
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    command += [f"--id={visible}"] if visible else []
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(answer.splitlines()[0]) << 20
    except (OSError, subprocess.CalledProcessError, LookupError, ValueError) as error:
        raise errors.UserError(
            "nvidia-smi must say how much memory of the GPU is free, or --batch how many clips go at a time. "
            f"Received: {error}"
        ) from None
