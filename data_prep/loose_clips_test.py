"""Videos in no store become the clips that `prepare` makes of them."""

import os
import pathlib

import cv2
import numpy as np
import pytest

from common import errors
from common.clips.clip_store import ClipStore
from common.runs.clip_format import ClipFormat
from data_prep import building, loose_clips, sampling, videos_for_tests

FORM = ClipFormat((3, 8, 12), "stretch", "linspace", ("left", "right"))


def _form(**changes):
    return ClipFormat(**{**vars(FORM), **changes})


@pytest.mark.parametrize(
    "rules", [{}, {"resize": "center_crop", "subsampling": "released"}], ids=["the paper's", "others"]
)
def test_a_clip_is_that_of_a_store(tmp_path, rules):
    config = videos_for_tests.folder_config(tmp_path, {"c/a.avi": 7, "c/b.avi": 2}, encoding="raw", **rules)
    assert building.prepare(config) == 0
    stored = ClipStore(config.out, "train")
    sources = loose_clips.find([tmp_path / "videos" / "c"])
    loose_clips.write_store(tmp_path / "own", [loose_clips.read(source, _form(**rules)) for source in sources], FORM)
    own = ClipStore(tmp_path / "own", loose_clips.SPLIT)
    np.testing.assert_array_equal(own.read([0, 1]), stored.read([0, 1]))
    for name in ("source_frame", "source_time", "source_frames", "source_fps"):
        np.testing.assert_array_equal(own.column(name), stored.column(name))
    assert own.video_ids == ("a", "b") and own.labels.tolist() == [-1, -1]
    assert own.info.class_names == FORM.class_names


def test_an_array_is_treated_as_a_video_is():
    frames = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), np.uint8)
    clip = loose_clips.of_array(frames, FORM, "mine")
    assert clip.source_frame.tolist() == [0, 4, 8] and clip.video_id == "mine"
    np.testing.assert_array_equal(clip.frames, [sampling.resize(frames[i], 8, 12) for i in (0, 4, 8)])
    exact = frames[:3, :8, :12]
    np.testing.assert_array_equal(loose_clips.of_array(exact, FORM).frames, exact)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 4), np.uint8),
        np.zeros((4, 8, 8, 3)),
        np.zeros((4, 0, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(errors.UserError, match=r"must be uint8 \[frames, h, w, 3\], at least 2 frames. Received: "):
        loose_clips.of_array(array, FORM)


def test_files_and_folders_are_found_each_once(tmp_path):
    for name in ("x/b.avi", "x/a.avi", "y/a.avi", "x/below/c.avi"):
        videos_for_tests.film(tmp_path / name, 2)
    (tmp_path / "x" / "notes.txt").write_text("no video")
    found = loose_clips.find([tmp_path / "x", tmp_path / "x" / "a.avi", tmp_path / "y" / "a.avi"])
    assert [source.path.relative_to(tmp_path).as_posix() for source in found] == ["x/a.avi", "x/b.avi", "y/a.avi"]
    assert [source.video_id for source in found] == ["x-a.avi", "b", "y-a.avi"]
    assert [source.named for source in found] == [True, False, True]


def test_a_video_is_found_once_however_its_path_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    videos_for_tests.film(tmp_path / "x" / "a.avi", 2)
    paths = [pathlib.Path(name) for name in ("x", "x/a.avi", "x/../x/a.avi", tmp_path / "x" / "a.avi")]
    assert loose_clips.find(paths) == [loose_clips.Source("a", pathlib.Path("x/a.avi"))]


def test_a_folder_of_frames_has_its_name_from_within_too(tmp_path, monkeypatch):
    write_frames(tmp_path / "clip", "jpg")
    monkeypatch.chdir(tmp_path / "clip")
    assert loose_clips.find([pathlib.Path(".")]) == [loose_clips.Source("clip", pathlib.Path("."))]


def write_frames(folder, suffix, numbers=range(3)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:05d}.{suffix}"), np.full((8, 12, 3), 50 * number, np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_a_folder_of_frames_is_a_video(tmp_path, suffix):
    write_frames(tmp_path, suffix)
    (source,) = loose_clips.find([tmp_path])
    assert source.path == tmp_path and source.named
    assert loose_clips.read(source, FORM).frames[:, 0, 0, 0].tolist() == [0, 50, 100]


def test_folders_of_frames_are_the_videos_of_a_folder_that_holds_nothing_else(tmp_path):
    for name in ("b", "a"):
        write_frames(tmp_path / name, "jpg")
    assert [(source.video_id, source.named) for source in loose_clips.find([tmp_path])] == [("a", False), ("b", False)]
    videos_for_tests.film(tmp_path / "c.avi", 3)
    assert [source.video_id for source in loose_clips.find([tmp_path / "c.avi", tmp_path])] == ["c"]
    assert [source.named for source in loose_clips.find([tmp_path / "c.avi", tmp_path])] == [True]


def test_what_is_odd_about_a_video_is_told(tmp_path, caplog):
    write_frames(tmp_path / "clip", "jpg", (0, 1, 4))
    source = loose_clips.Source("clip", tmp_path / "clip")
    assert loose_clips.read(source, FORM).frames[:, 0, 0, 0].tolist() == [0, 50, 200]
    assert "clip: " in caplog.text and "missing" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.avi", "must name files or folders. Received: .*nothing.avi, which is not there"),
        ("pipe.avi", "must name files or folders. Received: .*pipe.avi, which is neither"),
        ("empty", "must name videos or folders of them. Received: .*empty without any"),
    ],
)
def test_names_of_no_video_are_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.avi")
    with pytest.raises(errors.UserError, match=message):
        loose_clips.find([tmp_path / name])


@pytest.mark.parametrize(
    ("frames", "message"), [(0, "must be readable. Received: .*a.avi: "), (1, "at least 2 frames.*a.avi with 1")]
)
def test_videos_that_cannot_be_a_clip_are_refused(tmp_path, frames, message):
    videos_for_tests.film(tmp_path / "a.avi", frames)
    with pytest.raises(errors.UserError, match=message):
        loose_clips.read(loose_clips.Source("a", tmp_path / "a.avi"), FORM)
