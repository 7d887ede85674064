"""Statistics of explanations, of clips so small that every number can be worked out by hand."""

import itertools
import json

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from common import errors, files
from common.clips import clip_store, shards, tiny_store_for_tests
from common.explaining.explanation_statistics import clip_statistics, summary, table
from common.explaining.explanations import COLUMNS, Explanations

SALIENT = st.lists(st.booleans(), min_size=1, max_size=7).filter(any)


def explained(clips=1, *, clip_shape=(4, 4, 4), time="repeat", **columns):
    """Explanations of clips "0", "1", … of class 0, with masks and maps of zeros but for the columns given."""
    sizes = {"N": clips, "K": 3, "T": clip_shape[0], "I": 1, 2: 2, "t": clip_shape[0], "h": 1, "w": 1}
    values = {name: np.zeros([sizes[letter] for letter in column.shape]) for name, column in COLUMNS.items()}
    values |= {"video_id": np.array([str(i) for i in range(clips)], dtype=object), "CS": np.full(clips, np.nan)}
    values |= {name: np.array(column) for name, column in columns.items()}
    typed = {name: np.asarray(values[name], column.dtype) for name, column in COLUMNS.items()}
    header = {"class_names": ["up", "down", "still"], "clip_shape": list(clip_shape), "gradcam": {"time": time}}
    header["mask"] = {"game": "delete"}
    return Explanations(header, typed)


def stored(directory, salient, object_masks, video_ids=None):
    """A clip store with ground truth, salient [N, T] and object masks [N, T, h, w]."""
    salient, object_masks = np.array(salient, np.uint8), np.array(object_masks, np.uint8)
    count, time = salient.shape
    layout = shards.Layout(time, 4, 4, encoding="raw", object_mask_shape=object_masks.shape[2:])
    clips = [
        shards.Clip(
            np.zeros(layout.clip_shape, np.uint8),
            label=0,
            video_id=video_ids[i] if video_ids else str(i),
            source_frame=np.arange(time),
            source_time=np.arange(time) / 25,
            source_frames=time,
            source_fps=25.0,
            salient=salient[i],
            object_mask=object_masks[i],
        )
        for i in range(count)
    ]
    directory.mkdir()
    path = directory / clip_store.shard_name("validation", 0, 1)
    tiny_store_for_tests.write_shard(path, clips, layout)
    record = clip_store.Shard(path.name, "validation", count, files.sha256(path))
    names, tool = ("up", "down", "still"), {"name": "test", "version": "1"}
    counts = {"validation": {"up": count, "down": 0, "still": 0}}
    info = clip_store.DatasetInfo("test", names, layout, "stretch", "linspace", counts, tool, tool, (record,))
    clip_store.write_dataset_json(directory, info)
    return clip_store.ClipStore(directory, "validation")


class Truth:
    """What `clip_statistics` needs of a store, without a file: for tests that try many."""

    def __init__(self, salient, object_mask):
        self.info = self
        self.layout = shards.Layout(len(salient), 4, 4, object_mask_shape=np.shape(object_mask)[1:])
        self.video_ids = ("0",)
        self.column = {"salient": np.array([salient]), "object_mask": np.array([object_mask])}.__getitem__


def temporal(mask, salient):
    """Temporal statistics of one clip, name -> number; the mask is snapped at 0.5."""
    mask = np.array([mask], float)
    explanations = explained(clip_shape=(len(salient), 4, 4), mask=mask, mask_snapped=mask > 0.5)
    found = clip_statistics(explanations, Truth(salient, np.zeros((len(salient), 1, 1))))
    return {name: float(values[0]) for name, values in found.items()}


def pointed(maps, salient, object_mask):
    """The pointing game of one clip: of the map, at random, and in the middle."""
    maps = np.array([maps], float)
    found = clip_statistics(explained(clip_shape=maps.shape[1:], gradcam=maps), Truth(salient, object_mask))
    return [float(found[f"pointing_game{which}"][0]) for which in ("", "_random", "_center")]


