import multiprocessing
import threading
import time

import numpy as np
import pytest

from common import errors
from common.clips import batches, clip_store, tiny_store_for_tests


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("batches") / "clips"
    tiny_store_for_tests.write_tiny_store(path, clips={"train": 11}, clips_per_shard=4)
    return clip_store.ClipStore(path, "train")


def test_every_clip_comes_once_and_the_last_batch_is_smaller():
    order = batches.batch_indices(11, 4, shuffle_seed=(0, 0))
    assert [len(indices) for indices in order] == [4, 4, 3]
    assert sorted(np.concatenate(order)) == list(range(11))


def test_the_order_follows_seed_and_epoch():
    def order(seed, epoch):
        return np.concatenate(batches.batch_indices(50, 4, shuffle_seed=(seed, epoch))).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)
    assert np.concatenate(batches.batch_indices(5, 2)).tolist() == [0, 1, 2, 3, 4]


def test_the_order_of_seed_0_never_changes():
    # Runs are resumed by later versions: the order that a seed stands for is part of the contract.
    assert np.concatenate(batches.batch_indices(8, 3, shuffle_seed=(0, 0))).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_batches_are_those_of_the_order_whatever_the_threads(store, num_threads):
    order = batches.batch_indices(len(store), 4, shuffle_seed=(3, 0))
    for indices, batch in zip(order, batches.batches(store, order, num_threads=num_threads), strict=True):
        np.testing.assert_array_equal(batch.indices, indices)
        np.testing.assert_array_equal(batch.frames, store.read(indices))
        np.testing.assert_array_equal(batch.labels, store.labels[indices])
        assert batch.labels.dtype == np.int64


def test_an_abandoned_iterator_ends_its_threads(store):
    before = set(threading.enumerate())
    iterator = batches.batches(store, batches.batch_indices(len(store), 1))
    next(iterator)
    iterator.close()
    assert set(threading.enumerate()) <= before  # Those of other tests may end meanwhile.


def test_reading_ahead_is_bounded(store, monkeypatch):
    read = []
    monkeypatch.setattr(store, "read_into", lambda index, out: read.append(index))
    iterator = batches.batches(store, batches.batch_indices(len(store), 1), read_ahead=2)
    next(iterator)
    time.sleep(0.1)
    assert len(read) <= 3
    iterator.close()


def test_an_error_in_a_thread_reaches_the_caller(store, monkeypatch):
    def fail(index, out):
        raise errors.UserError("Frames are JPEG images. Received: none")

    monkeypatch.setattr(store, "read_into", fail)
    with pytest.raises(errors.UserError, match="Received: none"):
        next(batches.batches(store, batches.batch_indices(len(store), 2)))


def _sums(store, queue):
    queue.put([int(batch.frames.sum()) for batch in batches.batches(store, batches.batch_indices(len(store), 3))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_works_in_another_process(store, method):
    expected = [int(batch.frames.sum()) for batch in batches.batches(store, batches.batch_indices(len(store), 3))]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_sums, args=(store, queue))
    process.start()
    assert queue.get(timeout=600) == expected
    process.join()


def test_impossible_sizes_are_refused(store):
    with pytest.raises(errors.UserError, match="batch_size must be at least 1"):
        batches.batch_indices(3, 0)
    with pytest.raises(errors.UserError, match="num_threads and read_ahead"):
        next(batches.batches(store, [], num_threads=0))
