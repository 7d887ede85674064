import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import pickle

import h5py
import numpy as np
import pytest

from common import errors, files
from common.clips import clip_store, shards, split_index, tiny_store_for_tests

CLIPS = {"train": 7, "validation": 2}


@pytest.fixture
def store_path(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips=CLIPS, clips_per_shard=3)
    return tmp_path / "clips"


@pytest.fixture
def indexed(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "indexed", clips=CLIPS, clips_per_shard=3, indexed=True)
    return tmp_path / "indexed"


def change_json(path, change, sign=True):
    values = json.loads((path / "dataset.json").read_text())
    change(values)
    if sign:
        values["content_sha256"] = clip_store.content_sha256(values)
    (path / "dataset.json").write_text(json.dumps(values))


def test_a_split_is_one_sequence_over_its_shards(store_path):
    store = clip_store.ClipStore(store_path, "train")
    assert len(store) == 7
    assert store.video_ids == tuple(f"train{i}" for i in range(7))
    np.testing.assert_array_equal(store.labels, [0, 1, 2, 0, 1, 2, 0])
    together, alone = store.read([6, 0, 3]), [store.read([i])[0] for i in (6, 0, 3)]
    np.testing.assert_array_equal(together, alone)
    assert together.shape == (3, 8, 32, 32, 3) and together.dtype == np.uint8
    assert store.column("source_time").shape == (7, 8)


def test_clips_are_found_by_id(store_path):
    store = clip_store.ClipStore(store_path, "train")
    assert store.places([store.video_ids[2], store.video_ids[0]]) == [2, 0]
    with pytest.raises(errors.UserError, match="Clips must be of the train split of .* Received: 'x', which is not"):
        store.places([store.video_ids[0], "x"])


def test_a_model_of_other_classes_sees_its_own_labels(store_path):
    store = clip_store.ClipStore(store_path, "train")
    assert store.known_to(store.info.class_names) is store
    seen = store.known_to(("class 2", "more", "class 0"))
    assert seen.labels.tolist() == [2, -1, 0, 2, -1, 0, 2] and seen.labels.dtype == np.int32
    assert seen.info.class_names == ("class 2", "more", "class 0")
    assert store.known_to(("other",)).labels.tolist() == [-1] * 7
    assert seen.known_to(("class 2",)).labels.tolist() == [-1, -1, 0, -1, -1, 0, -1]  # What is unknown stays so.
    assert store.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_dataset_json_records_how_clips_were_divided(store_path):
    info = clip_store.read_dataset_json(store_path)
    assert info.division is None and "division" not in json.loads((store_path / "dataset.json").read_text())
    divided = dataclasses.replace(info, division=clip_store.Division(0.2, 0.1, 3, r"p(\d+)"))
    clip_store.write_dataset_json(store_path, divided)
    assert clip_store.read_dataset_json(store_path) == divided
    change_json(store_path, lambda values: values["division"].update(validation_share=2))
    with pytest.raises(errors.UserError, match="their sum between 0 and 1. Received: 2 and 0.1"):
        clip_store.read_dataset_json(store_path)


def test_dataset_json_round_trip(store_path):
    info = clip_store.read_dataset_json(store_path)
    assert info.splits() == ("train", "validation")
    assert [shard.clips for shard in info.shards] == [3, 3, 1, 2]
    assert info.counts["train"] == {"class 0": 3, "class 1": 2, "class 2": 2}
    clip_store.write_dataset_json(store_path, info)
    assert clip_store.read_dataset_json(store_path) == info


