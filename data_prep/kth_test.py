import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import errors
from common.clips import classes
from data_prep import kth, plans

SEQUENCES = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "annotations" / "00sequences.txt"

PROSE = "\r\nThis database contains sequences.\r\nTraining:   person11, 12, 13\r\n\r\n"


def test_ranges_count_from_1_and_include_both_ends(tmp_path):
    (video,) = _read(tmp_path, f"{PROSE}person01_boxing_d1\t\tframes\t1-95, 96-185, 186-245\r\n")
    assert video == kth.Video("person01_boxing_d1", 1, 0, ((0, 95), (95, 185), (185, 245)))


def test_ranges_may_overlap_and_need_not_rise(tmp_path):
    (video,) = _read(tmp_path, "person25_walking_d4\tframes\t50-99, 1-60, 7-7\n")
    assert video.ranges == ((49, 99), (0, 60), (6, 7)) and video.split == "validation" and video.label == 5


def test_the_video_that_was_never_published_has_no_ranges(tmp_path):
    (video,) = _read(tmp_path, "person13_handclapping_d3\t*missing*\r\n")
    assert video.ranges == ()


@pytest.mark.parametrize(
    "line",
    [
        "person01_boxing_d1 frames",
        "person01_boxing_d1 frames 5-4",
        "person01_boxing_d1 frames 0-4",
        "person01_boxing_d1 frames 1-4,",
        "person01_boxing_d1 frames 1-4 9-12",
        "person01_boxing_d1 frames 1-99999999999",
        "person01_boxing_d5 frames 1-4",
        "person26_boxing_d1 frames 1-4",
        "person00_boxing_d1 frames 1-4",
        "person1_boxing_d1 frames 1-4",
        "person01_dancing_d1 frames 1-4",
        "Person01_boxing_d1 frames 1-4",
        "person01_../../x_d1 frames 1-4",
    ],
)
def test_malformed_lines_are_refused_with_their_number(tmp_path, line):
    with pytest.raises(errors.UserError, match="Received: .*line 5 of .*00sequences.txt"):
        _read(tmp_path, PROSE + line)


def test_a_second_line_for_one_video_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="person01_boxing_d1 again in line 2"):
        _read(tmp_path, "person01_boxing_d1 frames 1-4\n" * 2)


def test_a_file_of_prose_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="00sequences.txt must have lines"):
        _read(tmp_path, PROSE)


def test_each_range_is_a_clip_and_a_missing_file_misses_all_of_its_own(tmp_path):
    sequences = (
        "person16_boxing_d1 frames 1-4, 5-9\nperson17_running_d2 frames 2-3\nperson02_jogging_d1 frames 1-2, 3-4\n"
    )
    (tmp_path / "boxing").mkdir()
    (tmp_path / "boxing" / "person16_boxing_d1_uncomp.avi").touch()
    (tmp_path / "person17_running_d2_uncomp.avi").touch()
    _read(tmp_path, sequences)
    plan = kth.plan(tmp_path, tmp_path, None)
    assert plan.class_names == classes.KTH
    boxing, running = "boxing/person16_boxing_d1_uncomp.avi", "person17_running_d2_uncomp.avi"
    assert plan.items["train"] == (
        plans.Item("person16_boxing_d1-1", boxing, 0, (0, 4)),
        plans.Item("person16_boxing_d1-2", boxing, 0, (4, 9)),
    )
    assert plan.items["validation"] == (plans.Item("person17_running_d2-1", running, 4, (1, 3)),)
    assert [m.video_id for m in plan.missing["train"]] == ["person02_jogging_d1-1", "person02_jogging_d1-2"]


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "person16_boxing_d1_uncomp.avi").touch()
    _read(tmp_path, "person16_boxing_d1 frames 1-4")
    with pytest.raises(errors.UserError, match="Received: a/person16_boxing_d1_uncomp.avi and b/"):
        kth.plan(tmp_path, tmp_path, None)


def test_folders_that_are_links_are_found_and_each_folder_once(tmp_path):
    elsewhere, source = tmp_path / "disk2", tmp_path / "kth"
    elsewhere.mkdir()
    source.mkdir()
    (elsewhere / "person16_boxing_d1_uncomp.avi").touch()
    (elsewhere / "._person16_boxing_d1_uncomp.avi").touch()
    (elsewhere / "loop").symlink_to(source)
    for name in ("boxing", "again"):
        (source / name).symlink_to(elsewhere)
    (source / ".trash").symlink_to(elsewhere)
    _read(tmp_path, "person16_boxing_d1 frames 1-4")
    (item,) = kth.plan(source, tmp_path, None).items["train"]
    assert (source / item.path).exists() and item.path.endswith("/person16_boxing_d1_uncomp.avi")


def test_a_test_split_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="train and validation. Received: test"):
        kth.plan(tmp_path, tmp_path, ("test",))


@pytest.mark.skipif(not SEQUENCES.is_file(), reason="no shared data")
def test_the_file_as_distributed():
    videos = kth.read_sequences(SEQUENCES)
    assert sum(len(video.ranges) for video in videos) == 2391
    assert len(videos) == 600 and [video.name for video in videos if not video.ranges] == ["person13_handclapping_d3"]
    assert sum(len(video.ranges) == 3 for video in videos) == 5
    # 16 subjects x 6 actions x 4 scenarios, less the video never published; 9 subjects.
    assert [sum(video.split == split for video in videos) for split in ("train", "validation")] == [384, 216]


@settings(max_examples=200, deadline=None)
@given(
    subject=st.integers(1, 25),
    action=st.sampled_from([name.lower() for name in classes.KTH]),
    scenario=st.integers(1, 4),
    ranges=st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 5000)), min_size=1, max_size=5),
    blanks=st.lists(st.text(" \t", min_size=1, max_size=4), min_size=2, max_size=2),
    end=st.sampled_from(["\n", "\r\n", ""]),
)
def test_what_is_written_is_read_back(tmp_path_factory, subject, action, scenario, ranges, blanks, end):
    text = ", ".join(f"{first}-{first + more}" for first, more in ranges)
    name = f"person{subject:02d}_{action}_d{scenario}"
    (video,) = _read(tmp_path_factory.getbasetemp(), f"{PROSE}{name}{blanks[0]}frames{blanks[1]}{text}{end}")
    assert video.name == name and video.ranges == tuple((first - 1, first + more) for first, more in ranges)


@settings(max_examples=200, deadline=None)
@given(text=st.text() | st.text("person01_boxing_d frames-,*\t\n").map(lambda tail: f"person01_boxing_d1 {tail}"))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, text):
    try:
        videos = _read(tmp_path_factory.getbasetemp(), text)
    except errors.UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 <= first < stop for video in videos for first, stop in video.ranges)


def _read(folder, text):
    path = folder / "00sequences.txt"
    path.write_bytes(text.encode("utf-8", errors="replace"))
    return kth.read_sequences(path)
