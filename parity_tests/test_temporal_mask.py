import itertools

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

import tensorflow as tf
import torch

from common import errors
from common.explaining import mask_search, masks, perturbations
from common.models import configs
from parity_tests import tolerances, twins
from parity_tests.compare import assert_close
from tf_impl import temporal_mask as tf_mask
from tf_impl import weights as tf_weights
from torch_impl import temporal_mask as torch_mask
from torch_impl import training as torch_training
from torch_impl import weights as torch_weights

_TIME = 8
_MODELS = {
    "i3d": configs.I3DConfig(5, (_TIME, 32, 32), width=0.0625),
    "conv_lstm": configs.ConvLSTMConfig(5, (_TIME, 16, 16), num_layers=1, filters=3),
}


def some_masks(precision, clips=6):
    """Returns soft masks; none is so near the threshold of `reverse` that rounding could turn it."""
    values = np.random.default_rng(0).uniform(0, 1, (clips, _TIME))
    values[0], values[1], values[2, 3:6] = 0, 1, [0.9, 0.5, 0.9]
    assert np.abs(values - perturbations.REVERSE_THRESHOLD).min() > 1e-3
    return values.astype(precision)


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("kind", perturbations.KINDS)
def test_perturbed_clips_and_their_gradient(kind, precision):
    limit = tolerances.limit("perturbation", precision)
    mask = some_masks(precision)
    stream = np.random.default_rng(1)
    clips = stream.integers(0, 256, (len(mask), _TIME, 4, 5, 3), np.uint8)
    weight = stream.normal(size=clips.shape).astype(precision)

    torch_values = torch.from_numpy(mask).requires_grad_()
    ours = torch_mask.perturb(torch.from_numpy(clips), torch_values, kind)
    (ours * torch.from_numpy(weight)).sum().backward()
    tf_values = tf.constant(mask)
    with tf.GradientTape() as tape:
        tape.watch(tf_values)
        theirs = tf_mask.perturb(clips, tf_values, kind)
        total = tf.reduce_sum(theirs * weight)

    reference = perturbations.perturb(clips, mask, kind)
    assert_close(f"{kind} in torch", reference, ours.detach().numpy(), limit)
    assert_close(f"{kind} in tf", reference, theirs.numpy(), limit)
    gradient = torch_values.grad.numpy()
    assert np.abs(gradient).max() > 1
    assert_close(f"gradient of {kind}", gradient, tape.gradient(total, tf_values).numpy(), limit)


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("changes", [{}, {"compat": "released"}, {"game": "preserve"}, {"ends": "counted"}])
def test_mask_loss_and_its_gradient(changes, precision):
    limit = tolerances.limit("perturbation", precision)
    config = masks.MaskConfig(beta=2.5, **changes)
    mask, scores = some_masks(precision), np.linspace(0, 1, 6).astype(precision)
    torch_values = torch.from_numpy(mask).requires_grad_()
    ours = torch_mask.mask_loss(torch.from_numpy(scores), torch_values, config)
    ours.sum().backward()
    tf_values = tf.constant(mask)
    with tf.GradientTape() as tape:
        tape.watch(tf_values)
        theirs = tf_mask.mask_loss(tf.constant(scores), tf_values, config)
    assert_close("loss in torch", masks.mask_loss(scores, mask, config), ours.detach().numpy(), limit)
    assert_close("loss in tf", ours.detach().numpy(), theirs.numpy(), limit)
    assert_close("gradient", torch_values.grad.numpy(), tape.gradient(theirs, tf_values).numpy(), limit)


def searches(name, precision, **values):
    """Returns both frameworks' searches on one model, its clips, and targets."""
    config = _MODELS[name]
    arrays = twins.trained_weights(config)
    # Logits far enough apart that a perturbation changes the guess.
    arrays |= {key: array * 8 for key, array in arrays.items() if key.startswith("Logits") and key.endswith("kernel")}
    frames, _ = twins.random_batch(config, 3)
    frames = frames.astype(precision)
    ours, theirs = both_searches(config, arrays, precision, **values)
    targets = theirs.score_fn(frames).numpy().argmax(axis=1)
    return ours, theirs, torch.from_numpy(frames), frames, targets


def learn(search, clips, targets):
    """Returns what a search learns on clips."""
    return mask_search.learn_masks(search.on(clips, targets), search.config)


def both_searches(config, arrays, precision, **values):
    """Returns both frameworks' searches on one model."""
    torch_model = torch_weights.build_model(config, precision, device="cpu", arrays=arrays)
    torch_model.eval().requires_grad_(False)
    tf_model = tf_weights.build_model(config, precision, device="/CPU:0", arrays=arrays)
    mask_config = masks.MaskConfig(**values)
    ours = torch_mask.MaskSearch(lambda clips: torch_model(clips).softmax(dim=1), mask_config)
    theirs = tf_mask.MaskSearch(lambda clips: tf.nn.softmax(tf_model(clips)), mask_config)
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "kind", "game", "iterations"),
    [
        ("conv_lstm", "freeze", "delete", 300),
        ("conv_lstm", "reverse", "delete", 300),
        ("conv_lstm", "freeze", "preserve", 300),
        pytest.param("i3d", "freeze", "delete", 20, marks=pytest.mark.slow),
    ],
)
def test_whole_search_in_float64(name, kind, game, iterations):
    ours, theirs, torch_clips, clips, targets = searches(name, "float64", kind=kind, game=game, iterations=iterations)
    first, second = learn(ours, torch_clips, targets), learn(theirs, clips, targets)
    limit = tolerances.limit("mask", "float64")
    # The first step's loss shows the model and Eq. 1 alone, the second's the gradient and Adam.
    assert_close("loss, steps 1 to 3", first.losses[:, :3], second.losses[:, :3], 1e-9)
    assert_close("loss", first.losses, second.losses, limit)
    assert_close("mask", first.masks, second.masks, limit)
    for score, values in first.scores.items():
        assert_close(score, values, second.scores[score], limit)
    assert np.abs(first.masks - 0.5).max() > 0.4 and np.ptp(first.losses, axis=1).min() > 0.005


