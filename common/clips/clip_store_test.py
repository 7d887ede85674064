import json
import pickle

import numpy as np
import pytest

from common import errors
from common.clips import clip_store, tiny_store_for_tests


@pytest.fixture
def store_path(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 7, "validation": 2}, clips_per_shard=3)
    return tmp_path / "clips"


def change_json(path, change):
    values = json.loads((path / "dataset.json").read_text())
    change(values)
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
        (lambda v: v.update(schema_version=7), "dataset.json must have schema version 1. Received: 7 in "),
        (lambda v: v.pop("class_names"), "must have the fields of DatasetInfo"),
        (lambda v: v.update(counts=[]), "must have the fields of DatasetInfo"),
        (lambda v: v.update(shards=[1]), "must have the fields of DatasetInfo"),
        (lambda v: v["shards"][0].update(clips="3"), "must have a number of clips and a SHA-256"),
        (lambda v: v.update(extra=1), "must have the fields of DatasetInfo"),
        (lambda v: v["layout"].update(height=40), "Raw frames must be uint8"),
        (lambda v: v["layout"].update(encoding="jpeg"), "'frame_offsets' must be a dataset of the file itself"),
        (lambda v: v["layout"].update(encoding="gif"), "encoding must be one of jpeg, raw"),
        (lambda v: v["shards"][0].update(clips=4), "promises 4 clips in train-00000-of-00003.h5. Received: 3"),
        (
            lambda v: v["shards"][0].update(file="../x.h5"),
            "A shard must be a file name and a split. Received: '../x.h5'",
        ),
        (lambda v: v["shards"][0].update(file="gone.h5"), "readable HDF5 file"),
        (lambda v: v.update(class_names=["a", "b"]), "Labels must be -1…1. Received: 0…2"),
    ],
)
def test_a_store_that_contradicts_dataset_json_is_refused(store_path, change, message):
    change_json(store_path, change)
    with pytest.raises(errors.UserError, match=message):
        clip_store.ClipStore(store_path, "train")


def test_an_unknown_split_a_missing_store_and_broken_json_are_refused(store_path, tmp_path):
    with pytest.raises(errors.UserError, match="Split must be one of train, validation. Received: 'test'"):
        clip_store.ClipStore(store_path, "test")
    with pytest.raises(
        errors.UserError, match="A clip store's dataset.json must be a readable JSON file. Received: .*none"
    ):
        clip_store.ClipStore(tmp_path / "none", "train")
    (store_path / "dataset.json").write_text("{")
    with pytest.raises(errors.UserError, match="must be a readable JSON file"):
        clip_store.ClipStore(store_path, "train")