def test_scores_and_their_ratios_by_hand():
    found = clip_statistics(
        explained(
            clips=3,
            **{"OS": [0.5, 0.5, 0], "FS": [0.25, 0, 0.25], "RS": [0.125, 0.5, 0.25], "CS": [np.nan, 0.25, np.nan]},
            **{"final_loss": [0.375, 0.25, 0.5], "oracle_loss": [0.25, 0.5, 0]},
            mask_snapped=[[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]],
        )
    )
    expected = {
        "OS": [0.5, 0.5, 0],
        "RS/FS": [0.5, np.nan, 1],
        "freeze_drop": [0.5, 1, np.nan],
        "reverse_drop": [0.75, 0, np.nan],
        "oracle_gap": [0.5, -0.5, np.nan],
        "CS": [np.nan, 0.25, np.nan],
        "mask_length": [3, 0, 4],
        "runs": [2, 0, 1],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert all(values.dtype == np.float64 and values.shape == (3,) for values in found.values())


def test_blobs_are_those_of_the_clips_own_maximum():
    maps = np.zeros((2, 4, 4, 4))
    maps[0, 0, 0, 0], maps[0, 0, 3, 2:] = 2, 1.5  # Two blobs, of 1 and 2 of 16 px.
    maps[0, 1, 1:3, 1:3] = 1.25  # One in the middle, of 4 px.
    maps[0, 2, 3, 3] = 0.5  # A quarter of the maximum: no blob, but a centre of mass.
    found = clip_statistics(explained(clips=2, gradcam=maps))
    np.testing.assert_allclose(found["blobs_per_frame"], [3 / 4, 0])
    np.testing.assert_allclose(found["blob_area"], [(1 + 2 + 4) / 3 / 16, np.nan])
    # Offsets from the centre (1.5, 1.5) in px: frame 0 rows (2 · -1.5 + 3 · 1.5) / 5 = 0.3 and columns
    # (2 · -1.5 + 1.5 · 0.5 + 1.5 · 1.5) / 5 = 0; frame 1 none; frame 2 (1.5, 1.5). Half the diagonal is √8 px.
    expected = (0.3 + 0 + 1.5 * 2**0.5) / 3 / 8**0.5
    np.testing.assert_allclose(found["center_distance"], [expected, np.nan], rtol=1e-6)


@pytest.mark.parametrize(("time", "frames"), [("repeat", 2), ("linear", 1)])
def test_maps_are_up_sampled_as_the_header_says(time, frames):
    # Two coarse frames, 1 and 0, become 1, 1, 0 or 1, 0.5, 0.
    explanations = explained(clip_shape=(3, 4, 4), time=time, gradcam=[[[[1]], [[0]]]])
    assert clip_statistics(explanations)["blobs_per_frame"][0] == frames / 3


@pytest.mark.parametrize(
    ("mask", "salient", "iou", "at_random", "centered"),
    [
        ([1, 1, 0, 0], [0, 1, 1, 0], 1 / 3, (1 / 3 + 1 + 1 / 3) / 3, 1),
        ([0, 1, 1, 0], [0, 1, 1, 0], 1, 5 / 9, 1),
        ([1, 0, 0, 1], [0, 1, 1, 0], 0, 5 / 9, 1),
        ([0, 1, 0, 0], [0, 1, 0, 0], 1, 1 / 4, 1 / 2),  # The middle is frame 1 or frame 2.
        ([1, 1, 1, 0], [0, 1, 0, 0], 1 / 3, 1 / 3, 1 / 3),
        ([1, 1, 0, 1], [1, 0, 0, 0], 1 / 3, 1 / 6, 1 / 6),
        ([0, 0, 0, 0], [0, 1, 0, 0], 0, 0, 0),
        ([1, 1, 1, 1], [0, 1, 0, 0], 1 / 4, 1 / 4, 1 / 4),
        ([1], [1], 1, 1, 1),
    ],
)
def test_temporal_iou_by_hand(mask, salient, iou, at_random, centered):
    found = temporal(mask, salient)
    np.testing.assert_allclose(found["temporal_iou"], iou)
    np.testing.assert_allclose(found["temporal_iou_random"], at_random)
    np.testing.assert_allclose(found["temporal_iou_centered"], centered)


@settings(max_examples=30, deadline=None)
@given(salient=SALIENT, data=st.data())
def test_the_random_iou_is_the_mean_over_all_places(salient, data):
    time = len(salient)
    length = data.draw(st.integers(0, time))
    event = {t for t in range(time) if salient[t]}
    ious = [
        len(event & set(range(s, s + length))) / len(event | set(range(s, s + length)))
        for s in range(time - length + 1)
    ]
    found = temporal([1] * length + [0] * (time - length), salient)
    np.testing.assert_allclose(found["temporal_iou_random"], np.mean(ious))
    np.testing.assert_allclose(found["temporal_iou"], ious[0])


@pytest.mark.parametrize(
    ("mask", "salient", "precision", "centered"),
    [
        ([0.9, 0.8, 0.1, 0.2], [0, 1, 1, 0], (1 / 2 + 2 / 4) / 2, 1),
        ([0.1, 0.9, 0.8, 0.2], [0, 1, 1, 0], 1, 1),
        # From the middle 1 2 0 3 gives 1 and 2/3, 2 1 3 0 gives 1/2 and 2/4.
        # Equals in any order: on average 1, (1 + 1/3) / 2, (1 + 2/3) / 3 and (1 + 3/3) / 4 at the four ranks.
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0], (1 + 2 / 3 + 5 / 9 + 1 / 2) / 4, (1 + 2 / 3 + 1 / 2 + 2 / 4) / 4),
        ([0.1, 0.2, 0.3], [1, 0, 0], 1 / 3, (1 / 2 + 1 / 3) / 2),
        ([0.1, 0.2, 0.3], [1, 1, 1], 1, 1),
        ([0.1], [1], 1, 1),
    ],
)
def test_average_precision_by_hand(mask, salient, precision, centered):
    found = temporal(mask, salient)
    np.testing.assert_allclose(found["average_precision"], precision)
    np.testing.assert_allclose(found["average_precision_centered"], centered)


