import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

import tensorflow as tf
import torch

from common.explaining import perturbations
from common.models import configs
from parity_tests import tolerances, twins
from parity_tests.compare import assert_close
from tf_impl import temporal_mask as tf_mask
from tf_impl import weights as tf_weights
from torch_impl import temporal_mask as torch_mask
from torch_impl import weights as torch_weights

_MODELS = {
    "i3d": configs.I3DConfig(5, (9, 32, 35), width=0.0625),
    "i3d, strides and pixels of the original": configs.I3DConfig(
        5, (8, 33, 32), width=0.0625, temporal_strides="original", normalization="raw"
    ),
    "conv_lstm": configs.ConvLSTMConfig(5, (6, 17, 16), num_layers=2, filters=3, kernel_size=(3, 4)),
    "conv_lstm, last frame": configs.ConvLSTMConfig(5, (5, 16, 16), num_layers=1, filters=3, head="last_frame"),
}


@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize("name", _MODELS)
def test_prepared_clips_score_as_perturbed_clips_do(name, precision):
    """Blank is among the kinds: its rows are no means, so pixels do not mix as normalised ones do."""
    config = _MODELS[name]
    arrays = twins.trained_weights(config)
    frames, _ = twins.random_batch(config, 2)
    frames = frames.astype(precision)
    torch_model = torch_weights.build_model(config, precision, device="cpu", arrays=arrays)
    torch_model.eval().requires_grad_(False)
    tf_model = tf_weights.build_model(config, precision, device="/CPU:0", arrays=arrays)
    values = np.random.default_rng(3).uniform(0.2, 0.9, frames.shape[:2]).astype(precision)
    limits = [tolerances.limit(quantity, precision) for quantity in ("endpoints", "gradients")]
    for kind in ("freeze", "reverse", "blank"):
        mask = torch.from_numpy(values).requires_grad_()
        expected = torch_model(torch_mask.perturb(torch.from_numpy(frames), mask, kind))
        (expected_gradient,) = torch.autograd.grad(expected[:, 0].sum(), mask)
        prepared = torch_model.prepare(torch.from_numpy(frames))
        received = torch_model.perturbed(prepared, perturbations.find(kind)(mask, torch_mask.OPS))
        (gradient,) = torch.autograd.grad(received[:, 0].sum(), mask)
        assert_close(f"{kind} in torch", expected.detach().numpy(), received.detach().numpy(), limits[0])
        assert_close(f"gradient of {kind} in torch", expected_gradient.numpy(), gradient.numpy(), limits[1])
        assert expected_gradient.abs().max() > 1e-6

        tf_values = tf.constant(values)
        with tf.GradientTape() as tape:
            tape.watch(tf_values)
            theirs = tf_model.perturbed(tf_model.prepare(frames), perturbations.find(kind)(tf_values, tf_mask.OPS))
            first = tf.reduce_sum(theirs[:, 0])
        assert_close(f"{kind} in tf", expected.detach().numpy(), theirs.numpy(), limits[0])
        gradient = tape.gradient(first, tf_values).numpy()
        assert_close(f"gradient of {kind} in tf", expected_gradient.numpy(), gradient, limits[1])

    # One prepared clip meets many masks.
    matrices = perturbations.matrix(values, "freeze")
    expected = torch_model(torch_mask.perturb(torch.from_numpy(frames[[0, 0]]), torch.from_numpy(values), "freeze"))
    received = torch_model.perturbed(torch_model.prepare(torch.from_numpy(frames[:1])), torch.from_numpy(matrices))
    assert_close("one clip in torch", expected.numpy(), received.numpy(), limits[0])
    theirs = tf_model.perturbed(tf_model.prepare(frames[:1]), tf.constant(matrices))
    assert_close("one clip in tf", expected.numpy(), theirs.numpy(), limits[0])
