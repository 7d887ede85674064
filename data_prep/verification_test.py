import dataclasses
import json
import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import files, hdf5
from common.clips import clip_store, shards, split_index, tiny_store_for_tests
from data_prep import verification

LAYOUT = shards.Layout(frames=2, height=8, width=8, object_mask_shape=(2, 2))


def test_a_whole_store_has_no_problems(store):
    decoded = []
    assert list(verification.problems(store, decoded.append)) == []
    assert sum(decoded) == 4


def test_no_store_at_all(tmp_path):
    (problem,) = verification.problems(tmp_path)
    assert "A clip store must hold dataset.json" in problem


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"[]", b"{}", b'{"a\\ud800": 1e999}', None])
def test_a_dataset_json_that_is_none_is_one_line(store, content):
    (store / "dataset.json").unlink()
    if content is None:
        os.mkfifo(store / "dataset.json")  # Nobody will ever write to it.
    else:
        (store / "dataset.json").write_bytes(content)
    (problem,) = verification.problems(store)
    assert "dataset.json" in problem and "\n" not in problem


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
    assert list(verification.problems(store)) == ["train-00000-of-00002.h5: its SHA-256 is not the one in dataset.json"]


def test_a_truncated_shard_is_found_and_the_others_are_still_checked(store):
    path = store / "train-00000-of-00002.h5"
    path.write_bytes(path.read_bytes()[:-500])
    decoded = []
    assert list(verification.problems(store, decoded.append)) == [
        "train-00000-of-00002.h5: its SHA-256 is not the one in dataset.json"
    ]
    assert sum(decoded) == 2


def test_a_shard_that_was_signed_after_the_damage_is_one_line_and_the_next_one_is_checked(store):
    path = store / "train-00000-of-00002.h5"
    path.write_bytes(path.read_bytes()[:-500])
    _sign(store)
    (problem,) = verification.problems(store)
    assert problem.startswith("train-00000-of-00002.h5: A shard must be a readable HDF5 file")


def test_an_index_is_checked_against_the_shards(store):
    info = clip_store.write_indexes(store, clip_store.read_dataset_json(store))
    assert list(verification.problems(store)) == ["train.index: not listed in dataset.json"]
    clip_store.write_dataset_json(store, info)
    assert list(verification.problems(store)) == []
    found = clip_store.ClipStore(store, "train")
    for labels, ids, size in (
        (found.labels[::-1], found.video_ids, 0),
        (found.labels, list("abcd"), 0),
        (found.labels, found.video_ids, 0),
    ):
        split_index.write(store / "train.index", labels, ids, [size + 1] * 2)
        index = clip_store.Index(
            "train.index", files.sha256(store / "train.index"), (store / "train.index").stat().st_size
        )
        clip_store.write_dataset_json(store, dataclasses.replace(info, indexes={"train": index}))
        (problem,) = verification.problems(store)
        assert problem == "train.index: it has other labels, ids or sizes than the shards"
    (store / "train.index").write_bytes(b"x")
    assert list(verification.problems(store)) == ["train.index: its size is not the one in dataset.json"]
    (store / "train.index").write_bytes(b"x" * index.bytes)
    (problem,) = verification.problems(store)
    assert problem.startswith("train.index: The index of a split must have the SHA-256 in dataset.json")
    (store / "train.index").unlink()
    (problem,) = verification.problems(store)
    assert problem.startswith("train.index: FileNotFoundError")


def test_a_shard_without_its_sha256_is_not_opened(store, monkeypatch):
    path = store / "train-00001-of-00002.h5"
    path.write_bytes(path.read_bytes() + b"x")
    opened = []
    monkeypatch.setattr(
        shards,
        "ShardReader",
        lambda path, layout, read=shards.ShardReader: opened.append(path.name) or read(path, layout),
    )
    assert list(verification.problems(store)) and opened == ["train-00000-of-00002.h5"]


@pytest.mark.parametrize("error", [RuntimeError("Can't\nread"), KeyError("x"), OSError(5, "Input/output error")])
def test_whatever_a_shard_makes_a_library_raise_is_one_line(store, monkeypatch, error):
    def fail(reader, row, out):
        raise error

    monkeypatch.setattr(shards.ShardReader, "read", fail)
    problems = list(verification.problems(store))
    assert len(problems) == 4 and all(f": {type(error).__name__}: " in problem for problem in problems)
    assert not any("\n" in problem for problem in problems)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore")
def test_any_bits_of_a_shard_may_flip(store, places):
    path = store / "train-00001-of-00002.h5"
    before = path.read_bytes()
    data = bytearray(before)
    for place, bit in places:
        data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        damaged = list(verification.problems(store))
        assert damaged == ["train-00001-of-00002.h5: its SHA-256 is not the one in dataset.json"] * (data != before)
    finally:
        path.write_bytes(before)


def test_files_that_are_missing_or_too_many_are_found(store):
    (store / "train-00000-of-00002.h5").rename(store / "train-00007-of-00002.h5")
    (store / "dataset.json.3.tmp").touch()
    problems = list(verification.problems(store))
    assert problems == [
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
    values["counts"]["train"]["b"] = 1
    values["content_sha256"] = clip_store.content_sha256(values)
    (store / "dataset.json").write_text(json.dumps(values))
    assert list(verification.problems(store)) == ["train: 2 clips of 'b', 1 in dataset.json"]
    values["shards"][0]["clips"] = 5
    values["content_sha256"] = clip_store.content_sha256(values)
    (store / "dataset.json").write_text(json.dumps(values))
    assert list(verification.problems(store)) == ["train-00000-of-00002.h5: 2 clips, 5 in dataset.json"]


@pytest.fixture
def store(tmp_path):
    """A store of two shards of two clips; clip n has label n mod 2."""
    listed = []
    for index in range(2):
        path = tmp_path / clip_store.shard_name("train", index, 2)
        tiny_store_for_tests.write_shard(path, [_clip(2 * index), _clip(2 * index + 1)], LAYOUT)
        listed.append(clip_store.Shard(path.name, "train", 2, files.sha256(path)))
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
    _sign(store)
    return list(verification.problems(store))


def _sign(store):
    """Writes into dataset.json the SHA-256 that the shards have now."""
    info = clip_store.read_dataset_json(store)
    signed = [dataclasses.replace(shard, sha256=files.sha256(store / shard.file)) for shard in info.shards]
    clip_store.write_dataset_json(store, dataclasses.replace(info, shards=tuple(signed)))
