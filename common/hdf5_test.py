import h5py
import numpy as np
import pytest

from common import errors, hdf5
from common.hdf5 import Column


def test_columns_are_read_as_they_were_written(tmp_path):
    sizes = {"N": 3}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = np.arange(6, dtype=np.int32).reshape(3, 2)
        hdf5.write_text(file, "names", ["é", "", "abc"])
        hdf5.write_text(file, "note", "ö")
        table = {
            "numbers": Column(np.int32, "NT"),
            "names": Column(hdf5.TEXT, "N"),
            "note": Column(hdf5.TEXT, ()),
        }
        found = hdf5.read(file, table, sizes)
    np.testing.assert_array_equal(found["numbers"], [[0, 1], [2, 3], [4, 5]])
    assert found["names"].tolist() == ["é", "", "abc"] and found["note"].item() == "ö"
    assert sizes == {"N": 3, "T": 2}


def test_no_text_is_text_too(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hdf5.write_text(file, "names", [])
        assert hdf5.read(file, {"names": Column(hdf5.TEXT, "N")}, {})["names"].tolist() == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column(np.int32, ("N", 3)), r"Dataset 'a' must be int32 \[N=3, 3\]. Received: int32 \[3, 2\] in .*a.h5"),
        (Column(np.int32, "N"), r"Dataset 'a' must be int32 \[N\]. Received: int32 \[3, 2\]"),
        (Column(np.int32, "KK"), r"Dataset 'a' must be int32 \[K=3, K=3\]. Received: int32 \[3, 2\]"),
        (Column(np.int32, ("N", "K")), r"Dataset 'a' must be int32 \[N=3, K=4\]. Received: int32 \[3, 2\]"),
        (Column(np.float32, "NT"), r"Dataset 'a' must be float32 \[N=3, T=2\]. Received: int32 \[3, 2\]"),
        (Column(hdf5.TEXT, "NT"), r"Dataset 'a' must be text \[N=3, T=2\]. Received: int32 \[3, 2\]"),
    ],
)
def test_another_type_or_shape_is_refused(tmp_path, column, message):
    sizes = {"K": 4} if column.shape == ("N", "K") else {}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.zeros((3, 2), np.int32)
        with pytest.raises(errors.UserError, match=message):
            hdf5.read(file, {"a": column}, sizes)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (Column(np.int32, "N", low=0), [1, -1], "a must be at least 0 and finite. Received: -1 in row 1 of here"),
        (Column(np.int32, "N", high=lambda sizes: sizes["K"] - 1), [3, 4], "a must be at most 3. Received: 4 in row 1"),
        (Column(np.float32, "NT"), [[0, 1], [0, np.inf]], "a must be finite. Received: inf in row 1"),
        (Column(np.float32, "N"), [np.nan], "a must be finite. Received: nan in row 0"),
        (Column(np.float32, "N", high=1, nan=True), [np.nan, 2], "a must be at most 1 or NaN. Received: 2.0 in row 1"),
        (Column(np.float32, "N", high=1, nan=True), [np.nan, 1], None),
        (Column(hdf5.TEXT, "N"), np.array(["x"], object), None),
    ],
)
def test_values_out_of_bounds_are_refused(column, values, message):
    columns = {"a": np.asarray(values, object if column.is_text else column.dtype)}
    if message is None:
        hdf5.check_bounds(columns, {"a": column}, {"K": 4}, "here")
        return
    with pytest.raises(errors.UserError, match=message):
        hdf5.check_bounds(columns, {"a": column}, {"K": 4}, "here")


def test_whatever_goes_wrong_with_a_file_is_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w"):
        pass
    with pytest.raises(errors.UserError, match="This must be a readable HDF5 file. Received: .*a.h5: 'so it is'"):
        with hdf5.opened(tmp_path / "a.h5", "This"):
            raise KeyError("so it is")


def write_version_1(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("video_id", data=["a"], dtype=h5py.string_dtype())


def test_text_of_variable_length_is_tried_once_in_another_process(tmp_path, monkeypatch):
    write_version_1(tmp_path / "a.h5")
    calls = []
    run = hdf5.subprocess.run
    monkeypatch.setattr(hdf5.subprocess, "run", lambda *args, **values: calls.append(args) or run(*args, **values))
    for _ in range(2):
        with h5py.File(tmp_path / "a.h5") as file:
            assert hdf5.read(file, {"video_id": Column(hdf5.TEXT, "N")}, {})["video_id"].tolist() == ["a"]
    assert len(calls) == 1


def test_a_file_that_crashes_the_library_is_refused(tmp_path, monkeypatch):
    for name in ("a.h5", "b.h5", "c.h5"):
        write_version_1(tmp_path / name)
    monkeypatch.setattr(hdf5, "_TRY", "import os; print('x', end='', flush=True); os.abort()")
    with pytest.raises(errors.UserError, match="must read the text of a file within 33 seconds. Received: .*b.h5"):
        hdf5.try_text([tmp_path / name for name in ("c.h5", "a.h5", "b.h5")])
