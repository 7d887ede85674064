import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import errors
from common.clips import classes
from data_prep import plans, something

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"

BRACKETED = {  # One template for each of the 14 kinds of bracket text.
    "Holding [something]": 16,
    "[Something] falling like a rock": 135,
    "Taking [something] from [somewhere]": 147,
    "Moving [part] of [something]": 33,
    "Poking a hole into [some substance]": 51,
    "Poking a hole into [something soft]": 52,
    "Pretending to be tearing [something that is not tearable]": 65,
    "Putting [number of] [something] onto [something]": 102,
    "Putting [something] onto [something else that cannot support it] so it falls down": 113,
    "Putting [something similar to other things that are already on the table]": 114,
    "Putting [something that cannot actually stand upright] upright on the table, so it falls on its side": 117,
    "Taking [one of many similar things on the table]": 146,
    "Tipping [something] with [something in it] over, so [something in it] falls out": 159,
    "Trying to bend [something unbendable] so nothing happens": 162,
}


def test_brackets_of_all_kinds_come_off(tmp_path):
    records = [{"id": str(n), "template": template} for n, template in enumerate(BRACKETED)]
    path = _write(tmp_path / "train.json", records)
    read = something.read_split(path, classes.something_something_v2(), labeled=True)
    assert read == [(str(n), label) for n, label in enumerate(BRACKETED.values())]


def test_videos_in_any_container_and_folders_of_frames_are_found(tmp_path):
    source, annotations = _data_set(tmp_path, train=["7", "8", "9", "10"])
    (source / "7.webm").touch()
    (source / "8.MP4").touch()
    (source / "9").mkdir()
    (source / "10.txt").touch()
    plan = something.plan(source, annotations, None)
    assert plan.items == {"train": (plans.Item("7", "7.webm", 0), plans.Item("8", "8.MP4", 1), plans.Item("9", "9", 0))}
    assert plan.missing["train"] == (
        plans.Remark("10", "10.webm", "no such video file or folder of frames: 10.txt is no video"),
    )
    assert plan.skipped == (f"{source}: 1 left alone (not videos): 10.txt",)


def test_links_are_followed_and_links_to_nothing_are_missing(tmp_path):
    source, annotations = _data_set(tmp_path, train=["1", "2"])
    (tmp_path / "elsewhere").touch()
    (source / "1.webm").symlink_to(tmp_path / "elsewhere")
    (source / "2.webm").symlink_to(tmp_path / "nowhere")
    plan = something.plan(source, annotations, None)
    assert [item.path for item in plan.items["train"]] == ["1.webm"]
    assert [remark.video_id for remark in plan.missing["train"]] == ["2"]


def test_records_of_the_test_split_have_an_id_only(tmp_path):
    source, annotations = _data_set(tmp_path, train=["1"])
    _write(annotations / "test.json", [{"id": "5"}, {"id": 6}])
    for name in ("5.webm", "6.webm"):
        (source / name).touch()
    plan = something.plan(source, annotations, ("test",))
    assert plan.items == {"test": (plans.Item("5", "5.webm", -1), plans.Item("6", "6.webm", -1))}


def test_without_labels_json_the_classes_of_the_paper_count(tmp_path):
    assert something.read_classes(tmp_path) == classes.something_something_v2()


def test_files_of_the_first_release_carry_the_name_of_the_data_set(tmp_path):
    _write(tmp_path / "something-something-v2-labels.json", {"b": "1", "a": 0})
    assert something.read_classes(tmp_path) == ("a", "b")


def test_labels_that_are_no_text_are_refused_and_odd_ones_are_not(tmp_path):
    (tmp_path / "labels.json").write_text(r'{"a\ud800": "0"}')
    with pytest.raises(errors.UserError, match=r"class names of Unicode text. Received: 'a\\ud800' in"):
        something.read_classes(tmp_path)
    (tmp_path / "labels.json").write_text(r'{"a\n\t\ud83c\udfac\u001b": "0"}')
    assert something.read_classes(tmp_path) == ("a\n\t\N{CLAPPER BOARD}\x1b",)


