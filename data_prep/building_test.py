import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import h5py
import numpy as np
import pytest
from absl import logging

from common import errors, locks, units
from common.clips import clip_store
from common.launching import Launch
from data_prep import building, encoding, ground_truth, plans, shard_jobs, verification, videos_for_tests


def test_a_folder_of_videos_becomes_a_store(tmp_path, capfd):
    config = videos_for_tests.folder_config(
        tmp_path, {"train/up/a.avi": 5, "train/down/b.avi": 2, "validation/up/c.avi": 9}
    )
    assert building.prepare(config) == 0
    store = clip_store.ClipStore(config.out, "train")
    assert store.info.class_names == ("down", "up") and store.info.splits() == ("train", "validation")
    assert store.info.counts == {"train": {"down": 1, "up": 1}, "validation": {"down": 0, "up": 1}}
    assert store.video_ids == ("down-b.avi", "up-a.avi") and store.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(store.column("source_frame"), [[0, 1, 1], [0, 2, 4]])  # i/2 and 2i of 2 and 5 frames.
    np.testing.assert_array_equal(store.column("source_frames"), [2, 5])
    np.testing.assert_allclose(store.column("source_time"), [[0, 0.1, 0.1], [0, 0.2, 0.4]])
    np.testing.assert_array_equal(store.column("source_fps"), [10, 10])
    levels = store.read([0, 1]).mean((2, 3, 4))  # Frame n of a film is grey, 10 + 4 n.
    np.testing.assert_allclose(levels, [[10, 14, 14], [10, 18, 26]], atol=2)
    assert list(verification.problems(config.out)) == []
    assert "3/3" in capfd.readouterr().err


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/0.avi": 0, "a/1.avi": 4, "a/2.avi": 4, "a/3.avi": 20})
    truncated = tmp_path / "videos" / "a" / "3.avi"
    data = truncated.read_bytes()
    truncated.write_bytes(data[: data.rindex(b"\xff\xd8\xff")])  # Where its last picture begins.
    assert building.prepare(config) == 1
    ((video_id, path, reason),) = _rows(config.out / "failures.csv", "reason")
    assert (video_id, path) == ("a-0.avi", "a/0.avi") and "Invalid data" in reason
    assert [row[0] for row in _rows(config.out / "notes.csv", "note")] == ["a-3.avi"]
    assert len(clip_store.ClipStore(config.out, "train")) == 3
    assert list(verification.problems(config.out)) == []
    assert building.prepare(dataclasses.replace(config, max_failures=1)) == 0


def test_clips_without_splits_are_divided_by_shares_and_the_store_says_how(tmp_path, capsys):
    sizes = {f"{name}/p{person}_{take}.avi": 4 for name in "ab" for person in range(4) for take in range(2)}
    config = videos_for_tests.folder_config(tmp_path, sizes, validation_share=0.25, group_by=r"p(\d)_", seed=5)
    assert building.prepare(dataclasses.replace(config, dry_run=True)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [["train", "validation", "class"], ["6", "2", "a"], ["6", "2", "b"]]
    assert building.prepare(config) == 0
    stores = [clip_store.ClipStore(config.out, split) for split in ("train", "validation")]
    assert stores[0].info.division == clip_store.Division(0.25, 0.0, 5, r"p(\d)_")
    people = [{video_id[3] for video_id in store.video_ids} for store in stores]
    assert [len(store) for store in stores] == [12, 4] and not people[0] & people[1]
    assert list(verification.problems(config.out)) == []
    with pytest.raises(errors.UserError, match="--out must be empty or hold shards of the same videos, settings"):
        building.prepare(dataclasses.replace(config, seed=6))


def test_unlabelled_clips_and_folders_of_frames_become_a_store(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"b.avi": 4})
    (tmp_path / "videos" / "a").mkdir()
    for number in range(1, 4):
        cv2.imwrite(str(tmp_path / "videos" / "a" / f"{number:06d}.png"), np.full((16, 16, 3), 40 * number, np.uint8))
    assert building.prepare(config) == 0
    store = clip_store.ClipStore(config.out, "test")
    assert store.video_ids == ("a", "b.avi") and store.labels.tolist() == [-1, -1]
    assert store.info.class_names == () and store.info.counts == {"test": {}}
    np.testing.assert_allclose(store.read([0])[0].mean((1, 2, 3)), [40, 80, 120], atol=2)
    assert list(verification.problems(config.out)) == []


