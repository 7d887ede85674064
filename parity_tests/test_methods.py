"""The other methods ask both builds, and get the same answers."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common.clips import tiny_store_for_tests
from common.clips.clip_store import ClipStore
from common.explaining import explanations, methods
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig, Subject
from common.models import canonical_weights, configs
from common.runs.run_directory import RunConfig, RunDirectory, data_record
from common.runs.subjects import Trained
from parity_tests import tolerances, twins
from parity_tests.compare import assert_close
from tf_impl import explanation as tf_explanation
from torch_impl import explanation as torch_explanation

_MODELS = {
    "i3d": configs.I3DConfig(5, (8, 32, 32), width=0.0625),
    "conv_lstm": configs.ConvLSTMConfig(5, (8, 16, 16), num_layers=1, filters=3),
}
_BASELINES = ("random", "centred", "frame_difference")  # NumPy alone computes them.


def subjects(name, precision, kind):
    """Returns what both builds are asked: the same three clips of a model, and the class that each guesses."""
    config = _MODELS[name]
    arrays = twins.trained_weights(config)
    # Logits far enough apart that a perturbation changes the guess.
    arrays |= {key: array * 8 for key, array in arrays.items() if key.startswith("Logits") and key.endswith("kernel")}
    frames, _ = twins.random_batch(config, 3)
    # At 32x32 px the paper's endpoint of I3D is one cell.
    cam = GradCamConfig("Mixed_3c" if name == "i3d" else "")
    asked = []
    for build in (torch_explanation, tf_explanation):
        explainer = build.Explainer(Trained(config, arrays), MaskConfig(kind=kind), cam, precision, device="cpu")
        targets = explainer.probabilities(frames).argmax(axis=1)
        asked.append(subject(explainer, frames, targets))
    return asked


def subject(explainer, frames, targets):
    return Subject(explainer.scorer(frames, targets), frames, lambda: explainer.gradcam(frames, targets))


@pytest.mark.parametrize(
    ("name", "precision", "kind"),
    [
        ("conv_lstm", "float64", "freeze"),
        ("conv_lstm", "float32", "mean"),
        pytest.param("i3d", "float64", "mean", marks=pytest.mark.slow),
    ],
)
def test_answers_are_the_same(name, precision, kind):
    ours, theirs = subjects(name, precision, kind)
    config = MethodConfig(MaskConfig(kind=kind), evaluations=64, steps=8)
    for method in methods.METHODS.keys() - set(_BASELINES):
        first, second = (methods.answer(methods.METHODS[method], each, config) for each in (ours, theirs))
        scale = np.abs(first.values).max()  # A limit is relative to what is compared.
        assert scale > 0
        limit = tolerances.limit("gradients", precision)
        assert_close(method, first.values / scale, second.values / scale, limit)
        np.testing.assert_array_equal(first.forwards, second.forwards)


def test_integrated_gradients_of_a_model_are_complete():
    subject, _ = subjects("conv_lstm", "float64", "freeze")
    config = MethodConfig(MaskConfig(kind="freeze"), steps=128)  # Max-pools: the gradient jumps.
    values = methods.answer(methods.integrated_gradients, subject, config).values
    clean, frozen = (subject.scorer.scores(np.arange(3), np.full((3, 8), m), "freeze") for m in (0.0, 1.0))
    assert np.abs(clean - frozen).min() > 0.01
    np.testing.assert_allclose(values.sum(axis=1), clean - frozen, atol=3e-3)


def test_the_gradient_is_the_slope_of_the_score():
    subject, _ = subjects("conv_lstm", "float64", "mean")
    values = methods.answer(methods.gradient, subject, MethodConfig(MaskConfig(kind="mean"))).values
    for t in range(8):
        step = np.tile(1e-6 * np.eye(8)[t], (3, 1))
        above, below = (subject.scorer.scores(np.arange(3), sign * step, "mean") for sign in (1, -1))
        np.testing.assert_allclose(values[:, t], (below - above) / 2e-6, atol=1e-6)


def test_explanations_files_hold_the_same_answers(tmp_path):
    config = _MODELS["conv_lstm"]
    info = tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 3}, shape=config.input_shape)
    run = RunDirectory(tmp_path / "run")
    train = configs.TrainConfig(dataclasses.replace(config, num_classes=3), "adam", 1)
    run.create(RunConfig(train, data_record(info), str(tmp_path / "clips"), "torch", {}))
    canonical_weights.save(run.weights, twins.trained_weights(train.model), train.model)
    names = ("occlusion", "integrated_gradients", "gradcam", "frame_difference")
    # The gradient is of the score, whatever the game of the mask.
    mask = MaskConfig(iterations=2, game="preserve")
    ours, theirs = (
        build.explain(
            ExplainSettings(run.path, mask=mask, methods=names, precision="float64", out=tmp_path / f"{framework}.h5"),
            device="cpu",
        )[0]
        for framework, build in (("torch", torch_explanation), ("tf", tf_explanation))
    )
    for name in names:
        first, second = (found[explanations.attribution(name)] for found in (ours, theirs))
        assert first.shape == (3, 8) and np.ptp(first, axis=1).all(), name
        assert_close(name, first / np.abs(first).max(), second / np.abs(first).max(), 1e-6)  # Stored in float32.
    # Complete: what all frames are worth together is what freezing all of them costs.
    store = ClipStore(tmp_path / "clips", "validation")
    explainer = torch_explanation.Explainer(
        Trained(train.model, twins.trained_weights(train.model)), mask, GradCamConfig(), "float64", device="cpu"
    )
    scorer = explainer.scorer(store.read(range(3)), ours["target"].astype(np.int64))
    clean, frozen = (scorer.scores(np.arange(3), np.full((3, 8), m), "freeze") for m in (0.0, 1.0))
    np.testing.assert_allclose(ours["attribution_integrated_gradients"].sum(axis=1), clean - frozen, atol=5e-3)
