"""Planted events: one short event that undoes itself, truths that hold to the pixel, suites with frozen test splits."""

import json
import pathlib

import numpy as np
import pytest

from common import errors
from common.clips import clip_store, shards, suites
from common.explaining import perturbations
from common.launching import Launch
from data_prep import building, drawn_videos, ground_truth, planted, planted_scenes, planted_suites
from data_prep.planted_scenes import FRAMES, Event

MOVING = ("rare", "edges", "pair", "redundant")  # Suites in which nothing but the events ever changes.
COUNTS = {"train": 1, "validation": 1, "test": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> building.PrepareConfig:
    config = building.PrepareConfig(
        "planted", tmp_path_factory.mktemp("rare"), launch=Launch(), clips_per_class=COUNTS, suite="rare"
    )
    assert building.prepare(config) == 0
    return config


def _drawn(suite: str, number: int, split: str = "test", seed: int = 0) -> drawn_videos.Drawing:
    return planted.draw_video(suite, seed, split, number)


def _frozen(frames: np.ndarray, which: np.ndarray) -> np.ndarray:
    return perturbations.perturb(frames[None], which[None].astype(float), "freeze")[0]


def _is_still(frames: np.ndarray) -> bool:
    return bool((frames == frames[:1]).all())


def test_phase_goes_round_once_in_equal_steps() -> None:
    forwards, backwards = (Event(0, sign, first=2, length=3) for sign in (1, -1))
    assert [forwards.phase(frame) for frame in range(7)] == [0, 0, 64, 128, 192, 0, 0]
    assert [backwards.phase(frame) for frame in range(7)] == [0, 0, 192, 128, 64, 0, 0]
    assert [Event(0, 1, 1, 4).phase(frame) for frame in range(6)] == [0, 51, 102, 154, 205, 0]  # 256 / 5 = 51.2


@pytest.mark.parametrize("length", suites.LENGTHS)
def test_an_event_and_its_reversal_show_the_same_frames_in_the_opposite_order(length: int) -> None:
    for wave in range(len(suites.WAVES)):
        rng = np.random.default_rng(wave)
        light = np.zeros(FRAMES, np.int64)
        event = Event(wave, 1, first=6, length=length)
        mirrored = Event(wave, -1, first=FRAMES - event.stop, length=length)
        frames, mask = planted_scenes.render(planted_scenes.draw_scene((event,), light, rng))
        other, other_mask = planted_scenes.render(
            planted_scenes.draw_scene((mirrored,), light, np.random.default_rng(wave))
        )
        np.testing.assert_array_equal(other, frames[::-1])
        np.testing.assert_array_equal(other_mask, mask[::-1])
        assert not np.array_equal(frames, frames[::-1])


@pytest.mark.parametrize(
    ("wave", "sign", "shift"), [(0, 1, (0, 8)), (0, -1, (0, -8)), (1, 1, (8, 0)), (1, -1, (-8, 0))]
)
def test_ground_moves_as_its_class_says(wave: int, sign: int, shift: tuple[int, int]) -> None:
    """Three quarters of the ground's period of 64 / 6 px, which are 8 px, in the third of three frames."""
    scene = planted_scenes.draw_scene((Event(wave, sign, 1, 3),), np.zeros(FRAMES, np.int64), np.random.default_rng(0))
    frames, _ = planted_scenes.render(scene)
    disc = planted_scenes._disc(scene.center)
    ground = ~(disc | np.roll(disc, shift, axis=(0, 1)))
    np.testing.assert_array_equal(frames[3][ground], np.roll(frames[0], shift, axis=(0, 1))[ground])
    np.testing.assert_array_equal(frames[3][disc], frames[0][disc])
    name = suites.class_names("rare")[suites.classes("rare").index(((wave, sign),))]
    assert name == f"Ground moves {({(0, 1): 'right', (0, -1): 'left', (1, 1): 'down', (1, -1): 'up'})[wave, sign]}"


@pytest.mark.parametrize(
    ("wave", "sign", "direction"),
    [(2, 1, "down and right"), (2, -1, "up and left"), (3, 1, "up and right"), (3, -1, "down and left")],
)
def test_pattern_of_the_disc_moves_as_its_class_says(wave: int, sign: int, direction: str) -> None:
    """The shift by which a frame fits the still picture best, inside the disc, has the signs that the class names."""
    scene = planted_scenes.draw_scene((Event(wave, sign, 1, 5),), np.zeros(FRAMES, np.int64), np.random.default_rng(3))
    still, moved = (frame.astype(int) for frame in planted_scenes.render(scene)[0][:2])
    x, y = scene.center
    inside = slice(y - 9, y + 9), slice(x - 9, x + 9)
    shifts = [(down, right) for down in (-1, 1) for right in (-1, 1)]
    away = [np.abs(np.roll(still, shift, axis=(0, 1)) - moved)[inside].mean() for shift in shifts]
    down, right = shifts[int(np.argmin(away))]
    assert direction == f"{'down' if down > 0 else 'up'} and {'right' if right > 0 else 'left'}"
    assert (
        suites.class_names("rare")[suites.classes("rare").index(((wave, sign),))] == f"Disc pattern moves {direction}"
    )


@pytest.mark.parametrize("suite", MOVING)
def test_freezing_exactly_the_salient_frames_leaves_a_still_clip(suite: str) -> None:
    for number in range(9):
        drawing = _drawn(suite, number)
        salient = drawing.truth.salient
        assert _is_still(_frozen(drawing.frames, salient))
        for frame in np.flatnonzero(salient):
            fewer = salient.copy()
            fewer[frame] = 0
            assert not _is_still(_frozen(drawing.frames, fewer))
        assert salient[0] == salient[-1] == 0  # The first and the last frame are the still picture.


def test_distractor_changes_the_light_of_all_pixels_alike_outside_the_event() -> None:
    for number in range(8):
        drawing = _drawn("distractor", number)
        rest = _frozen(drawing.frames, drawing.truth.salient)
        light = (rest - rest[:1]).reshape(FRAMES, -1)
        assert (light == light[:, :1]).all()
        lit = light[:, 0] != 0
        assert 3 <= lit.sum() <= 5 and not (lit & (drawing.truth.salient != 0)).any() and np.abs(light).max() == 15


@pytest.mark.parametrize(("suite", "most"), [("rare", 1 / 4), ("edges", 1 / 4), ("distractor", 1 / 4), ("pair", 1 / 3)])
def test_events_are_short_and_anywhere(suite: str, most: float) -> None:
    happenings = [
        planted_suites.draw(suite, number % 8, planted_suites.generator(suite, "train", 0, number))[1]
        for number in range(160)
    ]
    salient = np.stack([happening.salient for happening in happenings])
    assert salient.mean(axis=1).max() <= most and salient.mean(axis=1).min() >= 3 / 24
    reached = np.flatnonzero(salient.any(axis=0)).tolist()
    if suite == "edges":
        assert all(row[1] or row[-2] for row in salient) and salient[:, 1].any() and salient[:, -2].any()
    else:
        assert reached == list(range(1, FRAMES - 1))


def test_truths_of_each_suite() -> None:
    """Sets that suffice and frames needed: the event; both; either; none."""
    for number in range(8):
        for suite in ("rare", "edges", "distractor", "pair"):
            truth = _drawn(suite, number).truth
            np.testing.assert_array_equal(truth.sufficient, [truth.salient, np.zeros(FRAMES)])
        truth = _drawn("redundant", number).truth
        first, second = truth.sufficient
        assert first.any() and second.any() and np.flatnonzero(first)[-1] + 3 < np.flatnonzero(second)[0]
        np.testing.assert_array_equal(first + second, truth.salient)
    null = _drawn("null", 0)
    assert not null.truth.sufficient.any() and not null.truth.salient.any() and _is_still(null.frames)
    assert not _drawn("rare", 8).truth.sufficient.any()


@pytest.mark.parametrize(
    ("sufficient", "needed"),
    [
        ([[0, 1, 1, 0], [0, 0, 0, 0]], [0, 1, 1, 0]),
        ([[1, 1, 0, 0], [0, 1, 1, 0]], [0, 1, 0, 0]),
        ([[1, 0, 0, 0], [0, 0, 1, 0]], [0, 0, 0, 0]),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], [0, 0, 0, 0]),
    ],
)
def test_needed_frames_are_in_every_set_that_suffices(sufficient: list[list[int]], needed: list[int]) -> None:
    nothing = np.zeros(4, np.uint8)
    clip = shards.Clip(nothing, 0, "", nothing, nothing, 4, 12, sufficient=np.array(sufficient, np.uint8))
    np.testing.assert_array_equal(clip.needed, needed)
    assert clip.needed.dtype == np.uint8 and shards.Clip(nothing, 0, "", nothing, nothing, 4, 12).needed is None


