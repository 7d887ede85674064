import json

import h5py
import numpy as np
import pytest

from common import hdf5
from common.clips import clip_store, shards, tiny_store_for_tests
from data_prep import verification

LAYOUT = shards.Layout(frames=2, height=8, width=8, object_mask_shape=(2, 2))


def test_a_whole_store_has_no_problems(store):
    decoded = []
    assert list(verification.problems(store, decoded.append)) == []
    assert sum(decoded) == 4


def test_no_store_at_all(tmp_path):
    (problem,) = verification.problems(tmp_path)
    assert "A clip store's dataset.json must be a readable JSON file" in problem


def test_a_changed_byte_is_found(store):
    path = store / "train-00001-of-00002.h5"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "train-00001-of-00002.h5: its SHA-256 is not the one in dataset.json" in verification.problems(store)


def test_a_damaged_shard_of_version_1_is_not_read(store):
    path = store / "train-00000-of-00002.h5"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    values = json.loads((store / "dataset.json").read_text())
    del values["content_sha256"]
    (store / "dataset.json").write_text(json.dumps({**values, "schema_version": 1}))
    assert list(verification.problems(store)) == [
        "train-00000-of-00002.h5: its SHA-256 is not the one in dataset.json",
        "train: 1 clips of 'a', 2 in dataset.json",
        "train: 1 clips of 'b', 2 in dataset.json",
    ]


def test_a_truncated_shard_is_found_and_the_others_are_still_checked(store):
    path = store / "train-00000-of-00002.h5"
    path.write_bytes(path.read_bytes()[:-500])
    problems = list(verification.problems(store))
    assert problems[0].startswith("train-00000-of-00002.h5: its SHA-256")
    assert problems[1].startswith("train-00000-of-00002.h5: A shard must be a readable HDF5 file")
    assert problems[2:] == ["train: 1 clips of 'a', 2 in dataset.json", "train: 1 clips of 'b', 2 in dataset.json"]


def test_files_that_are_missing_or_too_many_are_found(store):
    (store / "train-00000-of-00002.h5").rename(store / "train-00007-of-00002.h5")
    (store / "dataset.json.3.tmp").touch()
    problems = list(verification.problems(store))
    assert problems[:3] == [
        "dataset.json.3.tmp: left over from an interrupted run",
        "train-00007-of-00002.h5: not listed in dataset.json",
        "train-00000-of-00002.h5: listed in dataset.json but not there",
    ]


def test_a_frame_that_is_no_image_is_found(store):
    def blank(file):
        begin, end = file["frame_offsets"][1, :2]
        file["frames"][begin:end] = 0

    assert any("Received: no image in clip 'v1'" in problem for problem in _problems_after(store, blank))


@pytest.mark.parametrize(
    ("name", "row", "value", "problem"),
    [
        ("label", 0, 2, "clip 'v0': label is not -1…1"),
        ("label", 1, -2, "clip 'v1': label is not -1…1"),
        ("source_frames", 0, 0, "clip 'v0': source_frames is not at least 1 and finite"),
        ("source_frame", 0, (3, 2), "clip 'v0': source_frame falls or spans more than source_frames"),
        ("source_frame", 0, (-1, 2), "clip 'v0': source_frame is not at least 0 and finite"),
        ("source_frame", 1, (0, 5), "clip 'v1': source_frame falls or spans more than source_frames"),
        ("source_time", 0, (0, np.inf), "clip 'v0': source_time is not finite or NaN"),
        ("salient", 0, (0, 2), "clip 'v0': salient is not 0…1"),
        ("object_mask", 1, 255, "clip 'v1': object_mask is not 0…1"),
    ],
)
def test_values_that_cannot_be_are_found(store, name, row, value, problem):
    def change(file):
        file[name][row] = value

    assert f"train-00000-of-00002.h5: {problem}" in _problems_after(store, change)


def test_ids_that_come_twice_or_are_no_names_are_found(store):
    def twice(file):
        _name(file, ["v3", "v1"])

    assert any("Received: 'v3' 2 times in train" in problem for problem in _problems_after(store, twice))

    def path(file):
        _name(file, ["../v", "v1"])

    assert any("Received: '../v' in train" in problem for problem in _problems_after(store, path))


def test_counts_that_differ_are_found(store):
    values = json.loads((store / "dataset.json").read_text())
    values["shards"][0]["clips"] = 5
    values["counts"]["train"]["b"] = 1
    values["content_sha256"] = clip_store.content_sha256(values)
    (store / "dataset.json").write_text(json.dumps(values))
    assert list(verification.problems(store)) == [
        "train-00000-of-00002.h5: 2 clips, 5 in dataset.json",
        "train: 2 clips of 'b', 1 in dataset.json",
    ]


@pytest.fixture
def store(tmp_path):
    """A store of two shards of two clips; clip n has label n mod 2."""
    listed = []
    for index in range(2):
        path = tmp_path / clip_store.shard_name("train", index, 2)
        tiny_store_for_tests.write_shard(path, [_clip(2 * index), _clip(2 * index + 1)], LAYOUT)
        listed.append(clip_store.Shard(path.name, "train", 2, shards.sha256(path)))
    counts = {"train": {"a": 2, "b": 2}}
    info = clip_store.DatasetInfo("folder", ("a", "b"), LAYOUT, "stretch", "linspace", counts, {}, {}, tuple(listed))
    clip_store.write_dataset_json(tmp_path, info)
    return tmp_path


def _clip(number):
    return shards.Clip(
        frames=np.full((2, 8, 8, 3), 50 * number, np.uint8),
        label=number % 2,
        video_id=f"v{number}",
        source_frame=np.array([0, 4], np.int32),
        source_time=np.array([0.0, np.nan]),
        source_frames=5,
        source_fps=10.0,
        salient=np.array([0, 1], np.uint8),
        object_mask=np.ones((2, 2, 2), np.uint8),
    )


def _name(file, video_ids):
    del file["video_id"]
    hdf5.write_text(file, "video_id", video_ids)


def _problems_after(store, change):
    with h5py.File(store / "train-00000-of-00002.h5", "r+") as file:
        change(file)
    return list(verification.problems(store))
