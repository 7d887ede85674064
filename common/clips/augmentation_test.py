import numpy as np
import pytest

from common import errors
from common.clips import augmentation, batches, clip_store, tiny_store_for_tests
from common.clips import classes as class_lists
from common.clips.augmentation import Augmentation


def changed(config, frames, seed=0, epoch=0, index=0, label=0):
    frames = frames.copy()
    change = augmentation.augmenter(config, seed, epoch)
    return change(index, frames, label), frames


def many(config, frames, count=200):
    return [changed(config, frames, index=index) for index in range(count)]


@pytest.fixture
def clip():
    """Each pixel is its own: time in red, row in green, column in blue."""
    frames = np.zeros((8, 40, 60, 3), np.uint8)
    time, row, column = np.indices(frames.shape[:3])
    frames[..., 0], frames[..., 1], frames[..., 2] = time, row, column
    return frames


def test_by_default_nothing_is_done():
    assert augmentation.augmenter(Augmentation(), 0, 0) is None


def test_seed_epoch_and_clip_decide_and_nothing_else(clip):
    config = Augmentation(crop=0.5, mirror=(0,), time_jitter=2)
    label, frames = changed(config, clip, 1, 2, 3)
    np.testing.assert_array_equal(frames, changed(config, clip, 1, 2, 3)[1])
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert (changed(config, clip, *other)[1] != frames).any()


def test_what_seed_0_does_never_changes(clip):
    # Runs are resumed by later versions: what a seed stands for is part of the contract.
    config = Augmentation(crop=0.5, mirror=(1, 0), time_jitter=1)
    label, frames = changed(config, clip)
    assert label == 1 and frames[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 3, 5, 7, 7]
    assert frames[0, [0, -1], [0, -1], 1:].tolist() == [[7, 36], [28, 4]]  # Rows and columns of two corners.


def test_kinds_do_not_alter_each_other(clip):
    jitter, crop, flip = {"time_jitter": 2}, {"crop": 0.5}, {"mirror": (0,)}
    for index in range(20):
        _, frames = changed(Augmentation(**jitter, **crop, **flip), clip, index=index)
        _, expected = changed(Augmentation(**jitter), clip, index=index)
        _, expected = changed(Augmentation(**crop), expected, index=index)
        _, expected = changed(Augmentation(**flip), expected, index=index)
        np.testing.assert_array_equal(frames, expected)


def test_half_of_the_clips_are_mirrored_and_their_labels_swap(clip):
    config = Augmentation(mirror=(0, 2, 1))
    for label, swapped in ((0, 0), (1, 2), (2, 1)):
        mirrored = 0
        for index in range(200):
            new, frames = changed(config, clip, index=index, label=label)
            is_mirrored = frames[0, 0, 0, 2] == 59
            np.testing.assert_array_equal(frames, clip[:, :, ::-1] if is_mirrored else clip)
            assert new == (swapped if is_mirrored else label)
            mirrored += is_mirrored
        assert 75 < mirrored < 125


def test_a_crop_is_one_enlarged_window_of_all_frames(clip):
    corners = []
    for _, frames in many(Augmentation(crop=0.5), clip):
        assert (frames[..., 1:] == frames[:1, ..., 1:]).all() and (frames[..., 0] == clip[..., 0]).all()
        top, bottom = frames[0, 0, 0, 1], frames[0, -1, 0, 1]
        left, right = frames[0, 0, 0, 2], frames[0, 0, -1, 2]
        rows, columns = int(bottom) - top + 1, int(right) - left + 1
        assert 20 <= rows <= 40 and 30 <= columns <= 60 and abs(columns / rows - 1.5) < 0.1  # As wide as it was.
        corners.append((int(top), int(left), rows))
    tops, _, sizes = np.array(corners).T
    assert tops.min() == 0 and tops.max() > 15 and sizes.min() < 22 and sizes.max() > 38
    assert any(top + rows == 40 for top, _, rows in corners)


def test_jitter_keeps_the_order_and_stays_within_its_reach(clip):
    seen = set()
    for _, frames in many(Augmentation(time_jitter=1), clip):
        times = frames[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(frames, clip[times])
        assert (np.diff(times) >= 0).all() and np.abs(times - np.arange(8)).max() <= 1
        seen.update((times - np.arange(8)).tolist())
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_loaders_threads_change_clips_and_labels(tmp_path, num_threads):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 9})
    store = clip_store.ClipStore(tmp_path / "clips", "train")
    change = augmentation.augmenter(Augmentation(crop=0.7, mirror=(0, 2, 1), time_jitter=1), 5, 1)
    order = batches.batch_indices(9, 4, shuffle_seed=(5, 1))
    labels = []
    for indices, batch in zip(
        order, batches.batches(store, order, num_threads=num_threads, change=change), strict=True
    ):
        clips = store.read(indices)
        expected = [change(int(i), clip, int(store.labels[i])) for i, clip in zip(indices, clips, strict=True)]
        np.testing.assert_array_equal(batch.frames, clips)
        assert batch.labels.tolist() == expected
        labels += [(int(store.labels[i]), new) for i, new in zip(indices, expected, strict=True)]
    assert {(2, 1), (2, 2)} <= set(labels)


def test_left_and_right_swap_in_something_something():
    names = class_lists.something_something_v2()
    mirror = augmentation.mirrored_classes(names, "something_something_v2")
    pairs = {here: there for here, there in enumerate(mirror) if here != there}
    assert pairs == {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}
    # All classes that name a side, and no other.
    sided = {k for k, name in enumerate(names) if {"left", "right"} & set(name.split()) and "pulling it" not in name}
    assert sided == set(pairs)


def test_a_table_of_ones_own(tmp_path):
    (tmp_path / "table.tsv").write_text("to the left\tto the right\n")
    names = ("to the right", "up", "to the left")
    assert augmentation.mirrored_classes(names, str(tmp_path / "table.tsv")) == (2, 1, 0)
    assert augmentation.mirrored_classes(names, "none") == (0, 1, 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a\tz\n", r"the names of two classes of the clips.* Received: 'a\\tz' in"),
        ("a b\n", "with a tab between. Received: 'a b' in"),
        ("a\tb\tc\n", "with a tab between"),
        ("a\ta\n", "must swap with one other class"),
        ("a\tb\nb\tc\n", r"must swap with one other class. Received: 'b\\tc' in"),
        (b"\xff", "--flip must be none, something_something_v2, or a text file"),
        (None, "No such file"),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path, table, message):
    if table is not None:
        (tmp_path / "t").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(errors.UserError, match=message):
        augmentation.mirrored_classes(("a", "b", "c"), str(tmp_path / "t"))


def test_the_shipped_table_serves_some_of_its_classes_but_no_half_of_a_pair():
    names = ("Pushing something from right to left", "Holding something", "Pushing something from left to right")
    assert augmentation.mirrored_classes(names, "something_something_v2") == (2, 1, 0)
    with pytest.raises(errors.UserError, match="must be the names of two classes of the clips"):
        augmentation.mirrored_classes(names[:2], "something_something_v2")


def test_the_shipped_table_is_refused_for_other_classes():
    with pytest.raises(errors.UserError, match="Received: 'Pulling something from left to right.t"):
        augmentation.mirrored_classes(class_lists.KTH, "something_something_v2")
