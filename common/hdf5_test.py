import fcntl
import pathlib
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from common import errors, hdf5


def test_a_column_is_read_as_it_was_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = np.arange(6, dtype=np.int32).reshape(3, 2)
        file["names"] = ["é", "b"]
        np.testing.assert_array_equal(hdf5.column(file, "numbers", np.int32, "N2"), [[0, 1], [2, 3], [4, 5]])
        np.testing.assert_array_equal(hdf5.column(file, "numbers", np.int32, ("N", 2)), [[0, 1], [2, 3], [4, 5]])
        assert list(hdf5.column(file, "names", h5py.string_dtype("utf-8"), "N")) == ["é", "b"]


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        (np.int32, ("N", 3), r"Dataset 'a' must be int32 \[N, 3\]. Received: int32 \[3, 2\] in .*a.h5"),
        (np.int32, "N", r"Dataset 'a' must be int32 \[N\]. Received: int32 \[3, 2\]"),
        (np.float32, "NT", r"Dataset 'a' must be float32 \[N, T\]. Received: int32 \[3, 2\]"),
        (h5py.string_dtype("utf-8"), "NT", r"Dataset 'a' must be text \[N, T\]. Received: int32 \[3, 2\]"),
    ],
)
def test_another_type_or_shape_is_refused(tmp_path, dtype, shape, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.zeros((3, 2), np.int32)
        with pytest.raises(errors.UserError, match=message):
            hdf5.column(file, "a", dtype, shape)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    with hdf5.written_whole(tmp_path / "a.h5") as file:
        file["x"] = [1, 2, 3]
        assert not list(tmp_path.iterdir())
    with hdf5.open_for_reading(tmp_path / "a.h5") as file:
        assert file["x"][:].tolist() == [1, 2, 3]
    with pytest.raises(ZeroDivisionError), hdf5.written_whole(tmp_path / "a.h5") as file:
        file["x"] = 1 / 0
    with hdf5.open_for_reading(tmp_path / "a.h5") as file:
        assert file["x"][:].tolist() == [1, 2, 3]


_FULL = """
import pathlib, resource, sys
import numpy as np
from common import hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
try:
    with hdf5.written_whole(pathlib.Path(sys.argv[1])) as file:
        for number in range(20):
            file[str(number)] = np.arange(1000)
except OSError as error:
    print(error)
"""


def test_a_disk_that_is_full_is_an_ordinary_error_and_the_process_ends_well(tmp_path):
    command = [sys.executable, "-c", _FULL, str(tmp_path / "a.h5")]
    done = subprocess.run(command, cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"[Errno 27] File too large: '{tmp_path}/a.h5'\n", "")
    assert not list(tmp_path.iterdir())


def test_a_file_is_read_though_its_lock_is_held_or_locks_are_missing(tmp_path):
    with hdf5.written_whole(tmp_path / "a.h5") as file:
        file["x"] = 1
    with (tmp_path / "a.h5").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with hdf5.open_for_reading(tmp_path / "a.h5") as file:
            assert file["x"][()] == 1


def test_files_are_opened_for_reading_in_one_place():
    root = pathlib.Path(__file__).parents[1]
    reading = re.compile(r"h5py\.File\([^)]*\"r\"")
    found = [
        path.relative_to(root)
        for folder in ("common", "data_prep", "torch_impl", "tf_impl", "parity_tests")
        for path in (root / folder).rglob("*.py")
        if reading.search(path.read_text(encoding="utf-8")) and "test" not in path.stem
    ]
    assert found == [pathlib.Path("common/hdf5.py")]
