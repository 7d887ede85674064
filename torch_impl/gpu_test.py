"""What a GPU computes is what the CPU computes, within the limits of `parity_tests/tolerances.py`. Skipped without one.

The reference is the CPU in float64, or in the same precision where rounding grows from step to step.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.clips import tiny_store_for_tests
from common.explaining import mask_search, masks
from common.explaining.gradcam_maps import GradCamConfig
from common.models import canonical_weights, configs
from parity_tests import tolerances, twins
from torch_impl import devices, evaluation, explanation, gradcam, temporal_mask, training, transfers, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_MODELS = {
    "i3d": configs.I3DConfig(5, (8, 64, 64), dropout=0.0),
    "conv_lstm": configs.ConvLSTMConfig(5, (8, 64, 64), num_layers=2),
}
_CLIPS = 5
# Of reduced precision, over the largest value: how far logits, and how far Grad-CAM's maps, may lie from float64's.
_REDUCED = {"tf32": (1e-2, 5e-2), "bfloat16": (5e-2, 2e-1)}


@pytest.fixture(params=_MODELS)
def name(request):
    return request.param


@pytest.fixture(params=configs.PRECISIONS)
def precision(request):
    return request.param


@pytest.fixture(autouse=True)
def arithmetic():
    """Puts the process back: other tests are of full precision."""
    yield
    devices.find_device("cpu")


def model_on(place, name, precision):
    arrays = twins.trained_weights(_MODELS[name])
    return weights.build_model(_MODELS[name], precision, device=place, arrays=arrays).eval().requires_grad_(False)


def frames_of(name):
    return twins.random_batch(_MODELS[name], _CLIPS)[0]


def gpu(precision):
    return devices.find_device("gpu", precision)


def assert_near(received, expected, quantity, precision, reduced=0):
    if precision in _REDUCED:
        limit, scale = _REDUCED[precision][reduced], np.abs(expected).max()
    else:
        limit, scale = tolerances.limit(quantity, precision), max(1, np.abs(expected).max())
    error = np.abs(received - expected).max() / scale
    sys.stdout.write(f"{quantity} in {precision}: {error:.2g} of {limit:g}\n")  # For `pytest -rP`.
    assert error <= limit


def test_convolutions_are_right(precision):
    assert gpu(precision).type == "cuda"
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")


def test_logits(name, precision):
    frames, arrays = frames_of(name), twins.trained_weights(_MODELS[name])
    expected = np.asarray(evaluation.predictor(_MODELS[name], arrays, "float64", "cpu")(frames))
    received = np.asarray(evaluation.predictor(_MODELS[name], arrays, precision, "gpu")(frames), np.float64)
    assert_near(received, expected, "endpoints", precision)


def test_gradcam(name, precision):
    clips, targets = torch.from_numpy(frames_of(name)), np.arange(_CLIPS)
    maps = [
        gradcam.gradcam(gradcam.endpoint_fn(model_on(place, name, p)), clips.to(place), targets, GradCamConfig())
        for place, p in ((torch.device("cpu"), "float64"), (gpu(precision), precision))
    ]
    assert maps[0].max() > 0
    assert_near(maps[1], maps[0], "gradcam", precision, reduced=1)


def searched(place, name, precision, score_fn=explanation.Probabilities, **changes):
    """Returns what the search and the oracle find, and the search."""
    dtype = torch.float64 if precision == "float64" else torch.uint8
    clips = torch.from_numpy(frames_of(name)).to(place, dtype)
    config = masks.MaskConfig(**{"iterations": 25, **changes})
    search = temporal_mask.MaskSearch(score_fn(model_on(place, name, precision)), config)
    scorer = search.on(clips, np.arange(_CLIPS))
    return mask_search.learn_masks(scorer, config), mask_search.best_intervals(scorer, config), search


@pytest.mark.parametrize("kind", ["freeze", "reverse"])
def test_masks_and_their_oracle(name, precision, kind):
    expected, best, _ = searched(torch.device("cpu"), name, "float64", kind=kind)
    received, found, search = searched(gpu(precision), name, precision, kind=kind)
    assert search.replayer(torch.device("cuda"))._recorded  # It was recorded, and did not fall back.
    if precision in _REDUCED:
        assert np.abs(found.losses - best.losses).max() < 2e-2
        assert np.abs(received.losses[:, 0] - expected.losses[:, 0]).max() < 2e-2
        return
    limit = {"float64": 1e-8, "float32": 1e-3}[precision]
    assert np.abs(found.losses - best.losses).max() < limit
    assert np.abs(received.losses - expected.losses).max() < limit
    assert_near(received.masks, expected.masks, "mask of explained clips", precision)


class Unrecorded(explanation.Probabilities):
    recordable = False


@pytest.mark.parametrize("changes", [{}, {"stop": "converged", "start": "multi"}, {"game": "preserve"}])
def test_a_recorded_step_computes_what_it_computes_unrecorded(name, precision, changes):
    place = gpu(precision)
    recorded, _, search = searched(place, name, precision, **changes)
    plain, _, unrecorded = searched(place, name, precision, Unrecorded, **changes)
    assert search.replayer(place)._recorded and not unrecorded.replayer(place)._recorded
    assert len(search.replayer(place)._recordings) >= 1
    limit = {"float64": 1e-8, "float32": 1e-3}.get(precision, 5e-2)
    both = ~np.isnan(recorded.losses) & ~np.isnan(plain.losses)
    assert both.any(axis=1).all()
    assert np.abs(recorded.losses - plain.losses)[both].max() < limit
    assert np.abs(recorded.final_loss - plain.final_loss).max() < limit


def steps(name, precision, device, count=5):
    preset = {"i3d": {"optimizer": "adam"}, "conv_lstm": {"optimizer": "sgd", "momentum": 0.2}}[name]
    config = configs.TrainConfig(_MODELS[name], epochs=1, precision=precision, weight_decay=1e-4, **preset)
    trainer = training.Trainer(config, device)
    batches = [twins.random_batch(_MODELS[name], clips, seed) for seed, clips in enumerate((4, 4, 2))]
    losses = [float(trainer.train_step(*batches[step % 3], 1e-3, step)[0]) for step in range(count)]
    return np.array(losses), trainer.weights()


def test_training_steps(name, precision):
    losses, arrays = steps(name, precision, "gpu")
    assert np.isfinite(losses).all()
    if precision in _REDUCED:
        expected, _ = steps(name, "float32", "cpu", count=1)
        assert abs(losses[0] - expected[0]) < 5e-2
        return
    # In float32, rounding grows threefold in every step of I3D (57 batch norms): see `parity_tests/tolerances.py`.
    quantity = "gradients of I3D in training" if (name, precision) == ("i3d", "float32") else "training"
    expected, theirs = steps(name, precision, "cpu")
    assert_near(losses, expected, quantity, precision)
    for key in theirs:
        assert_near(arrays[key], theirs[key], quantity, precision)


@pytest.fixture
def deterministic():
    before = torch.utils.deterministic.fill_uninitialized_memory
    devices.make_deterministic()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_switch_gives_the_same_bits_twice(name, precision, deterministic):
    first, second = (steps(name, precision, "gpu") for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    for key in first[1]:
        np.testing.assert_array_equal(first[1][key], second[1][key], err_msg=key)
    masks_of = [searched(gpu(precision), name, precision)[0].masks for _ in range(2)]
    np.testing.assert_array_equal(*masks_of)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    clips = tmp_path / "clips"
    tiny_store_for_tests.write_tiny_store(clips, clips={"train": 12, "validation": 3})

    def train(run, *flags):
        given = ["--preset=i3d_synthetic", f"--clips={clips}", f"--run={run}", "--multiplier=0.0625", "--batch_size=4"]
        command = [sys.executable, str(_ROOT / "torch_impl" / "train.py"), *given, "--epochs=2", "--device=gpu"]
        done = subprocess.run([*command, "--deterministic", *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return canonical_weights.load_arrays(run / "checkpoint.safetensors")[0]

    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", "--max_steps=4")
    resumed = train(tmp_path / "parts", "--resume")
    for key in whole:
        np.testing.assert_array_equal(resumed[key], whole[key], err_msg=key)


def test_copies_that_overlap_arrive_whole():
    place, stream = gpu("float32"), np.random.default_rng(0)
    weight = torch.rand(2048, 2048, device=place)
    arrays, results = [], []
    for _ in range(20):
        array = stream.integers(0, 256, (64, 2048), np.uint8)
        moved = transfers.to_device(array, place)
        for _ in range(20):  # Work that is behind the copies.
            weight = torch.tanh(weight @ weight)
        arrays.append(array.copy())
        results.append(transfers.to_host(moved.to(torch.float32)))
        array[:] = 0  # The reader may use its memory again.
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(np.asarray(result), array)