def test_a_video_is_decoded_once_for_all_of_its_sequences_and_ranges_are_cut_to_what_decodes(tmp_path, monkeypatch):
    videos_for_tests.film(tmp_path / "videos" / "person01_boxing_d1_uncomp.avi", 20)
    (tmp_path / "00sequences.txt").write_text("person01_boxing_d1 frames 1-3, 11-30, 2-6, 21-40\n")
    decoded = []
    monkeypatch.setattr(
        shard_jobs.videos,
        "read_frames",
        lambda *args, read=shard_jobs.videos.read_frames: decoded.append(1) or read(*args),
    )
    config = building.PrepareConfig(
        "kth",
        tmp_path / "clips",
        tmp_path / "videos",
        tmp_path / "00sequences.txt",
        frames=3,
        clips_per_shard=1,
        launch=Launch(),
    )
    assert building.prepare(config) == 1 and len(decoded) == 1
    store = clip_store.ClipStore(config.out, "train")
    assert store.info.layout.clip_shape == (3, 120, 160, 3)
    np.testing.assert_array_equal(store.column("source_frame"), [[0, 1, 2], [10, 15, 19], [1, 3, 5]])
    np.testing.assert_array_equal(store.column("source_frames"), [3, 10, 5])
    np.testing.assert_allclose(store.read([1])[0].mean((1, 2, 3)), [50, 70, 86], atol=2)
    name = "person01_boxing_d1"
    assert _rows(config.out / "failures.csv", "reason") == [
        [f"{name}-4", f"{name}_uncomp.avi", "range 21-40 lies past the end: 20 frames decode"]
    ]
    assert _rows(config.out / "notes.csv", "note") == [
        [f"{name}-2", f"{name}_uncomp.avi", "range 11-30 cut to 11-20: 20 frames decode"]
    ]


def test_synthetic_videos_bring_their_ground_truth(tmp_path):
    config = building.PrepareConfig(
        "synthetic", tmp_path / "clips", launch=Launch(), frames=8, clips_per_class={"train": 1, "test": 1}
    )
    assert building.prepare(config) == 0
    store = clip_store.ClipStore(config.out, "train")
    assert sorted(store.labels) == list(range(12))
    truth = ground_truth.GroundTruth(config.out / "source" / "ground_truth.h5")
    for row, video_id in enumerate(store.video_ids):
        indices = store.column("source_frame")[row]
        np.testing.assert_array_equal(store.column("salient")[row], truth.salient(video_id)[indices])
        np.testing.assert_array_equal(store.column("object_mask")[row], truth.object_mask(video_id)[indices])
        assert store.column("source_frames")[row] == len(truth.salient(video_id))
    assert store.column("salient").any() and store.column("object_mask").any()
    assert clip_store.ClipStore(config.out, "test").labels.tolist() == [-1] * 12
    with pytest.raises(errors.UserError, match="seed"):
        building.prepare(dataclasses.replace(config, seed=1))


@pytest.mark.parametrize("damage", [b"x", None])
def test_an_index_that_is_damaged_or_of_no_store_yet_is_made_by_the_next_call(tmp_path, damage):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4}, clips_per_shard=1)
    assert building.prepare(config) == 0
    made = videos_for_tests.contents(config.out)
    info = clip_store.read_dataset_json(config.out)
    if damage:
        (config.out / "train.index").write_bytes(damage)
    else:  # A store of an earlier version.
        (config.out / "train.index").unlink()
        clip_store.write_dataset_json(config.out, dataclasses.replace(info, indexes={}))
    assert building.prepare(config) == 0 and videos_for_tests.contents(config.out) == made
    index = info.indexes["train"]
    assert (index.file, index.bytes) == ("train.index", len(made["train.index"]))


@pytest.mark.parametrize("encoding_name", ["jpeg", "raw"])
def test_the_number_of_workers_does_not_show(tmp_path, encoding_name):
    config = videos_for_tests.folder_config(
        tmp_path, {f"a/{n}.avi": 3 + n for n in range(5)} | {"a/broken.avi": 0}, encoding=encoding_name
    )
    one = dataclasses.replace(config, out=tmp_path / "one")
    two = dataclasses.replace(config, out=tmp_path / "two", launch=Launch(2))
    assert building.prepare(one) == building.prepare(two) == 1
    assert (
        videos_for_tests.contents(one.out) == videos_for_tests.contents(two.out)
        and len(videos_for_tests.contents(one.out)) == 10
    )


