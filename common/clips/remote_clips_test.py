"""Clip stores at a URL."""

import multiprocessing
import pathlib
import pickle
from concurrent import futures

import numpy as np
import pytest

from common import errors
from common.clips import batches, clip_store, tiny_store_for_tests
from common.remote import Cache

pytest.importorskip("fsspec")
from common import counted_files_for_tests  # noqa: E402

SHARDS = [f"train-0000{number}-of-00004.h5" for number in range(4)]


@pytest.fixture(autouse=True)
def counted(tmp_path, monkeypatch):
    counted_files_for_tests.register()
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.txt"))


@pytest.fixture(params=["indexed", "not indexed"])
def folder(request, tmp_path):
    clips = {"train": 10, "validation": 2}
    tiny_store_for_tests.write_tiny_store(
        tmp_path / "clips", clips=clips, clips_per_shard=3, indexed=request.param == "indexed"
    )
    return tmp_path / "clips"


def indexed(folder):
    return (folder / "train.index").exists()


def size_of(folder, *names):
    return sum((folder / name).stat().st_size for name in names)


def open_remote(folder, split="train", size=10**8):
    return clip_store.ClipStore(f"counted://{folder}", split, Cache(folder.parent / "cache", size / 10**9))


def test_clips_at_a_url_are_those_of_the_folder(folder):
    local, store = clip_store.ClipStore(folder, "train"), open_remote(folder)
    assert store.directory == f"counted://{folder}" and store.info == local.info
    assert store.video_ids == local.video_ids and store.labels.tolist() == local.labels.tolist()
    np.testing.assert_array_equal(store.read(range(10)), local.read(range(10)))
    np.testing.assert_array_equal(store.column("source_time"), local.column("source_time"))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read([7]), local.read([7]))
    np.testing.assert_array_equal(store.known_to(("class 1",)).read([3]), local.read([3]))
    names = [*SHARDS, *(["train.index"] if indexed(folder) else [])]
    assert counted_files_for_tests.fetched() == {name: [size_of(folder, name)] for name in names}
    assert store.cached_bytes == size_of(folder, *SHARDS) and local.cached_bytes == 0


def test_with_an_index_only_shards_that_are_read_are_fetched(folder):
    store = open_remote(folder)
    store.read([4, 5, 4])
    fetched = sorted(counted_files_for_tests.fetched())
    assert fetched == ([SHARDS[1], "train.index"] if indexed(folder) else SHARDS)
    open_remote(folder).read([3])
    assert sorted(counted_files_for_tests.fetched()) == fetched


def _read_share(url, cache, rank):
    """Reads one half of every batch, two epochs long; returns index -> clip of each epoch."""
    counted_files_for_tests.register()
    store = clip_store.ClipStore(url, "train", Cache(pathlib.Path(cache), 0.1))
    epochs = []
    for epoch in range(2):
        order = [batch[rank::2] for batch in batches.batch_indices(len(store), 4, shuffle_seed=(0, epoch))]
        read = batches.batches(store, order)
        epochs.append({int(i): clip for batch in read for i, clip in zip(batch.indices, batch.frames, strict=True)})
    return epochs


def test_two_processes_that_share_every_batch_fetch_each_byte_once(folder, monkeypatch):
    monkeypatch.setenv("COUNTED_SECONDS", "0.2")
    context = multiprocessing.get_context("spawn")
    arguments = f"counted://{folder}", str(folder.parent / "cache")
    with futures.ProcessPoolExecutor(1, context) as first, futures.ProcessPoolExecutor(1, context) as second:
        halves = [pool.submit(_read_share, *arguments, rank) for rank, pool in enumerate((first, second))]
        epochs = [one | other for one, other in zip(*(half.result(600) for half in halves), strict=True)]
    local = clip_store.ClipStore(folder, "train").read(range(10))
    for read in epochs:
        np.testing.assert_array_equal(np.stack([read[index] for index in range(10)]), local)
    names = [*SHARDS, *(["train.index"] if indexed(folder) else [])]
    assert counted_files_for_tests.fetched() == {name: [size_of(folder, name)] for name in names}


def test_a_cache_for_one_shard_is_enough_to_read_all_by_several_threads(folder):
    size = max(size_of(folder, name) for name in SHARDS) + 10_000  # The index and the last, smaller shard.
    store = open_remote(folder, size=size)
    order = batches.batch_indices(10, 4)
    read = np.concatenate([batch.frames for batch in batches.batches(store, order, num_threads=4)])
    np.testing.assert_array_equal(read, clip_store.ClipStore(folder, "train").read(range(10)))
    kept = sum(path.stat().st_size for path in (folder.parent / "cache").iterdir())
    assert 0 < kept <= size


def test_a_cache_that_is_too_small_for_a_shard_is_refused(folder):
    with pytest.raises(errors.UserError, match="--cache_gb must be at least .*, to hold .*counted://"):
        open_remote(folder, size=size_of(folder, SHARDS[0]) - 1)


def test_what_is_wrong_at_a_url_is_one_line_and_leaves_nothing(folder):
    store = open_remote(folder)
    kept = sorted((folder.parent / "cache").iterdir())
    for change, message in (
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "must have the SHA-256 in dataset.json, .* bytes from"),
        (lambda path: path.unlink(), "Clips at a URL must be readable. Received: .*FileNotFoundError"),
    ):
        for name in SHARDS:
            change(folder / name)
        if indexed(folder):
            with pytest.raises(errors.UserError, match=message):
                store.read([0])
            with pytest.raises(errors.UserError, match=message):
                list(batches.batches(store, [np.arange(4)]))
        else:
            store.read([0])  # All is there already.
        assert sorted((folder.parent / "cache").iterdir()) == kept
    (folder / "dataset.json").write_text("{")
    with pytest.raises(errors.UserError, match="dataset.json must be a readable JSON file. Received: counted://"):
        open_remote(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(
        errors.UserError, match="Clips at a URL must be readable. Received: counted://.*/dataset.json: "
    ):
        open_remote(folder)


def test_a_store_that_changed_at_its_url_is_another(folder):
    before = open_remote(folder).read([0])
    clips = {"train": 10, "validation": 2}
    tiny_store_for_tests.write_tiny_store(folder, clips=clips, clips_per_shard=3, indexed=indexed(folder), seed=1)
    np.testing.assert_array_equal(open_remote(folder).read([0]), clip_store.ClipStore(folder, "train").read([0]))
    assert not np.array_equal(open_remote(folder).read([0]), before)