def test_a_store_survives_a_pickle(store_path):
    store = clip_store.ClipStore(store_path, "train")
    store.read([0])
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.read([4]), store.read([4]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema_version=7), "dataset.json must have schema version 1 or 2. Received: 7 in "),
        (lambda v: v.update(schema_version=True), "dataset.json must have schema version 1 or 2. Received: True in "),
        (lambda v: v.pop("class_names"), "Received: Object missing required field `class_names` in .*dataset.json"),
        (lambda v: v.update(counts=[]), r"Received: Expected `object`, got `array` at `\$.counts` in"),
        (lambda v: v.update(counts={"train": {"class 0": -1}}), r"Expected `int` >= 0 at `\$.counts\[...\]\[...\]` in"),
        (lambda v: v.update(shards=[1]), r"Received: Expected `object`, got `int` at `\$.shards\[0\]` in"),
        (lambda v: v["shards"][0].update(clips="3"), r"Expected `int`, got `str` at `\$.shards\[0\].clips` in"),
        (lambda v: v["shards"][0].update(sha256="0"), r"Expected `str` matching regex .* at `\$.shards\[0\].sha256`"),
        (
            lambda v: v["shards"][0].update(split="all"),
            "split must be one of train, .* Received: 'all' in .*dataset.json",
        ),
        (lambda v: v["shards"][0].update(size=1), r"Received: unknown field `\$.shards\[0\].size` in"),
        (lambda v: v.update(extra=1), r"Received: unknown field `\$.extra` in"),
        (lambda v: v.update(dataset="\ud800"), r"matching regex .* at `\$.dataset` in"),
        (lambda v: v["layout"].update(height=40), r"Raw frames must be uint8 \[3, 8, 40, 32, 3\]"),
        (lambda v: v["layout"].update(height=1 << 17), "1…65536 px on each side. Received: .*height=131072"),
        (lambda v: v["layout"].update(encoding="jpeg"), "'frame_offsets' must be a dataset of the file itself"),
        (lambda v: v["layout"].update(encoding="gif"), "encoding must be one of jpeg, raw .* in .*dataset.json"),
        (lambda v: v["shards"][0].update(clips=4), r"'label' must be int32 \[N=4\]. Received: int32 \[3\]"),
        (
            lambda v: v["shards"][0].update(file="../x.h5"),
            "A shard must be a file name without a folder. Received: '../x.h5' in .*dataset.json",
        ),
        (
            lambda v: v["shards"][0].update(file="x" * 256),
            "A shard must be a file name without a folder. Received: 'xxx",
        ),
        (lambda v: v["shards"][0].update(file="gone.h5"), "readable HDF5 file"),
        (lambda v: v.update(class_names=["a", "b"]), r"label must be -1…1. Received: 2 in row 2 of .*train-00000.*h5"),
    ],
)
def test_a_store_that_contradicts_dataset_json_is_refused(store_path, change, message):
    change_json(store_path, change)
    with pytest.raises(errors.UserError, match=message):
        clip_store.ClipStore(store_path, "train")


def test_two_class_names_that_changed_places_are_noticed(store_path):
    change_json(store_path, lambda v: v["class_names"].sort(reverse=True), sign=False)
    with pytest.raises(errors.UserError, match="must have the content_sha256 of what it says. Received: another in"):
        clip_store.read_dataset_json(store_path)


def test_a_store_of_schema_version_1_is_still_read(store_path):
    def as_version_1(values):
        values.update(schema_version=1)
        del values["content_sha256"]

    now = clip_store.ClipStore(store_path, "train")
    for shard in now.info.shards:
        tiny_store_for_tests.make_version_1(store_path / shard.file)
    change_json(store_path, as_version_1, sign=False)
    then = clip_store.ClipStore(store_path, "train")
    assert then.video_ids == now.video_ids and then.info.schema_version == 1
    np.testing.assert_array_equal(then.read(range(7)), now.read(range(7)))
    clip_store.write_dataset_json(store_path, then.info)
    assert clip_store.read_dataset_json(store_path) == then.info


def test_an_unknown_split_a_missing_store_and_broken_json_are_refused(store_path, tmp_path):
    with pytest.raises(errors.UserError, match="Split must be one of train, validation. Received: 'test'"):
        clip_store.ClipStore(store_path, "test")
    for path, came in ((tmp_path / "none", "which is no folder"), (tmp_path, "without it")):
        with pytest.raises(errors.UserError, match=rf"\(data_prep/prepare.py makes .*\. Received: {path}, {came}$"):
            clip_store.ClipStore(path, "train")
    (store_path / "dataset.json").write_text("{")
    with pytest.raises(errors.UserError, match="must be a readable JSON file"):
        clip_store.ClipStore(store_path, "train")