def test_leftovers_of_killed_runs_are_removed_and_other_files_are_not(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4})
    config.out.mkdir()
    for name in (f".{'0' * 16}.tmp", f".{'f' * 16}.tmp", "mine.tmp", "notes.txt"):
        (config.out / name).touch()
    assert building.prepare(config) == 0
    assert {"mine.tmp", "notes.txt"} < set(videos_for_tests.contents(config.out)) and len(
        videos_for_tests.contents(config.out)
    ) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"jpeg_quality": 90},
        {"subsampling": "released"},
        {"resize": "center_crop"},
        {"height": 9},
        {"clips_per_shard": 2},
    ],
)
def test_other_settings_in_the_same_folder_are_refused(tmp_path, change):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4})
    building.prepare(config)
    before = videos_for_tests.contents(config.out)
    with pytest.raises(errors.UserError, match="--out must be empty or hold shards of the same.*Received: .*train-0"):
        building.prepare(dataclasses.replace(config, **change))
    assert videos_for_tests.contents(config.out) == before


def test_other_videos_in_the_same_folder_are_refused(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4})
    building.prepare(config)
    (tmp_path / "videos" / "a" / "1.avi").rename(tmp_path / "videos" / "a" / "2.avi")
    with pytest.raises(errors.UserError, match="of another job"):
        building.prepare(config)


def test_a_finished_store_stays_as_it_is(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4})
    building.prepare(config)
    before = videos_for_tests.contents(config.out)
    times = {path: path.stat().st_mtime_ns for path in config.out.glob("*.h5")}
    assert building.prepare(config) == 0
    assert videos_for_tests.contents(config.out) == before
    assert times == {path: path.stat().st_mtime_ns for path in config.out.glob("*.h5")}


def test_a_store_that_lost_a_shard_counts_as_unfinished_until_it_is_made_again(tmp_path, monkeypatch):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4})
    building.prepare(config)
    before = videos_for_tests.contents(config.out)
    (config.out / "train-00001-of-00002.h5").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "make_shard", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            building.prepare(config)
    assert not (config.out / "dataset.json").exists()
    building.prepare(config)
    assert videos_for_tests.contents(config.out) == before


@pytest.mark.parametrize("place", [0.5, 0.02])  # Among the pixels; at the beginning, where HDF5 begins to read.
def test_a_damaged_shard_of_a_finished_store_is_made_again_and_never_signed(tmp_path, caplog, place):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4}, encoding="raw")
    building.prepare(config)
    before = videos_for_tests.contents(config.out)
    _flip(config.out / "train-00001-of-00002.h5", place)
    assert len(list(verification.problems(config.out))) > 0
    logging.get_absl_logger().addHandler(caplog.handler)
    assert building.prepare(config) == 0
    logging.get_absl_logger().removeHandler(caplog.handler)
    assert "train-00001-of-00002.h5 is damaged" in caplog.text
    assert videos_for_tests.contents(config.out) == before


def test_a_damaged_shard_is_gone_before_the_file_that_knows_it(tmp_path, monkeypatch):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4, "a/3.avi": 4})
    building.prepare(config)
    before = videos_for_tests.contents(config.out)
    (config.out / "train-00000-of-00003.h5").unlink()
    _flip(config.out / "train-00001-of-00003.h5", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "make_shard", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            building.prepare(config)
    assert [path.name for path in config.out.glob("*.h5")] == ["train-00002-of-00003.h5"]
    assert building.prepare(config) == 0
    assert videos_for_tests.contents(config.out) == before


def test_a_damaged_shard_of_another_job_is_left_as_it_is(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4})
    building.prepare(config)
    _flip(config.out / "train-00000-of-00001.h5", 0.5)
    before = videos_for_tests.contents(config.out)
    with pytest.raises(errors.UserError, match="of another job"):
        building.prepare(dataclasses.replace(config, height=9))
    assert videos_for_tests.contents(config.out) == before


@pytest.mark.parametrize("name", ["train-00000-of-00001.h5", "dataset.json"])
def test_what_is_no_file_is_refused_and_not_read_for_ever(tmp_path, name):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4})
    building.prepare(config)
    (config.out / name).unlink()
    os.mkfifo(config.out / name)
    with pytest.raises(errors.UserError, match=f"must consist of regular files. Received: .*{name}"):
        building.prepare(config)