@pytest.mark.parametrize("game", masks.GAMES)
@pytest.mark.parametrize(
    "settings", [{"stop": "converged", "start": "oracle"}, {"form": "hard"}, {"form": "hard", "area": 3}], ids=str
)
def test_searches_that_stop_in_float64(settings, game):
    values = {"oracle": "coarse", "lambda_1": 0.002, "lambda_2": 0.004, "game": game, **settings}
    ours, theirs, torch_clips, clips, targets = searches("conv_lstm", "float64", **values)
    first, second = learn(ours, torch_clips, targets), learn(theirs, clips, targets)
    limit = tolerances.limit("mask", "float64")
    assert_close("loss", np.nan_to_num(first.losses, nan=-1), np.nan_to_num(second.losses, nan=-1), limit)
    assert_close("mask", first.masks, second.masks, limit)
    for score, scores in first.scores.items():
        assert_close(score, scores, second.scores[score], limit)
    assert 0 < np.isfinite(first.losses).sum(axis=1).min() < 300 and first.masks.max() > 0.9


@pytest.fixture(scope="module")
def trained():
    """A ConvLSTM that has learnt to tell which way a square moves, and clips that it is sure of."""
    config = configs.ConvLSTMConfig(3, (_TIME, 16, 16), num_layers=1, filters=4)
    stream = np.random.default_rng(0)
    labels = np.arange(60) % 3
    clips = stream.integers(0, 60, (60, _TIME, 16, 16, 3), np.uint8)
    for clip, label, left in zip(clips, labels, stream.integers(0, 16, 60), strict=True):
        for time, frame in enumerate(clip):
            frame[4:12, (left + (label - 1) * 2 * time + np.arange(4)) % 16] = 255
    trainer = torch_training.Trainer(configs.TrainConfig(config, "adam", 1), "cpu")
    for step in range(120):
        trainer.train_step(clips, labels, 5e-3, step)
    assert (trainer.predict(clips).argmax(axis=1) == labels).mean() > 0.9
    return config, trainer.weights(), clips[:6]


def test_300_iterations_in_float32(trained):
    config, arrays, clips = trained
    ours, theirs = both_searches(config, arrays, "float32")
    targets = np.arange(6) % 3
    first, second = learn(ours, torch.from_numpy(clips), targets), learn(theirs, clips, targets)
    limit = tolerances.limit("mask", "float32")
    assert_close("mask", first.masks, second.masks, limit)
    assert_close("FS", first.scores["FS"], second.scores["FS"], limit)
    assert_close("RS", first.scores["RS"], second.scores["RS"], limit)
    assert_close("snapped mask", masks.snap(first.masks), masks.snap(second.masks), 0)


_SEARCHED = list(itertools.product(_MODELS, ["freeze", "reverse"], masks.GAMES))
_SLOW = [case for case in _SEARCHED if case[0] == "i3d" and case[1:] != ("freeze", "delete")]


@pytest.mark.parametrize(
    ("name", "kind", "game"),
    [pytest.param(*case, marks=pytest.mark.slow if case in _SLOW else ()) for case in _SEARCHED],
)
def test_oracle_and_first_mask(name, kind, game):
    ours, theirs, torch_clips, clips, targets = searches(name, "float64", kind=kind, game=game)
    scorers = ours.on(torch_clips, targets), theirs.on(clips, targets)
    first, second = (mask_search.best_intervals(scorer, ours.config) for scorer in scorers)
    assert_close("scores of all intervals", first.scores, second.scores, 1e-10)
    assert_close("best interval", first.intervals, second.intervals, 0)
    assert_close("first mask", *(mask_search.initial_masks(scorer, ours.config) for scorer in scorers), 0)
    clip_indices, soft = np.array([2, 0, 1, 1]), np.random.default_rng(0).uniform(size=(4, _TIME))
    (loss, gradient), (their_loss, their_gradient) = (scorer.gradient(clip_indices, soft) for scorer in scorers)
    assert_close("loss of soft masks", loss, their_loss, 1e-10)
    assert_close("gradient in the mask", gradient, their_gradient, 1e-9)


def test_a_model_without_gradient_is_refused():
    clips, targets = np.zeros((2, _TIME, 4, 4, 3), np.uint8), np.zeros(2, int)
    with pytest.raises(errors.UserError, match="must be differentiable"):
        torch_mask.learn_masks(
            lambda x: torch.full((len(x), 2), 0.5), torch.from_numpy(clips), targets, masks.MaskConfig()
        )
    with pytest.raises(errors.UserError, match="must be differentiable"):
        tf_mask.learn_masks(lambda x: tf.fill((tf.shape(x)[0], 2), 0.5), clips, targets, masks.MaskConfig())
