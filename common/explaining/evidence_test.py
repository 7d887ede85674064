import dataclasses
import pathlib

import numpy as np
import pytest

from common import errors
from common.clips import tiny_store_for_tests
from common.explaining import evidence, evidence_experiments, explanation_loop
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models import canonical_weights, configs, initial_weights
from common.runs import run_directory

_MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=2, filters=2)
_EVENT = slice(2, 5)


class FakeScorer:
    """Descends to frames 2 to 4, the event's, or where the weights are fresh to frames 0 to 2."""

    time = 8

    def __init__(self, num_clips, fresh):
        self.num_clips, self._fresh = num_clips, fresh

    def scores(self, clip_indices, masks, kind):
        assert masks.shape == (len(clip_indices), 8) and max(clip_indices) < self.num_clips
        return 1 - masks[:, _EVENT].mean(axis=1)

    def descend(self, clip_indices, start_logits):
        found = np.zeros((len(clip_indices), 8))
        found[:, slice(0, 3) if self._fresh else _EVENT] = 0.9
        return found, np.ones((len(clip_indices), 2))


class Fake:
    """Its score is the share of the event's frames that are not masked, so frames 2 to 4 are the right mask."""

    framework = "torch"

    def __init__(self, arrays):
        self.fresh = not np.array_equal(
            arrays["Logits/kernel"], initial_weights.initial_weights(_MODEL, 0)["Logits/kernel"]
        )

    def versions(self):
        return {"fake": "1"}

    def free_memory(self):
        return 1 << 30, False

    def probabilities(self, frames):
        return np.tile([0.5, 0.25, 0.25], (len(frames), 1))

    def scorer(self, frames, targets):
        assert len(frames) == len(targets)
        return FakeScorer(len(frames), self.fresh)

    def gradcam(self, frames, targets):
        maps = np.arange(8.0).reshape(1, 2, 2, 2).repeat(len(frames), axis=0)
        return -maps + 8 if self.fresh else maps


@pytest.fixture
def run(tmp_path):
    info = tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 4})
    run = run_directory.RunDirectory(tmp_path / "run")
    record = run_directory.data_record(info)
    train = configs.TrainConfig(_MODEL, "adam", 1)
    run.create(run_directory.RunConfig(train, record, str(tmp_path / "clips"), "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(_MODEL, 0), _MODEL)
    settings = explanation_loop.ExplainSettings(run.path, batch_size=2)
    explanation_loop.explain(settings, lambda trained, *_: Fake(trained.weights))
    return run


def gather(run, **values):
    settings = evidence.EvidenceSettings(pathlib.Path(run.path), **values)
    return evidence.gather(settings, lambda trained, *_: Fake(trained.weights))


def test_orders_of_frames():
    orders = evidence_experiments.frame_orders(np.array([0.1, 0.9, 0.1, 0.5]), (0, 0))
    assert orders["mask"][0].tolist() == [1, 3, 0, 2]
    assert orders["centred"][0].tolist() == [1, 2, 0, 3]
    assert len(orders["random"]) == 2
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders["random"])


def test_curves_of_a_mask_that_is_right(run):
    gathered = gather(run)
    deletion = gathered["curves"]["deletion"]["freeze"]
    # The three frames of the event go first: 1, 2/3, 1/3, and then nothing is left.
    np.testing.assert_allclose(deletion["mask"]["mean"], [1, 2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(deletion["mask"]["areas"], [2 / 9] * 4)
    insertion = gathered["curves"]["insertion"]["freeze"]["mask"]
    np.testing.assert_allclose(insertion["mean"], [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1], atol=1e-12)
    assert np.mean(deletion["random"]["areas"]) > 0.3
    assert deletion["centred"]["mean"] == deletion["mask"]["mean"]  # The event lies in the middle.


def test_randomisation_draws_the_layers_anew_from_the_last(run):
    rows = gather(run, mask_limit=2)["randomization"]
    assert [(row["layers"], row["from"]) for row in rows] == [
        (1, "Logits"),
        (2, "BatchNorm_2"),
        (3, "ConvLSTM_2"),
        (5, "ConvLSTM_1"),
    ]
    assert rows[0]["gradcam"] == pytest.approx([-1] * 4)
    assert rows[0]["mask"] == pytest.approx([1 / 5] * 2)  # Frames 0 to 2 and 2 to 4 share one of five.


def test_each_number_of_layers_is_drawn_anew_once():
    assert evidence_experiments.levels(_MODEL) == [1, 2, 3, 5]
    one = dataclasses.replace(_MODEL, num_layers=1)  # ConvLSTM_1, BatchNorm_1, Logits: a third of these is the last.
    assert evidence_experiments.levels(one) == [1, 2, 3]


def test_many_clips_are_asked_about_a_batch_at_a_time(run, monkeypatch):
    expected, sizes = gather(run), []
    asked = Fake.scorer, Fake.gradcam

    def noted(method):
        return lambda self, frames, targets: sizes.append(len(frames)) or method(self, frames, targets)

    for name, method in zip(("scorer", "gradcam"), asked, strict=True):
        monkeypatch.setattr(Fake, name, noted(method))
    monkeypatch.setattr(evidence_experiments, "_CLIPS_AT_A_TIME", 3)  # Of four clips.
    assert gather(run) == expected
    assert set(sizes) == {3, 1}


def test_restarts(run):
    assert gather(run, mask_limit=2)["restarts"] == {"starts": 3, "mask": [1.0] * 6, "loss": pytest.approx([1.0] * 6)}


def test_the_table_shows_all_of_it(run):
    text = evidence.table(gather(run, limit=2))
    assert "freeze, frames in the order of mask        0.222      0.778" in text
    assert "1, from Logits on" in text
    assert "masks from 3 random starts: IoU with the explained mask 1.000" in text


def test_a_constant_map_has_no_rank_correlation():
    correlation = evidence_experiments._rank_correlation
    assert correlation(np.ones((1, 2, 2)), np.arange(4.0).reshape(1, 2, 2)) is None
    assert correlation(np.array([1, 2, 2, 3.0]), np.array([0, 5, 5, 9.0])) == pytest.approx(1)


def test_explanations_of_other_weights_are_refused(run):
    canonical_weights.save(run.weights, initial_weights.initial_weights(_MODEL, 7), _MODEL)
    with pytest.raises(errors.UserError, match="made with other weights"):
        gather(run)


def test_negative_limits_are_refused():
    with pytest.raises(errors.UserError, match="at least 0"):
        evidence.EvidenceSettings(pathlib.Path("run"), limit=-1)


def test_configs_come_from_the_file(run):
    seen = []

    def make(trained, mask, cam, precision, on_step):
        seen.append((trained.config, mask, cam, precision))
        return Fake(trained.weights)

    evidence.gather(evidence.EvidenceSettings(run.path, mask_limit=1), make)
    assert set(seen) == {(_MODEL, MaskConfig(), GradCamConfig(), "float32")}