def test_a_damaged_report_is_one_line(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4, "a/2.avi": 4})
    building.prepare(config)
    (config.out / "dataset.json").unlink()  # Nothing says what the shards should be.
    for report in ("{", "[]", "{}", "\\x00"):
        with h5py.File(config.out / "train-00000-of-00002.h5", "r+") as file:
            del file["report"]
            file["report"] = np.bytes_(report)
        with pytest.raises(errors.UserError, match="[Tt]he report of .*Received: .*train-00000-of-00002.h5"):
            building.prepare(config)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_source_that_goes_away_ends_the_job_and_its_clips_are_made_when_it_is_back(
    tmp_path, monkeypatch, num_workers
):
    sizes = {f"{split}/a/{n}.avi": 4 for split in ("train", "validation") for n in range(2)}
    config = videos_for_tests.folder_config(tmp_path, sizes, launch=Launch(num_workers), clips_per_shard=2)
    whole = dataclasses.replace(config, out=tmp_path / "whole", launch=Launch())
    building.prepare(whole)
    video, aside = tmp_path / "videos" / "validation" / "a" / "1.avi", tmp_path / "aside.avi"

    def plug_out(*args, settings=building._settings):  # After the plan, before the clips.
        video.rename(aside)
        return settings(*args)

    monkeypatch.setattr(building, "_settings", plug_out)
    with pytest.raises(errors.UserError, match=f"^--source must stay readable .* {video}: No such file or directory"):
        building.prepare(config)
    assert not {"dataset.json", "validation-00000-of-00001.h5"} & set(videos_for_tests.contents(config.out))
    monkeypatch.undo()
    aside.rename(video)
    assert building.prepare(dataclasses.replace(config, launch=Launch())) == 0
    assert videos_for_tests.contents(config.out) == videos_for_tests.contents(whole.out)


def test_damage_that_a_decoder_conceals_is_in_the_notes_whatever_the_number_of_workers(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"a/1.avi": 4}, max_failures=0)
    for number in range(3):
        path = tmp_path / "videos" / "a" / f"damaged{number}.avi"
        frames = np.random.default_rng(number).integers(0, 256, (6, 64, 64, 3), np.uint8)
        encoding.write_video(path, frames, "mpeg4", rate=25)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
        path.write_bytes(data)
    assert building.prepare(dataclasses.replace(config, out=tmp_path / "one")) == 0
    assert building.prepare(dataclasses.replace(config, out=tmp_path / "two", launch=Launch(2))) == 0
    assert videos_for_tests.contents(tmp_path / "one") == videos_for_tests.contents(tmp_path / "two")
    notes = _rows(tmp_path / "one" / "notes.csv", "note")
    assert [row[0] for row in notes] == [f"a-damaged{number}.avi" for number in range(3)]
    assert any("packets are damaged (the first: " in row[2] for row in notes)
    assert all(" packets " in row[2] for row in notes)  # Some may not decode at all.


def test_the_store_may_lie_in_the_source(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"train/a/1.avi": 4, "test/a/2.avi": 4})
    inside = dataclasses.replace(config, out=tmp_path / "videos" / "clips")
    assert building.prepare(config) == building.prepare(inside) == building.prepare(inside) == 0
    assert videos_for_tests.contents(config.out) == videos_for_tests.contents(inside.out)


def test_a_source_that_is_refused_leaves_no_folder(tmp_path):
    videos_for_tests.film(tmp_path / "videos" / "train" / "a" / "1.avi", 4)
    (tmp_path / "videos" / "other").mkdir()
    config = building.PrepareConfig("folder", tmp_path / "videos" / "clips", tmp_path / "videos")
    with pytest.raises(errors.UserError, match="train beside other in"):
        building.prepare(config)
    assert not config.out.exists()


def test_ids_that_collide_make_a_store(tmp_path):
    config = videos_for_tests.folder_config(tmp_path, {"put-down/a.avi": 4, "put/down-a.avi": 3})
    assert building.prepare(config) == 0
    store = clip_store.ClipStore(config.out, "train")
    assert len(set(store.video_ids)) == 2 and list(store.column("source_frames")) == [3, 4]
    assert list(verification.problems(config.out)) == []


