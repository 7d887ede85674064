import dataclasses
import json

import h5py
import numpy as np
import pytest

from common import errors
from common.explaining import explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig

HEADER = {
    "schema_version": 2,
    "run": "mine",
    "weights_sha256": "00",
    "model": "i3d",
    "dataset": "tiny",
    "clips": "clips",
    "split": "validation",
    "class_names": ["öffnen", "b", "c"],
    "clip_shape": [4, 8, 8],
    "target": "guess",
    "mask": dataclasses.asdict(MaskConfig()),
    "gradcam": dataclasses.asdict(GradCamConfig()),
    "precision": "float32",
    "framework": "torch",
    "versions": {},
}


def small(clips=2, first=0):
    """Explanations of clips whose values differ: T=4, K=3, 5 iterations, maps of 2 x 3 x 3."""
    sizes = {"N": clips, "K": 3, "T": 4, "I": 5, 2: 2, "t": 2, "h": 3, "w": 3}
    columns = {}
    for number, (name, column) in enumerate(explanations.COLUMNS.items()):
        shape = tuple(sizes[letter] for letter in column.shape)
        if name == "video_id":
            columns[name] = np.array([f"clip é {first + i}" for i in range(clips)], dtype=object)
        else:
            values = np.arange(np.prod(shape)).reshape(shape) + 100 * first + number
            columns[name] = values.astype(column.dtype)
    columns["CS"][0] = np.nan
    for name in ("label", "prediction", "target", "oracle_interval"):
        columns[name] %= 3
    columns["mask"] /= columns["mask"].max(initial=1)
    columns["mask_snapped"] %= 2
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
        assert set(file) == {"header", *explanations.COLUMNS}
        assert file["mask_snapped"].dtype == np.uint8 and file["gradcam"].dtype == np.float32
        for name in ("header", "video_id"):
            text = h5py.check_string_dtype(file[name].dtype)
            assert text.encoding == "utf-8" and text.length is not None, name


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
        with pytest.raises(errors.UserError, match=f"Explanations must be a readable HDF5 file. Received: .*{name}"):
            explanations.read(tmp_path / name)


def test_half_a_file_is_refused(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        errors.UserError, match="Explanations must be a readable HDF5 file. Received: .*explanations.h5"
    ):
        explanations.read(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"schema_version": 3}', "must have schema version 1 or 2. Received: 3"),
        ("{}", "must have schema version 1 or 2. Received: None"),
        ("[1]", "The header of explanations must be a JSON object. Received: a list"),
        ("{", "The header of explanations must be a readable JSON file. Received: .*explanations.h5: "),
        (7, r"Dataset 'header' must be text \[\]. Received: int64 \[\]"),
        (None, "'header' must be a dataset of the file itself. Received: nothing"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_another_header_is_refused(path, header, message, version):
    if version == 1 and not isinstance(header, str):
        return
    with h5py.File(path, "r+") as file:
        del file["header"]
        if version == 1:
            file.attrs["header"] = header
        elif header is not None:
            file["header"] = np.bytes_(header) if isinstance(header, str) else header
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
            r"Dataset 'mask' must be float32 \[N=2, T=4\]. Received: float64",
        ),
        (
            lambda file: file.create_dataset("mask", (2, 5), np.float32),
            r"'mask' must be float32 \[N=2, T=4\]. Received: float32 \[2, 5\]",
        ),
        (
            lambda file: file.create_dataset("mask", (3, 4), np.float32),
            r"'mask' must be float32 \[N=2, T=4\]. Received: float32 \[3, 4\]",
        ),
        (
            lambda file: file.create_dataset("mask", (8,), np.float32),
            r"'mask' must be float32 \[N=2, T=4\]. Received: .* \[8\]",
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
        errors.UserError, match=r"Dataset 'video_id' must be text \[N=2\]. Received: (int64|object) \[2\]"
    ):
        explanations.read(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"OS": np.zeros(3)}, r"OS must have the shape \('N',\). Received: \(3,\)"),
        (
            {"oracle_interval": np.zeros((2, 3))},
            r"oracle_interval must have the shape \('N', 2\). Received: \(2, 3\)",
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
        ({"class_names": ["a"]}, {}, r"'probabilities' must be float32 \[N=2, K=1\]. Received: float32 \[2, 3\]"),
        ({"clip_shape": [5, 8, 8]}, {}, r"'mask' must be float32 \[N=2, T=5\]. Received: float32 \[2, 4\]"),
        ({}, {"label": [-2, 0]}, "label must be -1…2. Received: -2 in row 0 of .*explanations.h5"),
        ({}, {"target": [0, 3]}, "target must be 0…2. Received: 3 in row 1"),
        ({}, {"oracle_interval": [[0, 1], [2, 5]]}, "oracle_interval must be 0…4. Received: 5 in row 1"),
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
    with pytest.raises(errors.UserError, match=f"Object missing required field `{name}` in .*explanations.h5"):
        explanations.read(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", "freeze", r"Expected `object`, got `str` at `\$.mask` in"),
        (
            "mask",
            {"kind": "freeze", "iterations": 0},
            "iterations must be at least 1. Received: 0 in .*explanations.h5",
        ),
        ("mask", {"knd": "freeze"}, r"unknown field `\$.mask.knd` in"),
        ("clip_shape", {"0": 8}, r"Expected `array`, got `object` at `\$.clip_shape` in"),
        ("clip_shape", [], r"Expected `array` of length 3, got 0 at `\$.clip_shape` in"),
        ("split", 3, r"Expected `str`, got `int` at `\$.split` in"),
        ("class_names", ["a", 1, "c"], r"Expected `str`, got `int` at `\$.class_names\[1\]` in"),
    ],
)
def test_a_header_of_other_types_is_refused(tmp_path, name, value, message):
    fine = small()
    path = tmp_path / "explanations.h5"
    explanations.write(path, explanations.Explanations({**fine.header, name: value}, fine.columns))
    with pytest.raises(errors.UserError, match=message):
        explanations.read(path)


def make_version_1(path):
    """Gives a file the text of variable length, and the attribute, that schema version 1 had."""
    with h5py.File(path, "r+") as file:
        header, video_ids = json.loads(file["header"].asstr()[()]), file["video_id"].asstr()[...]
        del file["header"], file["video_id"]
        file.attrs["header"] = json.dumps({**header, "schema_version": 1}, ensure_ascii=False, sort_keys=True)
        file.create_dataset("video_id", data=video_ids, dtype=h5py.string_dtype("utf-8"))


def test_version_1_is_still_read(path):
    make_version_1(path)
    found = explanations.read(path)
    assert_same(explanations.Explanations({**HEADER, "schema_version": 1}, small().columns), found)
    explanations.write(path, found)
    assert_same(small(), explanations.read(path))


def test_settings_that_an_earlier_version_lacks_are_the_defaults(path):
    header = {**HEADER, "mask": {"kind": "reverse"}}
    explanations.write(path, explanations.Explanations(header, small().columns))
    assert explanations.read(path).header["mask"] == dataclasses.asdict(MaskConfig(kind="reverse"))


def test_a_folder_of_any_name_is_kept(path):
    header = {**HEADER, "clips": "\udcff"}  # A byte that is no UTF-8, as Python names it.
    explanations.write(path, explanations.Explanations(header, small().columns))
    assert explanations.read(path).header["clips"] == "\udcff"
