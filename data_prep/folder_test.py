import os

import numpy as np
import pytest

from common import errors
from data_prep import encoding, folder, plans

CODECS = {"avi": ("mjpeg", "yuvj420p"), "gif": ("gif", "gray")}


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
    with pytest.raises(errors.UserError, match="must be one split.*Received: splits train, test"):
        folder.plan(tmp_path, ("train", "test"))


def test_other_files_are_left_alone_and_told_and_hidden_ones_are_left_alone(tmp_path):
    _touch(
        tmp_path,
        "a/1.avi",
        "a/notes.txt",
        "a/more/2.avi",
        "a/.hidden.avi",
        ".git/x.avi",
        "readme.md",
        "empty/thumbs.db",
    )
    _touch(tmp_path, "none/.hidden", *(f"b/{n}.txt" for n in range(7)), "b/1.avi")
    plan = folder.plan(tmp_path, None)
    assert plan.class_names == ("a", "b") and len(plan.items["train"]) == 2
    left_alone = "left alone (not videos):"
    assert plan.skipped == (
        f"{tmp_path}: 1 {left_alone} readme.md",
        f"{tmp_path / 'a'}: 2 {left_alone} more, notes.txt",
        f"{tmp_path / 'b'}: 7 {left_alone} 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, and 2 more",
        f"{tmp_path / 'empty'} is not a class: it holds no clips",
        f"{tmp_path / 'empty'}: 1 {left_alone} thumbs.db",
    )


def test_videos_of_any_name_are_found_by_their_content(tmp_path):
    for number, (suffix, name) in enumerate(
        [("avi", "1.video"), ("avi", "2"), ("gif", "3.animation"), ("avi", "4.png")]
    ):
        path = tmp_path / f"{number}.{suffix}"
        encoding.write_video(path, [np.full((16, 16, 3), 90 * n, np.uint8) for n in range(3)], *CODECS[suffix])
        _touch(tmp_path, f"a/{name}")
        path.rename(tmp_path / "a" / name)
    _touch(tmp_path, "a/6.y4m", "a/7.M2T", "a/8.qt", "a/9.divx", "a/10.mxf", "a/11.rm")  # Failures, not left alone.
    plan = folder.plan(tmp_path, None)
    assert len(plan.items["train"]) == 10 and not plan.skipped


def test_what_is_no_file_is_left_alone(tmp_path):
    _touch(tmp_path, "a/1.avi")
    os.mkfifo(tmp_path / "a" / "pipe.avi")
    (tmp_path / "a" / "gone.avi").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "linked.avi").symlink_to("1.avi")
    plan = folder.plan(tmp_path, None)
    assert [item.path for item in plan.items["train"]] == ["a/1.avi", "a/linked.avi"]
    assert plan.skipped == (f"{tmp_path / 'a'}: 2 left alone (not videos): gone.avi, pipe.avi",)


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
    with pytest.raises(errors.UserError, match="--source must hold folders of classes.*a is not a class: it holds no"):
        folder.plan(tmp_path, None)
    with pytest.raises(errors.UserError, match="--source must be a folder. Received: .*(a file)"):
        folder.plan(tmp_path / "a" / "readme.txt", None)


def test_folders_of_frames_are_clips_of_their_class(tmp_path):
    _touch(tmp_path, "a/one/000001.jpg", "a/one/000002.jpg", "a/two/img_1.PNG", "b/3.mp4", "b/cover/readme.txt")
    plan = folder.plan(tmp_path, None)
    assert plan.class_names == ("a", "b")
    assert [(item.video_id, item.path) for item in plan.items["train"]] == [
        ("a-one", "a/one"),
        ("a-two", "a/two"),
        ("b-3.mp4", "b/3.mp4"),
    ]
    assert plan.skipped == (f"{tmp_path / 'b'}: 1 left alone (not videos): cover",)


def test_a_class_may_hold_pictures_beside_its_videos(tmp_path):
    _touch(tmp_path, "a/1.mp4", "a/1.jpg")
    plan = folder.plan(tmp_path, None)
    assert [item.path for item in plan.items["train"]] == ["a/1.mp4"]
    assert plan.skipped == (f"{tmp_path / 'a'}: 1 left alone (not videos): 1.jpg",)


def test_clips_without_folders_of_classes_are_unlabelled(tmp_path):
    _touch(tmp_path, "b.mp4", "a.webm", "notes.txt", "shot/0001.jpg", "empty/readme.txt")
    plan = folder.plan(tmp_path, None)
    assert plan.class_names == ()
    assert plan.items == {
        "test": (
            plans.Item("a.webm", "a.webm", -1),
            plans.Item("b.mp4", "b.mp4", -1),
            plans.Item("shot", "shot", -1),
        )
    }
    assert plan.skipped[0] == f"{tmp_path}: 1 left alone (not videos): notes.txt"
    assert list(folder.plan(tmp_path, ("validation",)).items) == ["validation"]


def test_a_split_without_classes_is_unlabelled(tmp_path):
    _touch(tmp_path, "train/a/1.avi", "test/2.avi")
    plan = folder.plan(tmp_path, None)
    assert plan.items["train"][0].label == 0
    assert plan.items["test"] == (plans.Item("test-2.avi", "test/2.avi", -1),)


def test_clips_beside_classes_are_left_alone_and_told(tmp_path):
    _touch(tmp_path, "a/1.avi", "2.avi", "shot/0001.jpg")
    plan = folder.plan(tmp_path, None)
    assert [item.path for item in plan.items["train"]] == ["a/1.avi"]
    assert plan.skipped == (f"{tmp_path}: 2 left alone (beside folders of classes): 2.avi, shot",)


def test_names_that_collide_or_cannot_be_ids_refuse_nothing(tmp_path):
    _touch(tmp_path, "put-down/a.mp4", "put/down-a.mp4", "put/b.mp4", "put/x..y.avi", "put/new\nline.avi")
    _touch(tmp_path, os.fsdecode(b"caf\xe9/\xff.avi"), f"{'n' * 255}/{'m' * 251}.avi")
    plan = folder.plan(tmp_path, None)
    items = plan.items["train"]
    assert len({item.video_id for item in items}) == len(items) == 7
    assert [item.video_id for item in items if len(item.video_id) < 12] == ["put-b.mp4"]
    assert plan.class_names == (r"caf\xe9", "n" * 255, "put", "put-down")
    assert all((tmp_path / item.path).exists() for item in items)


def test_the_folder_of_the_store_is_no_class(tmp_path):
    _touch(tmp_path, "train/a/1.avi", "clips/train-00000-of-00001.h5")
    assert folder.plan(tmp_path, None, tmp_path / "clips").class_names == ("a",)
    with pytest.raises(errors.UserError, match="train beside clips"):
        folder.plan(tmp_path, None, tmp_path / "elsewhere")


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
