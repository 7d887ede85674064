import h5py
import numpy as np
import pytest

from common import errors
from common.explaining import explanations

HEADER = {
    "schema_version": 1,
    "run": "mine",
    "weights_sha256": "00",
    "model": "i3d",
    "dataset": "tiny",
    "clips": "clips",
    "split": "validation",
    "class_names": ["öffnen", "b", "c"],
    "clip_shape": [4, 8, 8],
    "target": "guess",
    "mask": {"kind": "freeze"},
    "gradcam": {"time": "repeat"},
    "precision": "float32",
    "framework": "torch",
    "versions": {},
}


def small(clips=2, first=0):
    """Explanations of clips whose every value differs: T=4, K=3, 5 iterations, maps of 2 x 3 x 3."""
    sizes = {"N": clips, "K": 3, "T": 4, "I": 5, "2": 2, "t": 2, "h": 3, "w": 3}
    columns = {}
    for number, (name, (dtype, letters)) in enumerate(explanations.COLUMNS.items()):
        shape = tuple(sizes[letter] for letter in letters)
        if name == "video_id":
            columns[name] = np.array([f"clip é {first + i}" for i in range(clips)], dtype=object)
        else:
            values = np.arange(np.prod(shape)).reshape(shape) + 100 * first + number
            columns[name] = values.astype(dtype)
    columns["CS"][0] = np.nan
    for name in ("label", "prediction", "target"):
        columns[name] %= 3
    return explanations.Explanations(dict(HEADER), columns)


def assert_same(first, second):
    assert first.header == second.header
    assert list(first.columns) == list(second.columns)
    for name, array in first.columns.items():
        np.testing.assert_array_equal(second[name], array)
        assert second[name].dtype == array.dtype, name


@pytest.fixture
def path(tmp_path):
    explanations.write(tmp_path / "explanations.h5", small())
    return tmp_path / "explanations.h5"


def test_what_is_written_is_read(path):
    found = explanations.read(path)
    assert_same(small(), found)
    assert len(found) == 2 and found["video_id"][1] == "clip é 1"
    assert [file.name for file in path.parent.iterdir()] == ["explanations.h5"]


def test_the_file_has_the_types_that_are_documented(path):
    with h5py.File(path) as file:
        assert set(file) == set(explanations.COLUMNS)
        assert file["mask_snapped"].dtype == np.uint8 and file["gradcam"].dtype == np.float32
        assert h5py.check_string_dtype(file["video_id"].dtype).encoding == "utf-8"


def test_wider_numbers_are_stored_as_the_file_has_them(tmp_path):
    wide = small()
    wide.columns["OS"] = np.array([0.1, 0.2])
    wide.columns["label"] = np.array([-1, 2])
    explanations.write(tmp_path / "wide.h5", wide)
    found = explanations.read(tmp_path / "wide.h5")
    assert found["OS"].dtype == np.float32 and found["label"].dtype == np.int32
    np.testing.assert_array_equal(found["label"], [-1, 2])
    np.testing.assert_allclose(found["OS"], [0.1, 0.2], rtol=1e-7)


def test_parts_are_joined_in_their_order():
    joined = explanations.concatenate([small(2), small(1, first=2)])
    assert list(joined["video_id"]) == ["clip é 0", "clip é 1", "clip é 2"]
    np.testing.assert_array_equal(joined["mask"][2], small(1, first=2)["mask"][0])
    assert joined.header == HEADER and joined["gradcam"].shape == (3, 2, 3, 3)


def test_no_clips_are_a_file_too(tmp_path):
    explanations.write(tmp_path / "none.h5", explanations.Explanations(HEADER, _no_rows()))
    assert len(explanations.read(tmp_path / "none.h5")) == 0


def _no_rows():
    return {name: array[:0] for name, array in small(1).columns.items()}


def test_what_is_no_hdf5_file_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("OS, FS, RS\n")
    for name in ("text.h5", "missing.h5"):
        with pytest.raises(errors.UserError, match=f"HDF5 file that explain.py wrote. Received: .*{name}"):
            explanations.read(tmp_path / name)


def test_half_a_file_is_refused(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(errors.UserError, match="HDF5 file that explain.py wrote. Received: .*explanations.h5"):
        explanations.read(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"schema_version": 2}', "must have schema version 1. Received: 2"),
        ("{}", "must have schema version 1. Received: None"),
        ("[1]", "must have schema version 1. Received: None"),
        ("{", "HDF5 file that explain.py wrote"),
        (7, "HDF5 file that explain.py wrote"),
        (None, "must have schema version 1. Received: None"),
    ],
)
def test_another_header_is_refused(path, header, message):
    with h5py.File(path, "r+") as file:
        del file.attrs["header"]
        if header is not None:
            file.attrs["header"] = header
    with pytest.raises(errors.UserError, match=message):
        explanations.read(path)


def _group(file):
    file.create_group("mask")


def _soft_link(file):
    file["mask"] = h5py.SoftLink("/probabilities")


def _external_link(file):
    file["mask"] = h5py.ExternalLink("other.h5", "/mask")


def _external_storage(file):
    file.create_dataset("mask", (2, 4), np.float32, external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])