# The command with a limit on the size of files: 2 clips of 49 kB fit, 4 do not. Those are not begun before the shard
# that fits is there: one of two workers may be much slower than the other.
_LIMITED = """
import pathlib, resource, sys, time
sys.path[0] = {root!r}
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from common.command_line import commands
from common.launching import Launch
from data_prep import building, shard_jobs
def clip(settings, item, *args, make=shard_jobs._clip):
    while item.path.startswith("validation/") and not pathlib.Path({out!r}, "train-00000-of-00001.h5").exists():
        time.sleep(0.01)
    return make(settings, item, *args)
shard_jobs._clip = clip
if __name__ == "__main__":
    commands.run(lambda argv: building.prepare(building.{config!r}))
"""


def _limited(config, limit):
    """Writes the command, with no file larger than a limit in bytes, and returns the path of the script."""
    root, script = str(pathlib.Path(__file__).resolve().parents[1]), config.out.parent / "command.py"
    text = _LIMITED.format(root=root, limit=limit, out=str(config.out), config=config)
    script.write_text(text.replace("PosixPath(", "pathlib.PosixPath("))
    return script


@pytest.mark.parametrize(("num_workers", "encoding_name"), [(1, "raw"), (2, "raw"), (1, "jpeg")])
def test_a_full_disk_is_one_line_and_finished_shards_are_kept(tmp_path, num_workers, encoding_name):
    sizes = {f"{split}/a/{n}.avi": 4 for split, count in {"train": 1, "validation": 4}.items() for n in range(count)}
    settings = {"encoding": encoding_name, "clips_per_shard": 4, "height": 128, "width": 128}
    config = videos_for_tests.folder_config(tmp_path, sizes, launch=Launch(num_workers), **settings)
    whole = dataclasses.replace(config, out=tmp_path / "whole", launch=Launch())
    assert building.prepare(whole) == 0
    limit = (whole.out / "validation-00000-of-00001.h5").stat().st_size - 1000
    done = subprocess.run([sys.executable, _limited(config, limit)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert (
        line.startswith("error: --source must be readable and --out writable. Received: ") and "File too large" in line
    )
    assert list(videos_for_tests.contents(config.out)) == ["train-00000-of-00001.h5"]
    assert building.prepare(dataclasses.replace(config, launch=Launch())) == 0
    assert videos_for_tests.contents(config.out) == videos_for_tests.contents(whole.out)


@pytest.mark.parametrize("limit", [10, 3000, 30_000])  # Full with the first file, the first video, the ground truth.
def test_a_full_disk_while_videos_are_made_is_one_line(tmp_path, limit):
    config = building.PrepareConfig("synthetic", tmp_path / "http:out", launch=Launch(), clips_per_class={"train": 2})
    done = subprocess.run([sys.executable, _limited(config, limit)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Received: [Errno 27] File too large" in done.stderr.splitlines()[-1]
    assert not list(config.out.rglob("*.partial")) and not list(config.out.rglob(".*.partial"))


def test_a_second_call_makes_the_shards_that_the_first_does_not_and_waits_for_the_others(tmp_path, monkeypatch):
    config = videos_for_tests.folder_config(tmp_path, {f"a/{n}.avi": 4 for n in range(3)})
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    building.prepare(whole)
    config.out.mkdir()
    first = whole.out / "train-00000-of-00003.h5"
    with contextlib.ExitStack() as stack:
        stack.enter_context(locks.exclusive(config.out, f".{first.name}.lock"))

        def sleep(seconds):  # It has made what it can, and waits.
            assert {path.name for path in config.out.glob("*.h5")} == {f"train-0000{n}-of-00003.h5" for n in (1, 2)}
            shutil.copyfile(first, config.out / first.name)
            stack.close()

        monkeypatch.setattr(units.time, "sleep", sleep)
        assert building.prepare(config) == 0
    assert videos_for_tests.contents(config.out) == videos_for_tests.contents(whole.out)


def test_a_source_that_holds_none_of_the_videos_is_refused_with_nothing_written(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "train.json").write_text(json.dumps([{"id": "1", "template": "Holding [something]"}]))
    config = building.PrepareConfig("something", tmp_path / "clips", tmp_path / "videos", tmp_path)
    with pytest.raises(
        errors.UserError, match="must hold videos that the annotations name. Received: .* with none of 1"
    ):
        building.prepare(config)
    assert not config.out.exists() or not list(config.out.iterdir())


def test_dry_run_counts_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "1.webm").touch()
    (tmp_path / "videos" / "c?at\n.txt").touch()
    (tmp_path / "labels.json").write_text('{"A": "0", "B": "1"}')
    records = [{"id": "1", "template": "A"}, {"id": "2", "template": "B"}]
    (tmp_path / "train.json").write_text(json.dumps(records))
    config = building.PrepareConfig("something", tmp_path / "clips", tmp_path / "videos", tmp_path, dry_run=True)
    assert building.prepare(config) == 0
    assert capsys.readouterr().out.splitlines() == [
        "       train  class",
        "           1  A",
        "           0  B",
        "           0  (class unknown)",
        "           1  total",
        f"skipped: {tmp_path / 'videos'}: 1 left alone (not videos): c?at\\n.txt",
        "missing in train: 2 (2.webm)",
        "missing: 1 clips",
    ]
    assert not config.out.exists()


def test_dry_run_of_synthetic_counts_what_would_be_made(tmp_path, capsys):
    config = building.PrepareConfig(
        "synthetic", tmp_path / "clips", dry_run=True, clips_per_class={"train": 3, "validation": 0, "test": 2}
    )
    assert building.prepare(config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["train", "test", "class"] and lines[-2].split() == ["36", "24", "total"]
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "ucf"}, "dataset must be one of planted, synthetic, something, kth, folder. Received: 'ucf'"),
        ({"subsampling": "x"}, "subsampling must be one of linspace, released. Received: 'x'"),
        ({"resize": "x"}, "resize must be one of stretch, center_crop. Received: 'x'"),
        ({"encoding": "gif"}, "encoding must be one of jpeg, raw"),
        ({"jpeg_quality": 0}, "jpeg_quality in 1…100"),
        ({"frames": 0}, "1…65536 frames"),
        ({"clips_per_shard": 0}, "clips_per_shard must be at least 1. Received: 0"),
        ({"max_failures": -1}, "max_failures must be at least 0. Received: -1"),
        ({"splits": ("train", "val")}, "splits must be some of train, validation, test. Received: train, val"),
        ({"splits": ()}, "splits must be some of"),
        ({"annotations": pathlib.Path("x")}, "whose folders are the annotations. Received: x"),
        ({"source": None}, "--source must name the folder of the videos for --dataset=folder"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, change, message):
    config = {"dataset": "folder", "out": tmp_path / "clips", "source": tmp_path, **change}
    with pytest.raises(errors.UserError, match=message):
        building.prepare(building.PrepareConfig(**config))


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "file/below"])
def test_a_folder_that_cannot_be_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    videos_for_tests.film(tmp_path / "videos" / "a" / "1.avi", 2)
    with pytest.raises(
        errors.UserError, match="^--source must be readable and --out writable. Received: .*name|Not a dir"
    ):
        building.prepare(building.PrepareConfig("folder", tmp_path / name, tmp_path / "videos", launch=Launch()))


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="--out must be a folder. Received: the file"):
        building.prepare(building.PrepareConfig("folder", tmp_path / "file", tmp_path))


