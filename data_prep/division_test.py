"""Shares of classes, groups that stay together, refusals."""

import collections

import pytest

from common import errors
from common.clips.clip_store import Division
from data_prep import division, plans


def test_every_class_gives_its_share_and_the_order_of_clips_stays():
    plan = _plan({"a": 10, "b": 5, "c": 3, "d": 1})
    divided = division.divide(plan, Division(0.2, seed=3))
    assert list(divided.items) == ["train", "validation"]
    assert _counts(divided) == {"train": [8, 4, 2, 1], "validation": [2, 1, 1, 0]}
    together = [item for split in divided.items.values() for item in split]
    assert sorted(together, key=plan.items["train"].index) == list(plan.items["train"])
    for split in divided.items.values():
        assert list(split) == sorted(split, key=plan.items["train"].index)
    three = division.divide(plan, Division(0.2, 0.4))
    assert _counts(three) == {"train": [4, 2, 1, 1], "validation": [2, 1, 1, 0], "test": [4, 2, 1, 0]}


def test_classes_without_a_clip_in_a_split_are_told(caplog):
    division.divide(_plan({"a": 10, "b": 1}), Division(0.2))
    assert "b, 1 clip, has none in validation." in caplog.text and "a, " not in caplog.text


def test_the_seed_decides_alone():
    chosen = [
        [item.path for item in division.divide(_plan({"a": 8}), Division(0.25, seed=seed)).items["validation"]]
        for seed in (0, 1)
    ]
    assert chosen == [["a/0.avi", "a/5.avi"], ["a/2.avi", "a/4.avi"]]  # The same on every machine.


def test_groups_stay_together_and_classes_near_their_shares():
    files = [f"{name}/person{person:02d}_{take}.avi" for name in "ab" for person in range(10) for take in range(3)]
    plan = _plan_of(files)
    divided = division.divide(plan, Division(0.2, group_by=r"person(\d+)"))
    people = {split: {item.path[8:10] for item in items} for split, items in divided.items.items()}
    assert not people["train"] & people["validation"] and len(people["validation"]) == 2
    assert _counts(divided) == {"train": [24, 24], "validation": [6, 6]}


def test_large_groups_are_placed_first():
    files = ["a/big_0.avi", "a/big_1.avi", "a/big_2.avi", "a/x_0.avi", "a/y_0.avi"]
    divided = division.divide(_plan_of(files), Division(0.4, group_by=r"/(\w+)_"))
    assert [item.path for item in divided.items["validation"]] == ["a/x_0.avi", "a/y_0.avi"]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(errors.UserError, match=r"group_by must match the path of every clip.*Received: a/0.avi, a/1"):
        division.divide(_plan({"a": 2}), Division(0.5, group_by=r"person(\d+)"))
    with pytest.raises(errors.UserError, match=r"a/0.avi, a/1.avi, a/2.avi and 2 more"):
        division.divide(_plan({"a": 5}), Division(0.5, group_by=r"(x)?\.avi"))
    with pytest.raises(errors.UserError, match="clips for every split.*1 clip in 1 group, none for validation"):
        division.divide(_plan({"a": 1}), Division(0.2))
    with pytest.raises(errors.UserError, match="classes and no splits. Received: train, test"):
        division.divide(plans.Plan(("a",), {"train": (), "test": ()}, {}), Division(0.2))


@pytest.mark.parametrize("shares", [(0.0, 0.0), (-0.1, 0.5), (0.5, 0.5), (1.0, 0.0), (float("nan"), 0.2)])
def test_shares_leave_something_for_training(shares):
    with pytest.raises(errors.UserError, match="their sum between 0 and 1"):
        Division(*shares)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("person(", "regular expression.*unterminated"), ("person", "one group.*Received: 0"), ("(a)(b)", "Received: 2")],
)
def test_a_pattern_has_one_group(pattern, message):
    with pytest.raises(errors.UserError, match=message):
        Division(0.2, group_by=pattern)


def _plan(sizes):
    return _plan_of([f"{name}/{number}.avi" for name, size in sizes.items() for number in range(size)])


def _plan_of(paths):
    class_names = tuple(sorted({path.split("/")[0] for path in paths}))
    items = [plans.Item(path.replace("/", "-"), path, class_names.index(path.split("/")[0])) for path in sorted(paths)]
    return plans.Plan(class_names, {"train": tuple(items)}, {"train": ()})


def _counts(plan):
    labels = {split: collections.Counter(item.label for item in items) for split, items in plan.items.items()}
    return {split: [count[label] for label in range(len(plan.class_names))] for split, count in labels.items()}
