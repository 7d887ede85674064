"""The benchmark with an explainer of NumPy whose score is the share of frames 2 to 4 that is left."""

import dataclasses
import json

import numpy as np
import pytest

from common import errors
from common.clips import tiny_store_for_tests
from common.clips.clip_store import ClipStore
from common.explaining import attribution_file, methods, when_benchmark, when_entries
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig
from common.explaining.when_benchmark import BenchmarkSettings
from common.models import canonical_weights, configs, initial_weights
from common.runs import run_directory

_MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=1)
_MASK = MaskConfig(kind="mean", iterations=7)
_EVENT = (np.arange(8) >= 2) & (np.arange(8) < 5)


class Scorer:
    time = 8

    def __init__(self, num_clips, config):
        self.num_clips, self._config = num_clips, config

    def scores(self, clip_indices, masks, kind):
        return 1 - masks[:, _EVENT].mean(axis=1)

    def gradient(self, clip_indices, masks):
        return np.zeros(len(masks)), np.where(_EVENT, -1 / 3, 0) + methods.cost_gradient(masks, self._config)

    def descend(self, clip_indices, start_logits):
        """Goes to the event in the game "delete", in "preserve" to it and frame 5."""
        found = np.where(_EVENT, 0.9, 0.1)
        found[5] = 0.6 if self._config.game == "preserve" else 0.1
        return np.tile(found, (len(clip_indices), 1)), np.ones((len(clip_indices), 7))


class Explainer:
    """Guesses class 0 always, and remembers that it was asked."""

    framework = "numpy"
    asked: list[int] = []
    equations: list[tuple[str, str]] = []

    def __init__(self, mask):
        self._mask = mask
        self.equations.append((mask.game, mask.ends))

    def probabilities(self, frames):
        return np.tile([0.5, 0.25, 0.25], (len(frames), 1))

    def scorer(self, frames, targets):
        assert (targets == 0).all()
        self.asked.append(len(frames))
        return Scorer(len(frames), self._mask)

    def gradcam(self, frames, targets):
        return np.tile(np.arange(4.0)[:, None, None], (len(frames), 1, 2, 2))


