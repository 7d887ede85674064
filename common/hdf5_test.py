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