def test_pair_is_two_events_in_the_order_of_its_class() -> None:
    names, classes = suites.class_names("pair"), suites.classes("pair")
    assert len(set(names)) == 9 and names[0] == "Ground moves right, then down" and names[8] == "Nothing moves"
    assert suites.reverse_pairs("pair")[0] == ("Ground moves right, then down", "Ground moves up, then left")
    for label in range(8):
        _, happening = planted_suites.draw("pair", label, np.random.default_rng(label))
        first, second = happening.events
        assert ((first.wave, first.sign), (second.wave, second.sign)) == classes[label]
        assert second.first >= first.stop + 1 + 2  # The still picture again, and two frames of rest.


def test_a_class_and_its_reversal_are_partners() -> None:
    for suite in ("rare", "pair"):
        classes = suites.classes(suite)
        for forwards, backwards in zip(classes[:8:2], classes[1:8:2], strict=True):
            assert backwards == tuple((wave, -sign) for wave, sign in reversed(forwards))


@pytest.mark.parametrize("suite", suites.SUITES)
def test_frozen_test_split_has_its_digest(suite: str) -> None:
    made = [
        drawn_videos.Made(drawing.truth, {}, drawn_videos.sha256(drawing.frames))
        for drawing in (_drawn(suite, number, seed=5) for number in range(20 * len(planted_suites.find(suite).labels)))
    ]
    assert planted.digest(made)[:8] == suites.DIGESTS[suite]