@pytest.mark.parametrize(
    ("dataset", "shape"),
    [("something", (16, 224, 224)), ("folder", (16, 224, 224)), ("kth", (32, 120, 160)), ("synthetic", (16, 32, 32))],
)
def test_sizes_come_from_the_presets(tmp_path, dataset, shape):
    layout = building.PrepareConfig(dataset, tmp_path).layout()
    assert (layout.frames, layout.height, layout.width) == shape
    assert bool(layout.object_mask_shape) == (dataset == "synthetic")
    assert building.PrepareConfig(dataset, tmp_path, height=50).layout().height == 50


def _flip(path, place):
    """Flips a bit of a file, at a place in [0, 1)."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 4
    path.write_bytes(data)


def _interrupt(*_):
    raise KeyboardInterrupt


def _rows(path, heading):
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["video_id", "path", heading]
    return rows[1:]


def test_what_is_said_of_a_clip_is_no_formula_and_one_line(tmp_path):
    remark = plans.Remark("=1+1", "videos/a\nb\udcff.avi", "It must decode. Received: nothing")

    building._write_remarks(tmp_path / "notes.csv", "note", [remark])

    assert (tmp_path / "notes.csv").read_text() == (
        "video_id,path,note\n'=1+1,videos/a b\\udcff.avi,It must decode. Received: nothing\n"
    )
