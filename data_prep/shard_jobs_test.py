import dataclasses

from common.clips import shards
from data_prep import plans, shard_jobs

SETTINGS = shard_jobs.Settings("folder", ("a",), shards.Layout(3, 8, 8), "linspace", "stretch", {"av": "1"})


def test_clips_of_one_video_stay_in_one_shard(tmp_path):
    # Videos p, q, r, s with 2, 2, 5 and 1 clips, at most 3 clips a shard: no two videos fit together but the last two
    # would with a larger limit.
    items = tuple(
        plans.Item(f"{path}{n}", path, 0)
        for path, count in zip("pqrs", (2, 2, 5, 1), strict=True)
        for n in range(count)
    )
    assert _sizes(tmp_path, items, 3) == [2, 2, 5, 1]
    assert _sizes(tmp_path, items, 4) == [4, 5, 1]
    assert _sizes(tmp_path, items, 6) == [4, 6]
    assert _sizes(tmp_path, items, 100) == [10]
    assert _sizes(tmp_path, (), 3) == []


def test_shards_hold_the_clips_in_their_order_under_their_numbers(tmp_path):
    items = tuple(plans.Item(f"v{n}", f"v{n}.avi", 0) for n in range(5))
    jobs = shard_jobs.split_into_jobs(tmp_path, "test", items, 2, SETTINGS, tmp_path, None)
    assert [job.file.name for job in jobs] == [f"test-0000{n}-of-00003.h5" for n in range(3)]
    assert sum((job.items for job in jobs), ()) == items


def test_the_fingerprint_changes_with_each_setting_and_item(tmp_path):
    item = plans.Item("v", "a/v.avi", 0)
    job = shard_jobs.Job(tmp_path / "train-00000-of-00001.h5", "train", (item,), SETTINGS, tmp_path)
    moved = dataclasses.replace(job, source=tmp_path / "x", file=tmp_path / "y" / job.file.name)
    assert moved.fingerprint == job.fingerprint  # Folders may move.
    others = [
        dataclasses.replace(job, items=(dataclasses.replace(item, label=1),)),
        dataclasses.replace(job, items=(dataclasses.replace(item, frame_range=(0, 2)),)),
        dataclasses.replace(job, items=(item, dataclasses.replace(item, video_id="w"))),
        dataclasses.replace(job, settings=dataclasses.replace(SETTINGS, class_names=("b",))),
        dataclasses.replace(job, settings=dataclasses.replace(SETTINGS, versions={"av": "2"})),
        dataclasses.replace(job, file=tmp_path / "train-00000-of-00002.h5"),
    ]
    assert len({job.fingerprint, *(other.fingerprint for other in others)}) == 7


def _sizes(tmp_path, items, clips_per_shard):
    jobs = shard_jobs.split_into_jobs(tmp_path, "train", items, clips_per_shard, SETTINGS, tmp_path, None)
    return [len(job.items) for job in jobs]