@pytest.mark.parametrize(
    "values", [{"a": "0", "b": "2"}, {"a": "0", "b": "0"}, {"a": "x"}, {"a": None}, {"a": True}, {}, ["a"], "a", 3]
)
def test_labels_that_do_not_count_from_0_are_refused(tmp_path, values):
    _write(tmp_path / "labels.json", values)
    with pytest.raises(errors.UserError, match="indices 0…K-1"):
        something.read_classes(tmp_path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"id": "1"}, "must be a list of records. Received: dict"),
        ([{"template": "A"}], "A record must have an id"),
        ([{"id": None, "template": "A"}], "A record must have an id"),
        (["1"], "A record must have an id"),
        ([{"id": "1"}], "A record must have a template"),
        ([{"id": "1", "template": "[C]"}], r"one of the 2 classes. Received: '\[C\]' of video 1"),
        ([{"id": "../1", "template": "A"}], "without path separators"),
        ([{"id": "a/b", "template": "A"}], "without path separators"),
        ([{"id": "a\\b", "template": "A"}], "without path separators"),
        ([{"id": "a\x00", "template": "A"}], "control characters"),
        ([{"id": "", "template": "A"}], "1…200 bytes"),
        ([{"id": "x" * 201, "template": "A"}], "1…200 bytes"),
        ([{"id": "1", "template": "A"}, {"id": 1, "template": "B"}], "once in a split. Received: '1' 2 times in train"),
    ],
)
def test_malformed_records_are_refused(tmp_path, records, message):
    source, annotations = _data_set(tmp_path, train=[])
    _write(annotations / "train.json", records)
    with pytest.raises(errors.UserError, match=message):
        something.plan(source, annotations, None)


def test_broken_json_is_refused(tmp_path):
    source, annotations = _data_set(tmp_path, train=["1"])
    for content in (b'[{"id": "1"', b"\xff\xfe", b"[" * 100_000):
        (annotations / "train.json").write_bytes(content)
        with pytest.raises(errors.UserError, match="Received: .*train.json"):
            something.plan(source, annotations, None)


def test_a_missing_split_is_refused(tmp_path):
    source, annotations = _data_set(tmp_path, train=["1"])
    with pytest.raises(errors.UserError, match="must have its JSON file. Received: .* without validation.json"):
        something.plan(source, annotations, ("train", "validation"))
    with pytest.raises(errors.UserError, match="without train.json, validation.json, test.json"):
        something.plan(source, source, None)


def test_two_files_of_one_id_are_refused(tmp_path):
    source, annotations = _data_set(tmp_path, train=["1"])
    (source / "1.webm").touch()
    (source / "1.mp4").touch()
    with pytest.raises(errors.UserError, match="Received: 1.mp4 and 1.webm"):
        something.plan(source, annotations, None)


def test_a_source_that_is_no_folder_is_refused(tmp_path):
    _, annotations = _data_set(tmp_path, train=["1"])
    with pytest.raises(errors.UserError, match="--source must be a folder. Received: .*nowhere .nothing there"):
        something.plan(tmp_path / "nowhere", annotations, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "template", "x"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=JSON, labeled=st.booleans())
def test_any_json_is_read_or_refused_in_one_line(tmp_path_factory, value, labeled):
    path = _write(tmp_path_factory.getbasetemp() / "any.json", value)
    for read in (
        lambda: something.read_split(path, ("A", "B"), labeled),
        lambda: something.read_classes(path.parent),
    ):
        _write(path.parent / "labels.json", value)
        try:
            read()
        except errors.UserError as error:
            assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.text(min_size=1).filter(lambda name: not set(name) & set("[]")), min_size=1, unique=True),
    data=st.data(),
)
def test_what_is_written_is_read_back(tmp_path_factory, names, data):
    folder = tmp_path_factory.getbasetemp()
    labels = data.draw(st.lists(st.integers(0, len(names) - 1)))
    _write(folder / "labels.json", {name: str(label) for label, name in enumerate(names)})
    path = _write(folder / "train.json", [{"id": n, "template": f"[{names[v]}]"} for n, v in enumerate(labels)])
    assert something.read_classes(folder) == tuple(names)
    assert something.read_split(path, tuple(names), True) == [(str(n), label) for n, label in enumerate(labels)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_real_records(tmp_path):
    for name in ("labels", "train"):
        real = SHARED / "annotations" / f"something_{name if name == 'labels' else 'train_excerpt'}.json"
        (tmp_path / f"{name}.json").write_bytes(real.read_bytes())
    assert something.read_classes(tmp_path) == classes.something_something_v2()
    plan = something.plan(SHARED / "frame_folders", tmp_path, None)
    found = {item.video_id: plan.class_names[item.label] for item in plan.items["train"]}
    assert found == {
        "57082": "Dropping something into something",
        "13201": "Pretending to sprinkle air onto something",
        "80962": "Poking something so it slightly moves",
        "2": "Pretending to pick something up",
    }
    assert len(plan.missing["train"]) == 174


def _data_set(tmp_path, train):
    """Makes an empty source folder, and annotations with classes A and B that take turns."""
    source, annotations = tmp_path / "videos", tmp_path / "annotations"
    source.mkdir()
    annotations.mkdir()
    _write(annotations / "labels.json", {"A": "0", "B": "1"})
    _write(
        annotations / "train.json", [{"id": v, "template": "[A]" if n % 2 == 0 else "B"} for n, v in enumerate(train)]
    )
    return source, annotations


def _write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
