"""The synthetic data set: scenes, files, and that time alone tells the classes of a pair apart."""

import concurrent.futures
import json
import multiprocessing
import pathlib
import pickle

import av
import numpy as np
import pytest

from common import errors, files
from data_prep import drawn_videos, ground_truth, synthetic, synthetic_scenes, synthetic_textures

PAIRS = [
    ("Moving [something] from left to right", "Moving [something] from right to left"),
    ("Moving [something] up", "Moving [something] down"),
    tuple(f"Moving [something] and [something] {how} each other" for how in ("closer to", "away from")),
    ("Moving [something] towards the camera", "Moving [something] away from the camera"),
    ("Turning the camera left while filming [something]", "Turning the camera right while filming [something]"),
]
COUNTS = {"train": 2, "validation": 1, "test": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("made") / "synthetic"
    synthetic.make_synthetic(out, 3, COUNTS, workers=1)
    return out


def test_classes_are_five_pairs_waving_and_holding() -> None:
    assert len(synthetic.CLASSES) == len(set(synthetic.CLASSES)) == 12
    paired = {name for pair in synthetic.REVERSE_PAIRS for name in pair}
    assert len(synthetic.REVERSE_PAIRS) == 5 and len(paired) == 10
    assert paired | {synthetic.WAVING, synthetic.HOLDING} == set(synthetic.CLASSES)
    assert ("Moving something up", "Moving something down") in synthetic.REVERSE_PAIRS


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_second_class_of_a_pair_is_the_first_backwards(first: str, second: str) -> None:
    frames, mask = synthetic_scenes.render(_scene(first, 7))
    reversed_frames, reversed_mask = synthetic_scenes.render(_scene(second, 7))
    np.testing.assert_array_equal(reversed_frames, frames[::-1])
    np.testing.assert_array_equal(reversed_mask, mask[::-1])
    np.testing.assert_array_equal(_scene(second, 7).salient, _scene(first, 7).salient[::-1])
    assert not np.array_equal(frames, frames[::-1])


@pytest.mark.parametrize("template", [PAIRS[0][0], PAIRS[4][0]])
def test_file_of_reversed_frames_decodes_to_the_reversed_frames(tmp_path: pathlib.Path, template: str) -> None:
    frames, _ = synthetic_scenes.render(_scene(template, 1))
    drawn_videos.encode(tmp_path / "forward.mp4", frames)
    drawn_videos.encode(tmp_path / "backward.mp4", frames[::-1])
    np.testing.assert_array_equal(_decode(tmp_path / "backward.mp4"), _decode(tmp_path / "forward.mp4")[::-1])


@pytest.mark.parametrize(
    ("template", "axis", "sign"), [(PAIRS[0][0], 0, 1), (PAIRS[0][1], 0, -1), (PAIRS[1][0], 1, -1), (PAIRS[1][1], 1, 1)]
)
def test_object_moves_as_its_class_says(template: str, axis: int, sign: int) -> None:
    for seed in range(20):
        path = _mover(_scene(template, seed)).path
        moved = path[-1] - path[0]
        assert sign * moved[axis] >= 0.4  # Of the frame's side.
        assert abs(moved[1 - axis]) <= 0.1


def test_towards_grows_closer_nears_and_the_picture_runs_right_when_the_camera_turns_left() -> None:
    for seed in range(20):
        diameter = _mover(_scene(PAIRS[3][0], seed)).diameter
        assert diameter[-1] >= 2.2 * diameter[0]
        a, b = (thing.path for thing in _scene(PAIRS[2][0], seed).things if thing.moves)
        distance = np.linalg.norm(a - b, axis=1)
        assert distance[0] - distance[-1] >= 0.35
        camera = _scene(PAIRS[4][0], seed).camera
        assert camera[-1, 0] - camera[0, 0] >= 0.4


def test_waving_returns_to_where_it_began_and_holding_stays() -> None:
    for seed in range(20):
        path = _mover(_scene("Waving [something]", seed)).path
        np.testing.assert_allclose(path[-1], path[0], atol=1e-12)
        assert np.linalg.norm(path - path[0], axis=1).max() >= 0.1
        held = _mover(_scene("Holding [something]", seed)).path
        np.testing.assert_array_equal(held, held[:1].repeat(len(held), axis=0))


@pytest.mark.parametrize("template", [t for t in synthetic_scenes.TEMPLATES if t != "Holding [something]"])
def test_event_is_one_run_of_30_to_60_percent_with_rest_around_it(template: str) -> None:
    begins = set()
    for seed in range(20):
        salient = _scene(template, seed).salient
        on = np.flatnonzero(salient)
        assert salient.dtype == np.uint8 and 0.3 <= len(on) / len(salient) <= 0.6
        assert on[-1] - on[0] == len(on) - 1 and on[0] >= 1 and on[-1] <= len(salient) - 2
        begins.add(int(on[0]))
    assert len(begins) >= 5


def test_nothing_moves_outside_the_event_but_jitter_and_the_dot() -> None:
    for seed in range(5):
        for template in synthetic_scenes.TEMPLATES:
            scene = _scene(template, seed)
            rest = np.diff(np.pad(scene.salient, 1))[1:-1] + scene.salient[:-1] == 0  # Between two frames of rest.
            for thing in scene.things[:2]:
                assert np.abs(np.diff(thing.path, axis=0)[rest]).max() < 1e-12
            assert np.abs(np.diff(scene.camera, axis=0)[rest]).max() < 0.01


def test_holding_has_no_event() -> None:
    assert not _scene("Holding [something]", 0).salient.any()


def test_place_at_the_first_frame_says_nothing_about_the_direction() -> None:
    # A bounded frame would give a mean of x below 0.3 to "left to right"; on the torus every place is as likely.
    x = np.array([_mover(_scene(PAIRS[0][0], seed)).path[0, 0] % 1 for seed in range(200)])
    quarters = np.histogram(x, 4, (0, 1))[0]
    assert quarters.min() >= 32 and quarters.max() <= 68  # 50 expected, deviation 6.1.


def test_mask_covers_what_moves() -> None:
    frames, mask = synthetic_scenes.render(_scene(PAIRS[0][0], 4))
    assert frames.shape[1:] == (80, 80, 3) and mask.shape[1:] == (20, 20) and len(frames) == len(mask)
    assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
    assert 0.005 < mask.mean() < 0.2
    assert (mask[0] != mask[-1]).any()
    camera_mask = synthetic_scenes.render(_scene(PAIRS[4][0], 4))[1]
    assert camera_mask.all()


def test_mask_is_hidden_where_another_thing_is_in_front() -> None:
    scene = _scene("Holding [something]", 2)
    place = np.full_like(scene.things[0].path, 0.5)
    square = np.ones((8, 8, 4), np.float32)
    held, front = (
        synthetic_scenes.Thing(square, place, np.full(len(place), size), "white square", moves)
        for size, moves in ((0.5, True), (0.3, False))
    )
    still = np.zeros_like(scene.camera)
    count = {
        things: int(synthetic_scenes.render(_with(scene, things, still))[1][0].sum())
        for things in ((held,), (held, front), (front, held))
    }
    # 0.5 of 20 cells is 10 x 10 cells; 0.3 is 6 x 6.
    assert count == {(held,): 100, (front, held): 100, (held, front): 64}


def test_thing_at_the_edge_comes_in_on_the_other_side() -> None:
    scene = _scene("Holding [something]", 2)
    square = np.ones((8, 8, 4), np.float32)
    path = np.full((len(scene.camera), 2), [0.0, 0.5])
    thing = synthetic_scenes.Thing(square, path, np.full(len(path), 0.4), "white square", True)
    mask = synthetic_scenes.render(_with(scene, (thing,), np.zeros_like(scene.camera)))[1][0]
    assert mask[10, :4].all() and mask[10, -4:].all() and not mask[10, 5:15].any()


def test_background_continues_at_the_opposite_edge() -> None:
    for seed in range(10):
        picture = synthetic_textures.draw_background(80, np.random.default_rng(seed))
        assert picture.shape == (80, 80, 3) and picture.min() >= 0 and picture.max() <= 1
        for axis in (0, 1):
            steps = np.abs(np.diff(picture, axis=axis, append=picture.take([0], axis))).mean(axis=(1 - axis, 2))
            assert steps[-1] <= steps[:-1].max() * 1.5


def test_every_file_is_there_and_decodes_to_its_ground_truth_length(made: pathlib.Path) -> None:
    truth = ground_truth.GroundTruth(made / "ground_truth.h5")
    files = sorted((made / "videos").iterdir())
    assert [file.stem for file in files] == sorted(truth.video_ids()) and len(files) == 12 * 4
    lengths = set()
    for file in files[::5]:
        frames = _decode(file)
        lengths.add(len(frames))
        assert truth.salient(file.stem).shape == (len(frames),)
        assert truth.object_mask(file.stem).shape == (len(frames), 20, 20)
    assert len(lengths) >= 4 and min(lengths) >= 24 and max(lengths) <= 36


def test_decoded_frames_are_the_rendered_ones(made: pathlib.Path) -> None:
    truth = ground_truth.GroundTruth(made / "ground_truth.h5")
    scene = synthetic._draw_scene(3, "train", 5)[1]
    frames, mask = synthetic_scenes.render(scene)
    decoded = _decode(made / "videos" / "train-00005.mp4")
    assert (
        np.abs(decoded.astype(int) - frames).mean() < 6
    )  # Of 255: what the codec loses, half of the colour above all.
    np.testing.assert_array_equal(truth.object_mask("train-00005"), mask)
    np.testing.assert_array_equal(truth.salient("train-00005"), scene.salient)
    on = np.flatnonzero(scene.salient)
    assert truth.event("train-00005") == (on[0], on[-1]) and truth.label("train-00005") == 5


def test_holding_has_neither_event_nor_salient_frames_in_the_file(made: pathlib.Path) -> None:
    truth = ground_truth.GroundTruth(made / "ground_truth.h5")
    video_id = f"train-{synthetic.CLASSES.index('Holding something'):05d}"
    assert truth.event(video_id) == (-1, -1) and not truth.salient(video_id).any()
    assert truth.object_mask(video_id).any()


def test_annotations_are_in_the_format_of_something_something(made: pathlib.Path) -> None:
    labels = json.loads((made / "labels.json").read_text())
    assert labels == {name: str(i) for i, name in enumerate(synthetic.CLASSES)}
    for split, number in (("train", 24), ("validation", 12)):
        records = json.loads((made / f"{split}.json").read_text())
        assert len(records) == number
        classes = [r["template"].replace("[", "").replace("]", "") for r in records]
        assert sorted(classes) == sorted(synthetic.CLASSES * (number // 12))
        for record in records:
            assert set(record) == {"id", "label", "template", "placeholders"}
            assert len(record["placeholders"]) == record["template"].count("[something]")
            assert "[" not in record["label"] and all(words in record["label"] for words in record["placeholders"])
    tests = json.loads((made / "test.json").read_text())
    assert len(tests) == 12 and all(set(record) == {"id"} for record in tests)


def test_same_bytes_from_any_number_of_workers_and_after_an_interruption(
    made: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    encode, written = drawn_videos.encode, []

    def interrupted(path: pathlib.Path, frames: np.ndarray) -> None:
        if len(written) == 9:
            (path.parent / f".{'0' * 16}.tmp").write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(path)
        encode(path, frames)

    with monkeypatch.context() as patch:
        patch.setattr(drawn_videos, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            synthetic.make_synthetic(out, 3, COUNTS, workers=1)
    assert len(list((out / "videos").glob("*.mp4"))) == 9 and not (out / "ground_truth.h5").exists()
    before = {path: path.stat().st_mtime_ns for path in written}
    synthetic.make_synthetic(out, 3, COUNTS, workers=2)
    assert {path: path.stat().st_mtime_ns for path in written} == before
    assert _contents(out) == _contents(made)


def test_what_another_call_is_writing_in_the_folder_is_left_to_it(made: pathlib.Path) -> None:
    with files.written_whole(made / "videos" / "train-00000.mp4") as half_written:
        half_written.write_bytes((made / "videos" / "train-00000.mp4").read_bytes())
        synthetic.make_synthetic(made, 3, COUNTS, workers=1)


def test_more_clips_keep_the_videos_that_are_there(tmp_path: pathlib.Path) -> None:
    synthetic.make_synthetic(tmp_path / "a", 0, {"validation": 1}, workers=1)
    few = _contents(tmp_path / "a")
    synthetic.make_synthetic(tmp_path / "a", 0, {"train": 1, "validation": 1}, workers=1)
    more = _contents(tmp_path / "a")
    videos = [name for name in few if name.endswith(".mp4")]
    assert len(videos) == 12 and all(more[name] == few[name] for name in videos)
    assert sum(name.endswith(".mp4") for name in more) == 24


def test_complete_set_is_left_as_it_is(made: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_scenes, "render", None)  # Drawing anything would fail.
    before = _contents(made)
    synthetic.make_synthetic(made, 3, COUNTS, workers=1)
    assert _contents(made) == before


def test_lost_video_is_made_again(made: pathlib.Path) -> None:
    before = _contents(made)
    (made / "videos" / "test-00003.mp4").unlink()
    synthetic.make_synthetic(made, 3, COUNTS, workers=1)
    assert _contents(made) == before


def test_another_seed_makes_other_videos() -> None:
    frames = [synthetic_scenes.render(synthetic._draw_scene(seed, "train", 0)[1])[0] for seed in (0, 1)]
    assert frames[0].shape != frames[1].shape or not np.array_equal(frames[0], frames[1])


def test_ground_truth_reads_in_other_processes(made: pathlib.Path) -> None:
    truth = ground_truth.GroundTruth(made / "ground_truth.h5")
    expected = truth.salient("train-00001")
    copy = pickle.loads(pickle.dumps(truth))
    np.testing.assert_array_equal(copy.salient("train-00001"), expected)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        np.testing.assert_array_equal(pool.submit(truth.salient, "train-00001").result(), expected)


def test_unknown_video_id_is_refused(made: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match="must hold the video id. Received: 'train-99999'"):
        ground_truth.GroundTruth(made / "ground_truth.h5").salient("train-99999")


def test_missing_or_damaged_ground_truth_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "damaged.h5").write_bytes(b"half a file")
    for name in ("none.h5", "damaged.h5"):
        with pytest.raises(errors.UserError, match=f"The ground truth must be an HDF5 file .* Received: .*{name}"):
            ground_truth.GroundTruth(tmp_path / name).salient("train-00000")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be at least 0. Received: -1"),
        ({"workers": 0}, "workers must be at least 1. Received: 0"),
        ({"clips_per_class": {"training": 3}}, "Received: {'training': 3}"),
        ({"clips_per_class": {"train": -3}}, "Received: {'train': -3}"),
        ({"clips_per_class": {"train": 0}}, "not all 0"),
        ({"clips_per_class": {}}, "not all 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: pathlib.Path, arguments: dict, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        synthetic.make_synthetic(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_folder_of_another_seed_is_refused(made: pathlib.Path) -> None:
    before = _contents(made)
    with pytest.raises(errors.UserError, match="'seed': 4"):
        synthetic.make_synthetic(made, 4, COUNTS, workers=1)
    assert _contents(made) == before


@pytest.mark.parametrize(
    ("name", "message"), [("thesis.tex", "must be empty or new"), ("synthetic.json", "Received: None")]
)
def test_folder_of_other_files_is_refused(tmp_path: pathlib.Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(errors.UserError, match=message):
        synthetic.make_synthetic(tmp_path, 0, COUNTS, workers=1)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def _scene(template: str, seed: int) -> synthetic_scenes.Scene:
    return synthetic_scenes.draw_scene(template, np.random.default_rng(seed))


def _mover(scene: synthetic_scenes.Scene) -> synthetic_scenes.Thing:
    return next(thing for thing in scene.things if thing.moves)


def _with(
    scene: synthetic_scenes.Scene, things: tuple[synthetic_scenes.Thing, ...], camera: np.ndarray
) -> synthetic_scenes.Scene:
    return synthetic_scenes.Scene(
        scene.background, things, camera, scene.gain, scene.offset, scene.salient, scene.camera_turns
    )


def _decode(path: pathlib.Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
