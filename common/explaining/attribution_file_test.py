import numpy as np
import pytest

from common import errors
from common.explaining import attribution_file
from common.explaining.attribution_file import Attributions


def test_what_was_written_is_read(tmp_path):
    areas = {name: np.array([0.25, 0.5]) for name in ("deletion", "deletion_random", "insertion", "insertion_random")}
    written = Attributions(
        ("a", "ü"), np.array([[1.0, 2, 3], [3, 2, 1]]), np.array([[0, 0, 1], [1, 0, 0]]) == 1, np.array([5.0, 6]), areas
    )
    attribution_file.write(tmp_path / "x.npz", written)
    found = attribution_file.read(tmp_path / "x.npz")
    assert found.video_ids == ("a", "ü") and len(found) == 2
    np.testing.assert_array_equal(found.values, written.values)
    np.testing.assert_array_equal(found.selected, written.selected)
    np.testing.assert_array_equal(found.forwards, written.forwards)
    assert found.areas.keys() == areas.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_numpy_alone_writes_one(tmp_path):
    np.savez(tmp_path / "x.npz", video_id=["a", "b"], attribution=np.array([[1, 2], [3, 4]], np.int32))
    found = attribution_file.read(tmp_path / "x.npz")
    assert found.values.dtype == np.float64 and found.values.tolist() == [[1, 2], [3, 4]]
    assert found.selected is None and found.forwards is None and not found.areas


_GOOD = {"video_id": ["a", "b"], "attribution": [[1.0, 2], [3, 4]]}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"video_id": ["a", "b"]}, "must have attribution and video_id, .* Received: video_id in"),
        ({**_GOOD, "atribution": [1.0]}, "Received: atribution, attribution, video_id in"),
        ({**_GOOD, "attribution": [1.0, 2]}, r"attribution must be numbers \[N, T\], .* float64 \[2\]"),
        ({**_GOOD, "attribution": [[1.0, 2]]}, r"attribution must be numbers \[N, T\], .* float64 \[1, 2\]"),
        ({**_GOOD, "video_id": [1, 2]}, r"video_id must be text \[N\]"),
        ({**_GOOD, "video_id": ["a", "a"]}, "one row. Received: a more than once"),
        ({**_GOOD, "attribution": [[1.0, 2], [3, np.nan]]}, "attribution must be finite. Received: .* for b"),
        ({**_GOOD, "selected": [[0, 1], [1, 0]]}, "selected must be true and false"),
        ({**_GOOD, "deletion": [0.5, 0.5]}, "all four together. Received: deletion"),
        ({"video_id": np.empty(0, "U1"), "attribution": np.empty((0, 2))}, "at least one clip"),
        ({**_GOOD, "attribution": np.array([[1, "x"], [2, 3]], object)}, "npz: attribution holds Python objects"),
        (
            {**_GOOD, "video_id": np.array(["a", "b"], object)},
            r"video_id holds .*; numpy.array\(values, str\) makes text",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(errors.UserError, match=message):
        attribution_file.read(tmp_path / "x.npz")


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("array.npy", "text.npz", "empty.npz", "nothing.npz"):
        with pytest.raises(errors.UserError, match="must be an .npz file of arrays") as refused:
            attribution_file.read(tmp_path / name)
        assert "pickle" not in str(refused.value)  # NumPy would say how to load one unsafely.


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **_GOOD)
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")  # Of the archive's directory; its compression stands ten bytes later.
    for damaged in (whole[: len(whole) // 2], whole[: entry + 10] + b"\x63" + whole[entry + 11 :]):
        path.write_bytes(damaged)
        with pytest.raises(errors.UserError, match="must be an .npz file of arrays"):
            attribution_file.read(path)
