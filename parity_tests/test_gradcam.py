import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common.explaining.gradcam_maps import NORMALIZATIONS, GradCamConfig, normalize, upsample
from common.models import configs
from parity_tests import compare, tolerances, twins
from tf_impl import gradcam as tf_gradcam
from tf_impl import weights as tf_weights
from torch_impl import gradcam as torch_gradcam
from torch_impl import weights as torch_weights

# isort: split
import torch

# The model, and the coarse shape T', H', W' of the paper's endpoint.
_SMALL = {
    "i3d": (configs.I3DConfig(5, (16, 64, 96), width=0.06), (8, 2, 3)),
    "i3d odd": (configs.I3DConfig(4, (9, 33, 47), width=0.06, temporal_strides="original"), (2, 2, 2)),
    "conv_lstm": (configs.ConvLSTMConfig(5, (6, 64, 80), num_layers=3, filters=6), (6, 2, 3)),
    "conv_lstm odd": (
        configs.ConvLSTMConfig(4, (5, 33, 47), num_layers=2, filters=4, kernel_size=(3, 5), head="last_frame"),
        (5, 4, 6),
    ),
}


def _maps(config, cam_config, precision):
    """Maps of both builds, divided by the largest value of PyTorch's: a limit is relative to what is compared."""
    arrays, (frames, _) = twins.trained_weights(config), twins.random_batch(config, 5)
    targets = np.arange(5) % config.num_classes
    received = []
    for gradcam, weights, clips in (
        (torch_gradcam, torch_weights, torch.from_numpy(frames)),
        (tf_gradcam, tf_weights, frames),
    ):
        model = weights.build_model(config, precision, arrays=arrays)
        received.append(gradcam.gradcam(gradcam.endpoint_fn(model, cam_config.endpoint), clips, targets, cam_config))
    ours, theirs = received
    assert ours.max() > 0
    return ours / ours.max(), theirs / ours.max()


# A graph of I3D takes seconds to make; weights and score do not depend on each other.
@pytest.mark.parametrize("precision", twins.PRECISIONS)
@pytest.mark.parametrize(("weights", "score"), [("frame", "logit"), ("clip", "probability")])
@pytest.mark.parametrize("name", _SMALL)
def test_maps_of_the_papers_endpoint(name, weights, score, precision):
    config, coarse = _SMALL[name]
    ours, theirs = _maps(config, GradCamConfig(weights=weights, score=score), precision)
    assert ours.shape == (5, *coarse)
    assert ours.dtype == precision
    compare.assert_close("map", ours, theirs, tolerances.limit("gradcam", precision))
    for per in NORMALIZATIONS:
        full = [normalize(upsample(maps, config.input_shape), per) for maps in (ours, theirs)]
        compare.assert_close(f"map normalised per {per}", *full, tolerances.limit("gradcam", "float32"))


@pytest.mark.parametrize(("name", "endpoint"), [("i3d", "Mixed_4d"), ("conv_lstm", "MaxPool_1")])
def test_maps_of_an_endpoint_in_the_middle(name, endpoint):
    config, _ = _SMALL[name]
    ours, theirs = _maps(config, GradCamConfig(endpoint), "float64")
    compare.assert_close("map", ours, theirs, tolerances.limit("gradcam", "float64"))
    assert np.count_nonzero(ours) > 10
