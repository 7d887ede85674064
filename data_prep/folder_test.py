import pytest

from common import errors
from data_prep import folder, plans


def test_classes_are_folders_in_alphabetical_order(tmp_path):
    _touch(tmp_path, "wave/b.mp4", "wave/a.MOV", "hold/a.webm")
    plan = folder.plan(tmp_path, None)
    assert plan.class_names == ("hold", "wave")
    assert plan.items == {
        "train": (
            plans.Item("hold-a.webm", "hold/a.webm", 0),
            plans.Item("wave-a.MOV", "wave/a.MOV", 1),
            plans.Item("wave-b.mp4", "wave/b.mp4", 1),
        )
    }


def test_splits_share_their_classes(tmp_path):
    _touch(tmp_path, "train/b/1.avi", "train/a/1.avi", "validation/b/1.avi", "test/c/9.avi")
    plan = folder.plan(tmp_path, None)
    assert plan.class_names == ("a", "b", "c")
    assert {split: [item.label for item in items] for split, items in plan.items.items()} == {
        "train": [0, 1],
        "validation": [1],
        "test": [2],
    }
    assert list(folder.plan(tmp_path, ("test",)).items) == ["test"]


def test_without_split_folders_the_clips_go_to_the_split_that_is_named(tmp_path):
    _touch(tmp_path, "a/1.avi")
    assert list(folder.plan(tmp_path, ("validation",)).items) == ["validation"]
    with pytest.raises(errors.UserError, match="holds one split.*Received: splits train, test"):
        folder.plan(tmp_path, ("train", "test"))


def test_other_files_and_hidden_ones_are_left_alone(tmp_path):
    _touch(tmp_path, "a/1.avi", "a/notes.txt", "a/.hidden.avi", ".git/x.avi", "readme.md", "empty/thumbs.db")
    plan = folder.plan(tmp_path, None)
    assert plan.class_names == ("a",) and len(plan.items["train"]) == 1


def test_a_missing_split_is_refused(tmp_path):
    _touch(tmp_path, "train/a/1.avi")
    with pytest.raises(errors.UserError, match="must have its folder. Received: .* without test"):
        folder.plan(tmp_path, ("train", "test"))


def test_classes_beside_splits_are_refused(tmp_path):
    _touch(tmp_path, "train/a/1.avi", "wave/1.avi")
    with pytest.raises(errors.UserError, match="all splits .* or all classes. Received: train beside wave"):
        folder.plan(tmp_path, None)


def test_a_folder_without_videos_is_refused(tmp_path):
    _touch(tmp_path, "a/readme.txt")
    with pytest.raises(errors.UserError, match="CLASS folders must hold video files"):
        folder.plan(tmp_path, None)
    with pytest.raises(errors.UserError, match="--source must be a folder. Received: .*(a file)"):
        folder.plan(tmp_path / "a" / "readme.txt", None)


def test_names_that_cannot_be_ids_are_refused(tmp_path):
    _touch(tmp_path, "a/x..y.avi")
    with pytest.raises(errors.UserError, match="without path separators, '..'.*Received: 'a-x..y.avi'"):
        folder.plan(tmp_path, None)


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