def _virtual(file):
    layout = h5py.VirtualLayout((2, 4), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "mask", (2, 4), np.float32)
    file.create_virtual_dataset("mask", layout)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (lambda file: None, "'mask' must be a dataset of the file itself. Received: nothing in .*explanations.h5"),
        (_group, "'mask' must be a dataset of the file itself. Received: a group"),
        (_soft_link, "'mask' must be a dataset of the file itself. Received: SoftLink"),
        (_external_link, "'mask' must be a dataset of the file itself. Received: ExternalLink"),
        (_external_storage, "Dataset 'mask' must lie in the file itself. Received: data elsewhere, .*explanations.h5"),
        (_virtual, "Dataset 'mask' must lie in the file itself. Received: data elsewhere, .*explanations.h5"),
        (
            lambda file: file.create_dataset("mask", (2, 4), np.float64),
            r"Dataset 'mask' must be float32 \[N, T\]. Received: float64",
        ),
        (
            lambda file: file.create_dataset("mask", (2, 5), np.float32),
            "mask_snapped must have the shape .*'T'.* Received",
        ),
        (
            lambda file: file.create_dataset("mask", (3, 4), np.float32),
            r"mask must have the shape \('N', 'T'\). Received: \(3",
        ),
        (
            lambda file: file.create_dataset("mask", (8,), np.float32),
            r"'mask' must be float32 \[N, T\]. Received: .* \[8\]",
        ),
    ],
)
def test_a_dataset_that_is_not_as_documented_is_refused(path, replace, message):
    with h5py.File(path, "r+") as file:
        del file["mask"]
        replace(file)
    with pytest.raises(errors.UserError, match=message):
        explanations.read(path)


@pytest.mark.parametrize("dtype", [np.int64, h5py.vlen_dtype(np.int32)])
def test_video_ids_that_are_no_text_are_refused(path, dtype):
    with h5py.File(path, "r+") as file:
        del file["video_id"]
        file.create_dataset("video_id", (2,), dtype)
    with pytest.raises(
        errors.UserError, match=r"Dataset 'video_id' must be text \[N\]. Received: (int64|object) \[2\]"
    ):
        explanations.read(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"OS": np.zeros(3)}, r"OS must have the shape \('N',\). Received: \(3,\)"),
        (
            {"oracle_interval": np.zeros((2, 3))},
            r"oracle_interval must have the shape \('N', '2'\). Received: \(2, 3\)",
        ),
        ({"blur": np.zeros(2)}, "exactly the known columns. Missing or unexpected: blur"),
    ],
)
def test_columns_that_clash_are_not_written(path, columns, message):
    bad = small()
    bad.columns.update(columns)
    before = path.read_bytes()
    with pytest.raises(errors.UserError, match=message):
        explanations.write(path, bad)
    assert path.read_bytes() == before


def test_a_missing_column_is_not_written(tmp_path):
    bad = small()
    del bad.columns["RS"]
    with pytest.raises(errors.UserError, match="exactly the known columns. Missing or unexpected: RS"):
        explanations.write(tmp_path / "explanations.h5", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_half_way_leaves_what_was_there(path):
    bad = small(3)
    bad.columns["probabilities"] = np.full((3, 3), "many", dtype=object)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="could not convert string to float"):
        explanations.write(path, bad)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["explanations.h5"]


def test_a_file_is_replaced_whole(path):
    explanations.write(path, small(3, first=5))
    assert_same(small(3, first=5), explanations.read(path))


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ({"class_names": ["a"]}, {}, "class_names and clip_shape must be of 3 classes and 4 frames"),
        ({"clip_shape": [5, 8, 8]}, {}, "class_names and clip_shape must be of 3 classes and 4 frames"),
        ({}, {"label": [-2, 0]}, "label must be -1…2. Received: -2…0"),
        ({}, {"target": [0, 3]}, "target must be 0…2. Received: 0…3"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, header, columns, message):
    fine = small()
    arrays = {**fine.columns, **{name: np.array(values, np.int32) for name, values in columns.items()}}
    path = tmp_path / "explanations.h5"
    explanations.write(path, explanations.Explanations({**fine.header, **header}, arrays))
    with pytest.raises(errors.UserError, match=message):
        explanations.read(path)


@pytest.mark.parametrize("name", sorted(HEADER.keys() - {"schema_version"}))
def test_a_header_that_lacks_a_field_is_refused(tmp_path, name):
    fine = small()
    path = tmp_path / "explanations.h5"
    header = {other: value for other, value in fine.header.items() if other != name}
    explanations.write(path, explanations.Explanations(header, fine.columns))
    with pytest.raises(errors.UserError, match=f"must have an? .* as {name}.*. Received: nothing in .*explanations.h5"):
        explanations.read(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", "freeze", "must have a text as mask/kind. Received: nothing"),
        ("clip_shape", {"0": 8}, "must have a list as clip_shape. Received: {'0': 8}"),
        ("clip_shape", [], "class_names and clip_shape must be of 3 classes and 4 frames"),
        ("split", 3, "must have a text as split. Received: 3"),
        ("class_names", ["a", 1, "c"], "must have a text as class_names/1. Received: 1"),
    ],
)
def test_a_header_of_other_types_is_refused(tmp_path, name, value, message):
    fine = small()
    path = tmp_path / "explanations.h5"
    explanations.write(path, explanations.Explanations({**fine.header, name: value}, fine.columns))
    with pytest.raises(errors.UserError, match=message):
        explanations.read(path)
