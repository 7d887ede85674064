import json

import numpy as np
import pytest

from common import errors, files
from common.clips import clip_store, shards, tiny_store_for_tests
from common.explaining import attribution_file, explanations, explanations_test, when_scores
from common.explaining.attribution_file import Attributions
from common.explaining.when_scores import ScoreSettings

EVENTS = {"a": slice(0, 2), "b": slice(4, 6), "c": slice(2, 4), "still": slice(0, 0)}


@pytest.fixture
def suite(tmp_path):
    """Four clips of eight frames whose event is a brighter frame and back; in the last nothing happens."""
    layout = shards.Layout(8, 4, 4, encoding="raw", object_mask_shape=(1, 1))
    clips = []
    for video_id, event in EVENTS.items():
        salient = np.zeros(8, np.uint8)
        salient[event] = 1
        clips.append(
            shards.Clip(
                np.tile(salient[:, None, None, None] * np.uint8(90), (1, 4, 4, 3)),
                label=0,
                video_id=video_id,
                source_frame=np.arange(8),
                source_time=np.arange(8) / 25,
                source_frames=8,
                source_fps=25.0,
                salient=salient,
                object_mask=np.zeros((8, 1, 1), np.uint8),
            )
        )
    folder = tmp_path / "suite"
    folder.mkdir()
    path = folder / clip_store.shard_name("test", 0, 1)
    tiny_store_for_tests.write_shard(path, clips, layout)
    record = clip_store.Shard(path.name, "test", len(clips), files.sha256(path))
    tool = {"name": "test", "version": "1"}
    counts = {"test": {"flash": len(clips)}}
    info = clip_store.DatasetInfo("flashes", ("flash",), layout, "stretch", "linspace", counts, tool, tool, (record,))
    clip_store.write_dataset_json(folder, info)
    return folder


def right(video_ids):
    values = np.zeros((len(video_ids), 8))
    for row, video_id in zip(values, video_ids, strict=True):
        row[EVENTS[video_id]] = 1
    return values


def score(suite, tmp_path, answer, **settings):
    attribution_file.write(tmp_path / "mine.npz", answer)
    return when_scores.score_files(ScoreSettings((tmp_path / "mine.npz",), suite, **settings)).tables[0]


def test_a_right_answer_is_one_and_a_constant_one_is_nothing(suite, tmp_path):
    video_ids = ("c", "a", "b", "still")
    table = score(suite, tmp_path, Attributions(video_ids, right(video_ids), forwards=np.array([1, 2, 3, 4])))
    mine, centred, difference = table.rows
    assert [mine[0], centred[0], difference[0]] == ["mine", "centred", "frame difference"]
    assert mine[1] == 4
    for estimate in mine[2:6]:
        assert (estimate.value, estimate.low, estimate.high, estimate.clips) == (1, 1, 1, 3)  # Still clips have none.
    assert mine[6] is None and mine[7] is None  # Areas are the model's to say.
    assert mine[8] == 2.5 and centred[8] is None
    # The middle of eight frames is 3 and 4, with equal values: of the events c holds one of them, b the other.
    assert centred[2].value == pytest.approx(((0.5 + 0 + 0.5) / 3 - 1 / 4) / (1 - 1 / 4))
    constant = score(suite, tmp_path, Attributions(video_ids, np.ones((4, 8)))).rows[0]
    assert [estimate.value for estimate in constant[2:6]] == pytest.approx([0] * 4)


def test_areas_are_corrected_for_chance_too(suite, tmp_path):
    areas = {"deletion": [0.1], "deletion_random": [0.5], "insertion": [0.7], "insertion_random": [0.4]}
    areas = {name: np.array(values) for name, values in areas.items()}
    mine = score(suite, tmp_path, Attributions(("a",), right(("a",)), areas=areas)).rows[0]
    # 0.9 where random orders have 0.5, and 0.7 where they have 0.4.
    assert mine[6].value == pytest.approx(0.4 / 0.5) and mine[7].value == pytest.approx(0.3 / 0.6)


def test_what_is_selected(suite, tmp_path):
    video_ids = ("a", "b", "still")
    attribution_file.write(tmp_path / "mine.npz", Attributions(video_ids, right(video_ids)))
    mine, *_ = when_scores.score_files(ScoreSettings((tmp_path / "mine.npz",), suite)).tables[1].rows
    assert mine[:2] == ("mine", 3)
    assert [(estimate.value, estimate.clips) for estimate in mine[2:]] == [
        (4 / 3, 3),  # Two frames, two frames, none.
        (1, 2),
        (1, 2),
        # Two frames at seven places: b is met halfway from both sides, a from one.
        (pytest.approx(((1 + 1 / 3) / 7 + (1 / 3 + 1 + 1 / 3) / 7) / 2), 2),
        (1, 2),
    ]


