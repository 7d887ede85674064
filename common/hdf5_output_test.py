import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from common import hdf5_output

FULL = """
import pathlib, resource, sys
import h5py, numpy as np
from common import hdf5_output
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
checked = 0
try:
    with hdf5_output.created(pathlib.Path(sys.argv[1])) as (file, check):
        frames = file.create_dataset("frames", (0, 100, 100), np.uint8, chunks=(1, 100, 100), maxshape=(None, 100, 100))
        for number in range(int(sys.argv[2])):
            frames.resize(number + 1, axis=0)
            frames[-1] = number
            check()
            checked += 1
        file["other"] = np.arange(30_000)
        file.attrs["text"] = "x" * 1000
except OSError as error:
    print(error.errno, checked)
"""


def test_the_file_is_an_ordinary_one(tmp_path):
    with hdf5_output.created(tmp_path / "a.h5") as (file, check):
        frames = file.create_dataset("frames", (0, 30, 30), np.uint8, chunks=(1, 30, 30), maxshape=(None, 30, 30))
        for number in range(200):
            frames.resize(number + 1, axis=0)
            frames[-1] = number
        file.create_dataset("names", data=["a", "ü"] * 5000, dtype=h5py.string_dtype())
        file["squeezed"] = np.arange(10_000)
        del file["squeezed"]
        check()
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["frames"][:, 3, 3], np.arange(200))
        assert file["names"].asstr()[-1] == "ü" and "squeezed" not in file


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        with hdf5_output.created(tmp_path / name) as (file, _):
            file["x"] = np.arange(1000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("frames", [300, 1])  # Full among the frames, of which HDF5 holds a hundred; after them.
def test_a_full_disk_is_an_ordinary_error_and_the_process_ends_well(tmp_path, frames):
    command = [sys.executable, "-c", FULL, tmp_path / "a.h5", str(frames)]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    number, checked = map(int, done.stdout.split())
    assert number == errno.EFBIG and (checked == 1 if frames == 1 else 100 < checked < 300)


def test_what_the_block_raises_comes_through(tmp_path):
    with pytest.raises(ValueError, match="mine"), hdf5_output.created(tmp_path / "a.h5"):
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError), hdf5_output.created(tmp_path / "nowhere" / "a.h5"):
        pass