def test_the_average_precision_of_a_random_order_by_hand():
    # Precisions that a positive at rank 1, 2, 3, 4 has on average: 1, (1 + 1/3) / 2, (1 + 2/3) / 3, (1 + 3/3) / 4.
    found = temporal([0, 0, 0, 0], [0, 1, 1, 0])
    np.testing.assert_allclose(found["average_precision_random"], (1 + 2 / 3 + 5 / 9 + 1 / 2) / 4)


@settings(max_examples=30, deadline=None)
@given(salient=SALIENT)
def test_the_random_average_precision_is_the_mean_over_all_orders(salient):
    time, positives = len(salient), sum(salient)
    ranking = -np.arange(time)
    orders = [np.isin(np.arange(time), chosen).astype(int) for chosen in itertools.combinations(range(time), positives)]
    mean = np.mean([sklearn.metrics.average_precision_score(order, ranking) for order in orders])
    np.testing.assert_allclose(temporal([0] * time, salient)["average_precision_random"], mean)


@settings(max_examples=30, deadline=None)
@given(salient=SALIENT)
def test_the_centered_average_precision_is_the_mean_over_all_orders_of_equals(salient):
    time = len(salient)
    distances = [abs(2 * t - time + 1) for t in range(time)]
    scores = []
    for first in itertools.product((0, 1), repeat=time // 2):  # Of each pair of equals, which half's comes first.
        later = [first[min(t, time - 1 - t)] != (t >= time / 2) if 2 * t != time - 1 else 0 for t in range(time)]
        ranking = [-distance - 0.5 * late for distance, late in zip(distances, later, strict=True)]
        scores.append(sklearn.metrics.average_precision_score(salient, ranking))
    np.testing.assert_allclose(temporal([0] * time, salient)["average_precision_centered"], np.mean(scores))


def test_a_clip_without_an_event_has_no_temporal_truth_and_no_pointing_game():
    explanations = explained(mask_snapped=[[0, 1, 1, 0]], gradcam=np.ones((1, 4, 4, 4)))
    found = clip_statistics(explanations, Truth([0, 0, 0, 0], np.ones((4, 2, 2))))
    undefined = {name for name, values in found.items() if np.isnan(values[0])}
    of_truth = {name for name in found if name.startswith(("temporal_iou", "average_precision", "pointing_game"))}
    assert len(of_truth) == 9 and of_truth <= undefined
    assert found["mask_length"] == 2


TOP_RIGHT = [[0, 1], [0, 0]]


def one_hot(row, column, size=4):
    frame = np.zeros((size, size))
    frame[row, column] = 3
    return frame


def test_the_pointing_game_by_hand():
    maps = [one_hot(3, 0), one_hot(1, 2), one_hot(1, 1), one_hot(2, 2)]
    # Frame 0 does not count; of the others the maximum lies in the top right quarter once.
    assert pointed(maps, [0, 1, 1, 1], [TOP_RIGHT] * 4) == [1 / 3, 1 / 4, 1 / 4]


def test_frames_without_a_visible_object_do_not_count():
    nothing = [[0, 0], [0, 0]]
    assert pointed([one_hot(0, 3)] * 2, [1, 1], [TOP_RIGHT, nothing]) == [1, 1 / 4, 1 / 4]
    np.testing.assert_array_equal(pointed([one_hot(0, 3)] * 2, [1, 1], [nothing] * 2), [np.nan] * 3)


def test_a_map_of_zeros_misses_even_where_everything_is_the_object():
    assert pointed([np.zeros((4, 4)), one_hot(0, 0)], [1, 1], np.ones((2, 2, 2))) == [1 / 2, 1, 1]


def test_of_equal_maxima_the_share_on_the_object_counts():
    assert pointed([one_hot(1, 3) + one_hot(2, 0)], [1], [TOP_RIGHT])[0] == 1 / 2
    # A map that is the same everywhere points as well as a pixel at random.
    assert pointed([np.full((4, 4), 0.3)], [1], [TOP_RIGHT])[0] == 1 / 4


@pytest.mark.parametrize(("column", "cell"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_a_pixel_is_in_the_cell_of_its_centre(column, cell):
    # Centres of 4 px in units of 3 cells: 0.375, 1.125, 1.875, 2.625.
    object_mask = np.zeros((1, 1, 3))
    object_mask[0, 0, cell] = 1
    assert pointed([one_hot(2, column)], [1], object_mask)[0] == 1


@pytest.mark.parametrize(
    ("object_mask", "center"),
    [
        (np.eye(3), 1),
        (1 - np.eye(3), 0),
        (np.eye(4), 2 / 4),  # Four cells are in the middle.
        ([[0, 0, 1, 0]], 1 / 2),  # Two are.
    ],
)
def test_the_middle_of_the_frame_is_its_middle_cells(object_mask, center):
    assert pointed([one_hot(0, 0)], [1], [object_mask])[2] == center


def test_clips_are_found_in_the_store_by_their_id(tmp_path):
    ends, starts = [0, 0, 1, 1], [1, 1, 0, 0]
    store = stored(tmp_path / "clips", [ends, [0] * 4, starts], np.ones((3, 4, 2, 2)), video_ids=["a", "b", "c"])
    found = clip_statistics(
        explained(2, video_id=["c", "a"], mask_snapped=[starts, ends], gradcam=np.ones((2, 4, 1, 1))), store
    )
    np.testing.assert_array_equal(found["temporal_iou"], [1, 1])
    np.testing.assert_array_equal(found["pointing_game"], [1, 1])


def test_a_store_of_other_clips_is_refused(tmp_path):
    store = stored(tmp_path / "clips", np.ones((2, 4)), np.ones((2, 4, 2, 2)))
    with pytest.raises(errors.UserError, match="Received: validation of .*clips without 1 of them, first '2'"):
        clip_statistics(explained(3), store)
    with pytest.raises(errors.UserError, match="Clips must have 5 frames, as in the explanations. Received: 4 frames"):
        clip_statistics(explained(1, clip_shape=(5, 4, 4)), store)


def test_without_ground_truth_there_is_none():
    store = Truth([1] * 4, np.ones((4, 1, 1)))
    names = set(clip_statistics(explained(), store))
    store.layout = shards.Layout(4, 4, 4)
    without = set(clip_statistics(explained(), store))
    assert without == set(clip_statistics(explained())) and len(names - without) == 9


def four_clips():
    """Classes up, up, down and unknown (explained: still); the second up is taken for down."""
    return explained(
        4,
        **{"OS": [1, 0.5, 0.75, 0.25], "FS": [0.5, 0, 0.25, 0.25], "RS": [0.5, 0.25, 0.5, 0.25]},
        **{"S": [0.5, 0, 0.25, 0.25], "label": [0, 0, 1, -1], "prediction": [0, 1, 1, 2], "target": [0, 1, 1, 2]},
        **{"final_loss": [0.75, 0.5, 0.5, 0.5], "oracle_loss": [0.5] * 4, "CS": [np.nan, 0.25, np.nan, np.nan]},
        mask_snapped=[[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]],
    )


def test_a_summary_by_hand():
    explanations = four_clips()
    found = summary(clip_statistics(explanations), explanations)
    everything, correct = found["all"], found["correct"]
    assert everything["clips"] == 4 and correct["clips"] == 2
    assert everything["statistics"]["FS"] == {"mean": 1 / 4, "median": 0.25, "clips": 4}
    assert everything["statistics"]["halved"] == {"mean": 3 / 4, "clips": 4}
    assert everything["statistics"]["OS"] == {"mean": 2.5 / 4, "clips": 4}
    assert correct["statistics"]["OS"] == {"mean": 1.75 / 2, "clips": 2}
    assert everything["statistics"]["CS"] == {"mean": 0.25, "clips": 1}
    assert correct["statistics"]["CS"] == {"mean": None, "clips": 0}
    assert everything["statistics"]["runs"] == {"mean": 4 / 4, "clips": 4}
    # Ratios 1, undefined, 2, 1; means 1.5 / 4 and 1 / 4.
    assert everything["statistics"]["RS/FS"] == {"ratio_of_means": 1.5, "median": 1, "clips": 3}
    assert list(everything["per_class"]) == ["up", "down", "still"]
    assert everything["per_class"]["up"]["statistics"]["RS/FS"] == {"ratio_of_means": 1.5, "median": 1, "clips": 1}
    assert everything["per_class"]["still"]["statistics"]["mask_length"] == {"mean": 2, "clips": 1}
    assert {name: part["clips"] for name, part in correct["per_class"].items()} == {"up": 1, "down": 1}
    json.dumps(found, allow_nan=False)


def test_a_summary_of_what_is_never_defined_is_none():
    explanations = explained(2, label=[1, 1])
    found = summary(clip_statistics(explanations), explanations)
    assert found["all"]["statistics"]["RS/FS"] == {"ratio_of_means": None, "median": None, "clips": 0}
    assert found["correct"]["clips"] == 0 and found["correct"]["per_class"] == {}
    json.dumps(found, allow_nan=False)


def test_the_table_of_runs():
    explanations = four_clips()
    named = [("mine", explanations, clip_statistics(explanations))]
    assert table(named).endswith("below 0 %, the mask is the better one")
    assert table(named).partition("\n\nOS ")[0] == "\n".join(
        [
            "Run     game  clips  correct     OS     FS     RS  RS/FS  mask length  runs  oracle gap",
            "mine  delete      4        2  0.625  0.250  0.375   1.50          2.0  1.00      12.5 %",
            "",
            "Median over clips     FS  RS/FS  score halved in",
            "mine               0.250   1.00             75 %",
            "",
            "mine: per class  clips     OS     FS     RS  mask length",
            "  up                 2  0.750  0.250  0.375          1.0",
            "  down               1  0.750  0.250  0.500          4.0",
            "  still              1  0.250  0.250  0.250          2.0",
        ]
    )


def test_a_brief_table_has_no_classes_and_no_legend():
    explanations = four_clips()
    brief = table([("mine", explanations, clip_statistics(explanations))], brief=True)
    assert [line.split()[0] for line in brief.splitlines() if line] == ["Run", "mine", "Median", "mine"]


def test_unlabelled_clips_are_neither_correct_nor_wrong():
    unknown = explained(2, label=[-1, -1])
    lines = table([("mine", unknown, clip_statistics(unknown))]).splitlines()
    assert dict(zip(lines[0].split(), lines[1].split(), strict=False))["correct"] == "-"


def test_the_table_of_runs_with_ground_truth():
    plain = explained()
    known = explained(
        mask=[[0.9, 0.8, 0.1, 0.2]], mask_snapped=[[1, 1, 0, 0]], gradcam=[[one_hot(0, 3)] * 4], oracle_loss=[0.5]
    )
    truth = Truth([0, 1, 1, 0], [TOP_RIGHT] * 4)
    runs = [("plain", plain, clip_statistics(plain)), ("known", known, clip_statistics(known, truth))]
    assert "pointing    share of frames" in table(runs)
    assert table(runs).partition("\n\nOS ")[0] == "\n".join(
        [
            "Run      game  clips  correct     OS     FS     RS  RS/FS  mask length  runs  oracle gap",
            "plain  delete      1        1  0.000  0.000  0.000      -          0.0  0.00           -",
            "known  delete      1        1  0.000  0.000  0.000      -          2.0  1.00    -100.0 %",
            "",
            "Median over clips     FS  RS/FS  score halved in",
            "plain              0.000      -            100 %",
            "known              0.000      -            100 %",
            "",
            "Against ground truth  temporal IoU  random  centred     AP  random  centred  pointing  random  centre",
            "known                        0.333   0.556    1.000  0.500   0.681    1.000     1.000   0.250   0.250",
            "",
            "plain: per class  clips     OS     FS     RS  mask length",
            "  up                  1  0.000  0.000  0.000          0.0",
            "",
            "known: per class  clips     OS     FS     RS  mask length  temporal IoU",
            "  up                  1  0.000  0.000  0.000          2.0         0.333",
        ]
    )
