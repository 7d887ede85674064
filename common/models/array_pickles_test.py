import contextlib
import os
import pathlib
import pickle

import numpy as np
import pytest

from common import errors
from common.models import array_pickles

TREE = {
    "params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "order": np.asfortranarray(np.eye(3)[:2])},
    "big_endian": np.arange(3, dtype=">f4"),
    "step": 7,
}


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def written(path, value, protocol=4):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_come_back_as_they_went_in(tmp_path, protocol):
    leaves = array_pickles.read(written(tmp_path / "w", TREE, protocol))
    assert list(leaves) == ["params/kernel", "params/order", "big_endian", "step"]
    for name, array in (("params/kernel", TREE["params"]["kernel"]), ("params/order", TREE["params"]["order"])):
        np.testing.assert_array_equal(leaves[name], array, strict=True)
    np.testing.assert_array_equal(leaves["big_endian"].astype("f4"), [0, 1, 2])
    assert leaves["step"] == 7


def test_files_of_numpy_1_and_2_are_read(tmp_path):
    new = pickle.dumps(TREE, 3)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != new
    for data in (new, old):
        assert array_pickles.read(written(tmp_path / "w", data))["params/kernel"].shape == (2, 3)


def test_nothing_that_a_pickle_names_is_run(tmp_path):
    made = tmp_path / "made"
    for value in (
        Calls(os.mkdir, str(made)),
        {"a": Calls(os.mkdir, str(made))},
        {"a": Calls(pathlib.Path(made).mkdir)},
        {"a": Calls(eval, f"__import__('os').mkdir({str(made)!r})")},
        {"a": Calls(np.save, str(made), 0)},
    ):
        with pytest.raises(errors.UserError, match="nested dicts of NumPy arrays and nothing else. Received: .*named"):
            array_pickles.read(written(tmp_path / "w", value))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": np.array([{}], object)}, "no dtype of numbers: 'O8'"),
        ({"a": np.zeros(2, [("x", "f4")])}, "no dtype of numbers: 'V4'"),
        ({"a": np.float32(1)}, "scalar is named"),
        ({"a": {1, 2}, "b": Calls(print, 1)}, "print is named"),
        ([np.zeros(2)], "Received: .*list"),
        ({"a": Calls(np.dtype, "(1000000,1000000)f8")}, "no dtype of numbers"),
        (b"\x80\x04}r\xff\xff\xff\x7fX\x01\x00\x00\x00acos\nmkdir\ns.", "os.mkdir is named"),  # A memo of 2^31.
        (b"\x80\x04.", "Received: .*w: "),
        (b"", "EOFError"),
        (b"\x80\x04cnumpy\nndarray\n(I99999999999\ntR.", "not callable"),
    ],
)
def test_what_is_no_array_is_refused(tmp_path, value, message):
    with pytest.raises(errors.UserError, match=message):
        array_pickles.read(written(tmp_path / "w", value))


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = pickle.dumps({"a": {"b": np.arange(4.0)}}, 4)
    for length in range(len(whole)):
        with pytest.raises(errors.UserError):
            array_pickles.read(written(tmp_path / "w", whole[:length]))


def test_bytes_and_shape_that_disagree_are_refused(tmp_path):
    whole = pickle.dumps({"a": np.zeros(200, np.float32)}, 4)
    assert whole.count(bytes([ord("K"), 200])) == 1  # The shape, an integer of one byte.
    with pytest.raises(errors.UserError, match="cannot reshape array of size 200"):
        array_pickles.read(written(tmp_path / "w", whole.replace(bytes([ord("K"), 200]), bytes([ord("K"), 100]))))


def test_changed_bytes_raise_nothing_but_refusals(tmp_path):
    whole = pickle.dumps({"a": {"b": np.arange(4.0)}}, 4)
    stream = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[stream.integers(len(data))] = stream.integers(256)
        with contextlib.suppress(errors.UserError):
            array_pickles.read(written(tmp_path / "w", bytes(data)))