def test_seed_draws_other_training_clips_and_the_same_test() -> None:
    for split, same in (("train", False), ("validation", False), ("test", True)):
        frames = [_drawn("rare", 0, split, seed).frames for seed in (0, 1)]
        assert np.array_equal(*frames) == same


def test_store_holds_clips_and_truths(made: building.PrepareConfig) -> None:
    truth = ground_truth.GroundTruth(made.out / "source" / "ground_truth.h5")
    for split in COUNTS:
        store = clip_store.ClipStore(made.out, split)
        assert store.info.dataset == "planted-rare"  # One test clip a class is not the frozen split.
        assert store.info.class_names == suites.class_names("rare") and store.labels.tolist() == list(range(9))
        assert store.info.layout.clip_shape == (24, 32, 32, 3)
        sufficient, salient = store.column("sufficient"), store.column("salient")
        np.testing.assert_array_equal(sufficient[:, 0], salient)
        np.testing.assert_array_equal(store.column("needed"), salient)
        for row, video_id in enumerate(store.video_ids):
            np.testing.assert_array_equal(truth.sufficient(video_id), sufficient[row])
            np.testing.assert_array_equal(truth.object_mask(video_id), store.column("object_mask")[row])


def test_freezing_the_event_leaves_a_still_clip_through_the_codecs_too(made: building.PrepareConfig) -> None:
    for split in COUNTS:
        store = clip_store.ClipStore(made.out, split)
        for clip, salient in zip(store.read(range(9)), store.column("salient"), strict=True):
            assert _is_still(_frozen(clip, salient))
            assert ((clip != clip[:1]).any(axis=(1, 2, 3)) == salient).all()