@pytest.fixture
def settings(tmp_path):
    info = tiny_store_for_tests.write_tiny_store(
        tmp_path / "suite", clips={"train": 1, "test": 8}, object_mask_shape=(1, 1)
    )
    run = run_directory.RunDirectory(tmp_path / "run")
    train = configs.TrainConfig(_MODEL, "adam", 1)
    run.create(run_directory.RunConfig(train, run_directory.data_record(info), str(tmp_path / "suite"), "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(_MODEL, 0), _MODEL)
    return BenchmarkSettings(
        tmp_path / "suite", tmp_path / "out", methods=MethodConfig(_MASK, evaluations=64), batch_size=2
    )


def gather(settings):
    Explainer.asked, Explainer.equations = [], []

    def make_explainer(trained, mask, *_):
        assert trained.config == _MODEL
        return Explainer(mask)

    run = settings.suite.parent / "run"
    return when_benchmark.gather(settings, when_benchmark.open_run(run, settings, make_explainer))


def test_every_method_answers_for_the_clips_that_the_model_gets_right(settings):
    folder = gather(settings)
    assert folder == settings.out / "suite" / "run-numpy"
    assert {path.stem for path in folder.glob("*.npz")} == when_entries.ENTRIES.keys()
    for name in (
        "mask",
        "hard_mask",
        "oracle",
        "preserve_oracle",
        "occlusion",
        "shapley",
        "gradient",
        "integrated_gradients",
    ):
        found = attribution_file.read(folder / f"{name}.npz")
        assert found.video_ids == ("test0", "test3", "test6")  # Of class 0, one of three.
        weight = found.values / found.values.max()
        np.testing.assert_allclose(weight[:, 2:5], 1)
        # The event's frames go first: 1, 2/3, 1/3, and then nothing is left.
        np.testing.assert_allclose(found.areas["deletion"], 2 / 9)
        np.testing.assert_allclose(found.areas["insertion"], 1 - 2 / 9)
        if name in when_entries.SEARCHES:
            np.testing.assert_array_equal(found.selected, np.tile(_EVENT, (3, 1)))
        else:
            assert found.selected is None
    assert Explainer.equations == [("delete", "free"), ("preserve", "counted")]  # Not one an entry.
    preserved = attribution_file.read(folder / "preserve_mask.npz")
    np.testing.assert_array_equal(preserved.selected, np.tile([0, 0, 1, 1, 1, 1, 0, 0], (3, 1)) == 1)
    random = attribution_file.read(folder / "random.npz").areas
    assert (random["deletion"] > 2 / 9).all()
    # Chance is the mean of several orders, the same for each method, and not that of the method `random`.
    np.testing.assert_array_equal(random["deletion_random"], found.areas["deletion_random"])
    assert (random["deletion_random"] != random["deletion"]).all()


def test_frames_that_do_nothing():
    # A still picture but for frames 1 and 2.
    frames = np.array([0, 5, 9, 0, 0], np.uint8).reshape(1, 5, 1, 1, 1)

    def found(mask, kind):
        return when_entries.effective(frames, np.array([mask], float), kind)[0].astype(int).tolist()

    # Frozen from 1 on, all show frame 0: 3 and 4 would without, and 1 and 2 would not.
    assert found([0, 1, 1, 1, 1], "freeze") == [0, 1, 1, 0, 0]
    # Kept from 1 on: frozen, 1, 2 and 3 would show another frame. That 0 cannot freeze, and 4 is like 3.
    assert found([1, 0, 0, 0, 0], "freeze") == [0, 1, 1, 1, 0]
    assert found([0, 1, 1, 1, 1], "blank") == [0, 1, 1, 0, 0]


def test_a_mask_that_goes_on_to_the_end_names_the_event_alone(settings, monkeypatch):
    read, found = ClipStore.read, np.array([0, 0, 0.9, 0.7, 0.8, 0.9, 0.6, 0.6])

    def at_rest(store, indices):
        frames = read(store, indices)
        frames[:, 4:] = frames[:, 1:2]
        return frames

    def descend(scorer, clip_indices, start_logits):
        return np.tile(found, (len(clip_indices), 1)), np.ones((len(clip_indices), 7))

    monkeypatch.setattr(ClipStore, "read", at_rest)
    monkeypatch.setattr(Scorer, "descend", descend)
    frozen = dataclasses.replace(settings, entries=("mask",), methods=MethodConfig(MaskConfig(kind="freeze")))
    answer = attribution_file.read(gather(frozen) / "mask.npz")
    # Frozen, frames 4 to 7 show frame 1, as they do anyway.
    np.testing.assert_array_equal(answer.selected, np.tile([0, 0, 1, 1, 0, 0, 0, 0], (3, 1)) == 1)
    np.testing.assert_array_equal(answer.values, np.tile([0, 0, 0.9, 0.7, 0, 0, 0, 0], (3, 1)))


def test_forwards(settings):
    folder = gather(settings)
    spent = {path.stem: attribution_file.read(path).forwards.tolist() for path in folder.glob("*.npz")}
    # The paper's start tries none and 4 windows; 7 steps of a gradient; the loss at the end; freeze and reverse, of the
    # mask and of the snapped one.
    assert spent["mask"] == [5 + 7 * 2 + 1 + 4] * 3
    assert spent["oracle"] == [36, 36, 36]
    assert spent["occlusion"] == [9, 9, 9]
    assert spent["integrated_gradients"] == [64, 64, 64]
    assert spent["centred"] == [0, 0, 0]


def test_what_is_there_stays_and_what_is_missing_is_made(settings):
    folder = gather(settings)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert gather(settings) == folder and not Explainer.asked
    (folder / "rise.npz").unlink()
    gather(settings)
    assert Explainer.asked
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_results_of_other_settings_are_refused(settings, tmp_path):
    folder = gather(settings)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["suite"] == str(tmp_path / "suite") and plan["methods"]["evaluations"] == 64
    changed = dataclasses.replace(settings, limit=3)
    with pytest.raises(errors.UserError, match="the same settings.* differs in limit"):
        gather(changed)
    del plan["limit"]
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(errors.UserError, match="A benchmark's plan .*limit"):
        when_benchmark.read_plan(folder)


def test_a_suite_of_other_classes_does_not_fit(settings, tmp_path):
    run = tmp_path / "run"
    assert when_benchmark.fits(run, settings.suite)
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"test": 4}, num_classes=4)
    assert not when_benchmark.fits(run, tmp_path / "other")


def test_a_model_that_gets_nothing_right_has_no_answers(settings, monkeypatch):
    monkeypatch.setattr(Explainer, "probabilities", lambda self, frames: np.tile([0.0, 0, 0, 1], (len(frames), 1)))
    assert [path.name for path in gather(settings).iterdir()] == ["plan.json"]


def test_unknown_methods_and_impossible_numbers_are_refused(tmp_path):
    with pytest.raises(errors.UserError, match="methods must be one of mask, .* occlusion"):
        BenchmarkSettings(tmp_path, tmp_path, entries=("lime",))
    with pytest.raises(errors.UserError, match="batch_size at least 1"):
        BenchmarkSettings(tmp_path, tmp_path, batch_size=0)