def test_where_nothing_happens_nothing_can_be_deleted(suite, tmp_path):
    areas = {"deletion": [0.1, 1], "deletion_random": [0.5, 1], "insertion": [0.7, 1], "insertion_random": [0.4, 1]}
    areas = {name: np.array(values, float) for name, values in areas.items()}
    mine = score(suite, tmp_path, Attributions(("a", "still"), right(("a", "still")), areas=areas)).rows[0]
    assert (mine[6].value, mine[6].clips) == (pytest.approx(0.4 / 0.5), 1)


def test_what_is_written(suite, tmp_path):
    out = tmp_path / "new" / "folder"
    attribution_file.write(tmp_path / "mine.npz", Attributions(("a", "b"), right(("a", "b"))))
    when_scores.write(out, when_scores.score_files(ScoreSettings((tmp_path / "mine.npz",), suite)))
    found = json.loads((out / "when.json").read_text())
    assert found["suite"] == "flashes" and found["split"] == "test" and len(found["suite_digest"]) == 64
    mine = found["answers"][0]
    assert mine["name"] == "mine" and mine["clips"] == 2 and mine["forwards"] is None
    assert mine["metrics"]["pointing"] == {
        **{"mean": 1.0, "random": 0.25, "corrected": 1.0, "low": 1.0, "high": 1.0, "clips": 2}
    }
    assert mine["metrics"]["deletion"]["corrected"] is None
    assert mine["selection"]["selected"] == 2 and mine["selection"]["exact"] == 1
    header, first, *_ = (out / "when.csv").read_text().splitlines()
    assert header.startswith("answer,clips,pointing,pointing: low") and first.startswith("mine,2,1.0,1.0,1.0,2,")


def test_an_explanations_file_holds_several_answers(suite, tmp_path):
    sizes = {"N": 3, "K": 1, "T": 8, "I": 1, 2: 2, "t": 1, "h": 1, "w": 1}
    columns = {
        name: np.zeros([sizes[size] for size in column.shape], column.dtype)
        for name, column in explanations.COLUMNS.items()
    }
    header = explanations_test.HEADER | {
        "class_names": ["flash"],
        "clip_shape": [8, 4, 4],
        "methods": {"names": ["rise"], "evaluations": 2, "steps": 1, "seed": 0},
    }
    columns |= {
        "video_id": np.array(["a", "b", "c"], object),
        "label": np.array([0, 0, -1], np.int32),  # The last is not known to be right.
        "mask": right(("a", "b", "c")).astype(np.float32),
        "oracle_interval": np.array([[0, 4], [4, 6], [0, 1]], np.int32),
        "attribution_rise": np.ones((3, 8), np.float32),
    }
    explanations.write(tmp_path / "x.h5", explanations.Explanations(header, columns))
    rows = when_scores.score_files(ScoreSettings((tmp_path / "x.h5",), suite)).tables[1].rows
    assert [row[:2] for row in rows] == [
        *[("x: mask", 2), ("x: best interval", 2), ("x: rise", 2)],
        *[("centred", 2), ("frame difference", 2)],
    ]
    assert [row[2].value for row in rows[:3]] == [0, 3, 0]  # The snapped masks are empty.
    assert rows[1][3].value == (1 / 2 + 1) / 2


def test_clips_that_are_not_the_suites_are_refused(suite, tmp_path):
    with pytest.raises(errors.UserError, match="Clips must be of the test split .* Received: 'z'"):
        score(suite, tmp_path, Attributions(("a", "z"), np.zeros((2, 8))))
    with pytest.raises(errors.UserError, match="must be of 8 frames.* Received: 4"):
        score(suite, tmp_path, Attributions(("a",), np.zeros((1, 4))))


def test_two_files_of_one_name_are_refused(suite, tmp_path):
    with pytest.raises(errors.UserError, match="different names. Received: x, x"):
        when_scores.score_files(ScoreSettings((tmp_path / "x.npz", tmp_path / "other" / "x.npz"), suite))


def test_a_store_without_truth_is_refused(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"test": 2})
    with pytest.raises(errors.UserError, match="--suite must be a clip store with ground truth. Received: .*clips"):
        score(tmp_path / "clips", tmp_path, Attributions(("test0",), np.zeros((1, 8))))