def test_object_mask_is_what_moves_while_it_moves() -> None:
    ground, disc = (_drawn("rare", number) for number in (0, 4))
    for drawing, share in ((ground, 1 - np.pi * (20 / 64) ** 2), (disc, np.pi * (20 / 64) ** 2)):
        on = drawing.truth.salient != 0
        assert not drawing.truth.object_mask[~on].any()
        np.testing.assert_allclose(drawing.truth.object_mask[on].mean(axis=(1, 2)), share, atol=0.02)
    changed = (disc.frames != disc.frames[0]).any(axis=(0, 3)).reshape(16, 4, 16, 4).any(axis=(1, 3))
    assert changed[disc.truth.object_mask.any(axis=0) != 0].all()


def test_frozen_split_names_the_data_set_by_its_digest() -> None:
    frozen = f"planted-edges-{suites.DIGESTS['edges']}"
    assert planted.name("edges", None, None) == frozen == suites.folder("edges").name
    assert planted.name("edges", {"test": 20}, ("test",)) == frozen
    assert planted.name("edges", {"test": 3}, None) == planted.name("rare", None, ("train",))[:8] + "edges"
    assert planted.name("rare", None, ("train",)) == "planted-rare"


def test_other_pixels_than_the_frozen_ones_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suites.DIGESTS, "null", "00000000")
    with pytest.raises(errors.UserError, match="suite null must have the digest 00000000. Received: "):
        planted.make("null", tmp_path, workers=1)
    assert not (tmp_path / "ground_truth.h5").exists()


def test_made_again_nothing_is_drawn_and_another_suite_or_seed_is_refused(
    made: building.PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made.out / "source"
    before = {path: path.stat().st_mtime_ns for path in (source / "ground_truth.h5", *source.rglob("*.mp4"))}
    with monkeypatch.context() as patch:
        patch.setattr(planted_scenes, "render", None)  # Drawing anything would fail.
        planted.make("rare", source, 0, COUNTS, workers=1)
    for suite, seed in (("rare", 1), ("pair", 0)):
        with pytest.raises(errors.UserError, match=f"must hold planted videos of .*'suite': '{suite}', 'seed': {seed}"):
            planted.make(suite, source, seed, COUNTS, workers=1)
    assert len(before) == 28 and {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((source / "planted.json").read_text()) == {"version": 1, "suite": "rare", "seed": 0}


def test_a_seed_gives_the_same_bytes(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        planted.make("pair", tmp_path / name, 3, {"train": 1, "test": 1}, workers=1)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")} for name in ("a", "b"))
    assert first == second and len(first) == 18 + 2


def test_count_is_what_the_plan_will_be(made: building.PrepareConfig) -> None:
    planned, counted = planted.plan("rare", made.out / "source", None), planted.count("rare", COUNTS, None)
    assert planned.class_names == counted.class_names
    labels = {split: [item.label for item in items] for split, items in planned.items.items()}
    assert labels == {split: [item.label for item in items] for split, items in counted.items.items()}
    assert {split: len(items) for split, items in planted.count("edges", None, None).items.items()} == {"test": 160}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "often"}, "suite must be one of rare, edges, .* Received: 'often'"),
        ({"dataset": "synthetic", "suite": "rare"}, "suite must be given with dataset planted alone. Received: 'rare'"),
    ],
)
def test_wrong_suites_are_refused(tmp_path: pathlib.Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        building.PrepareConfig(**{"dataset": "planted", "out": tmp_path, **change})


def test_split_that_a_suite_lacks_is_refused(tmp_path: pathlib.Path) -> None:
    config = building.PrepareConfig(
        "planted", tmp_path, launch=Launch(), suite="null", clips_per_class={"test": 1}, splits=("train",)
    )
    with pytest.raises(errors.UserError, match="splits must be some that the suite null has. Received: train"):
        building.prepare(config)
