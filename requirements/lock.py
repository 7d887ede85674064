"""Writes `requirements.lock` and the locks in this folder from `setup.cfg`; needs `uv` on the path.

    python requirements/lock.py  # Keeps versions that still fit; --upgrade takes the newest.

`requirements.lock` pins everything that any extra needs, for Python 3.10-3.12 on every system: constraints for pip.
`EXTRA.lock` is what one extra needs, at those versions, with the SHA-256 of every file that pip may install.
`cuda.lock` is NVIDIA's part of PyTorch, which PyPI's wheels for Linux want. `cpu.lock` is PyTorch without it; pip must
be given this lock first, where such a wheel can be had, for of two files with known hashes it takes the registry's.
"""

import configparser
import pathlib
import re
import subprocess
import sys

_HERE = pathlib.Path(__file__).resolve().parent
_ROOT = _HERE.parent
_LOCK = _ROOT / "requirements.lock"
_HEADER = "# Written by requirements/lock.py, which says what it is for.\n"
_CUDA = re.compile(r"(nvidia|cuda)-|triton==")
_CPU_WHEELS = {  # PyTorch's own, for machines without a GPU.
    "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl": (
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
    )
}
_NOT_LOCKED = ("tf-gpu",)  # TensorFlow again, under another name.


def main() -> None:
    """Writes all locks; further arguments are uv's."""
    setup = configparser.ConfigParser()
    setup.read(_ROOT / "setup.cfg")
    extras = sorted(set(setup["options.extras_require"]) - set(_NOT_LOCKED))
    _compile(_LOCK, extras, *sys.argv[1:])
    cuda: set[str] = set()
    for extra in extras:
        path = _HERE / f"{extra}.lock"
        _compile(path, [extra], "--generate-hashes", f"--constraint={_LOCK}")
        blocks = re.split(r"^(?=\w)", path.read_text(), flags=re.M)  # A requirement and the lines of its hashes.
        cuda |= {block for block in blocks if _CUDA.match(block)}
        path.write_text("".join(block for block in blocks if not _CUDA.match(block)))
    (_HERE / "cuda.lock").write_text(_HEADER + "".join(sorted(cuda)))
    cpu = (f"{'=='.join(wheel.split('-')[:2])} --hash=sha256:{digest}\n" for wheel, digest in _CPU_WHEELS.items())
    (_HERE / "cpu.lock").write_text(_HEADER + "".join(cpu))


def _compile(path: pathlib.Path, extras: list[str], *more: str) -> None:
    """Writes the requirements of this project with `extras`, pinned; versions that the file holds are preferred."""
    command = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version=3.10",
        "--no-header",
        "--no-annotate",
    ]
    command += [f"--extra={extra}" for extra in extras]
    subprocess.run([*command, f"--output-file={path}", *more, "setup.cfg"], cwd=_ROOT, check=True)
    path.write_text(_HEADER + path.read_text())


if __name__ == "__main__":
    main()