def test_with_an_index_the_same_is_read_and_no_shard_before_it_is_needed(store_path, indexed, monkeypatch):
    opened = []
    read = shards.ShardReader
    monkeypatch.setattr(clip_store, "ShardReader", lambda path, *args: opened.append(path.name) or read(path, *args))
    without, store = clip_store.ClipStore(store_path, "train"), clip_store.ClipStore(indexed, "train")
    assert opened == [f"train-0000{n}-of-00003.h5" for n in range(3)]  # Of the one without.
    assert store.video_ids == without.video_ids and store.labels.tolist() == without.labels.tolist()
    assert store.labels.dtype == np.int32 and store.info.digest == without.info.digest
    opened.clear()
    np.testing.assert_array_equal(store.read([3, 5, 3]), without.read([3, 5, 3]))
    assert opened == ["train-00001-of-00003.h5"]  # Once.
    np.testing.assert_array_equal(store.column("source_time"), without.column("source_time"))
    assert opened == [f"train-0000{n}-of-00003.h5" for n in (1, 0, 2)]
    assert store.column("source_time") is store.column("source_time")
    with pytest.raises(errors.UserError, match="The column must be one of label, .* Received: 'salient'"):
        store.column("salient")


def test_a_store_keeps_no_file_open(store_path, indexed):
    for path in (store_path, indexed):
        store = clip_store.ClipStore(path, "train")
        store.read(range(7))
        assert store.column("source_frame").shape == (7, 8)
        assert not [file for file in _open_files() if path in file.parents]


def _open_files():
    found = []
    for descriptor in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # That of the folder itself.
            found.append(pathlib.Path(os.readlink(descriptor)))
    return found


def test_a_model_of_other_classes_reads_shards_that_were_not_read_before(indexed):
    seen = clip_store.ClipStore(indexed, "train").known_to(("class 1",))
    assert seen.labels.tolist() == [-1, 0, -1, -1, 0, -1, -1]
    np.testing.assert_array_equal(seen.read([6]), clip_store.ClipStore(indexed, "train").read([6]))
    assert seen.column("label").tolist() == [0, 1, 2, 0, 1, 2, 0]  # The store's own.


def test_a_shard_is_checked_when_it_is_first_read(indexed):
    clip_store.ClipStore(indexed, "train").read([0])
    (indexed / "train-00001-of-00003.h5").write_bytes(b"x" * 100)
    store = clip_store.ClipStore(indexed, "train")
    store.read([0])
    with pytest.raises(errors.UserError, match="A shard must be a readable HDF5 file. Received: .*train-00001"):
        store.read([3])


def test_a_shard_of_other_clips_than_the_index_has_is_refused(indexed):
    first, second = (indexed / f"train-0000{n}-of-00003.h5" for n in (0, 1))
    first.write_bytes(second.read_bytes())
    store = clip_store.ClipStore(indexed, "train")
    with pytest.raises(errors.UserError, match="must have the shards' video_id. Received: another than .*train-00000"):
        store.read([0])
    np.testing.assert_array_equal(store.read([3]), clip_store.ClipStore(indexed, "train").read([3]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "train-00002-of-00003.h5").unlink(), "must hold the shards .* without train-00002-of"),
        (lambda path: (path / "train.index").unlink(), "The index of a split must be a readable file. Received: "),
        (lambda path: (path / "train.index").write_bytes(b"x"), "must have the SHA-256 in dataset.json. Received: "),
        (
            lambda path: change_json(path, lambda v: v["indexes"]["train"].update(file="../x")),
            "An index must be a file name without a folder. Received: '../x'",
        ),
        (lambda path: change_json(path, lambda v: v["shards"][0].update(clips=2)), r"'label' must be int32 \[N=6\]"),
        (
            lambda path: change_json(path, lambda v: v.update(class_names=["a"])),
            "label must be -1…0. Received: 1 in row 1 of .*train.index",
        ),
    ],
)
def test_an_index_that_contradicts_the_store_is_refused(indexed, change, message):
    change(indexed)
    with pytest.raises(errors.UserError, match=message):
        clip_store.ClipStore(indexed, "train")


def test_an_index_of_another_version_or_of_no_hdf5_is_refused(tmp_path):
    path = tmp_path / "x.index"
    split_index.write(path, np.array([0, -1]), ["a", "é"], [10])
    read = functools.partial(split_index.read, path, clips=2, shards=1, classes=1)
    found = read(files.sha256(path))
    assert found.labels.tolist() == [0, -1] and list(found.video_ids) == ["a", "é"] and found.shard_bytes == [10]
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 2
    with pytest.raises(errors.UserError, match="The index of a split must have schema version 1. Received: 2 in"):
        read(files.sha256(path))
    path.write_bytes(b"none")
    with pytest.raises(errors.UserError, match="The index of a split must be a readable HDF5 file. Received: "):
        read(files.sha256(path))
