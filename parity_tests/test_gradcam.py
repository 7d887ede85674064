import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common.explaining import attention_rollout
from common.explaining.gradcam_maps import NORMALIZATIONS, GradCamConfig, normalize, upsample
from common.models import configs
from parity_tests import compare, tolerances, twins
from tf_impl import gradcam as tf_gradcam
from tf_impl import weights as tf_weights
from torch_impl import gradcam as torch_gradcam
from torch_impl import weights as torch_weights

# isort: split
import keras
import tensorflow as tf
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


# A video transformer of two layers of two heads, on 2 x 2 x 3 patches of 2 x 4 x 4 px, and a class token.
_DRAWN = np.random.default_rng(0)
_PATCHES = _DRAWN.normal(size=(2, 4, 4, 3, 8)) / 10  # T, H, W, C, D
_CLASS_TOKEN = _DRAWN.normal(size=(1, 1, 8))
_LAYERS = _DRAWN.normal(size=(2, 4, 8, 8)) / 3  # Query, key, value and output of each.
_HEAD = _DRAWN.normal(size=(8, 5))
_GRID = (2, 2, 3)


class _TorchAttention(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = torch.from_numpy(weights)

    def forward(self, x):
        query, key, value = ((x @ w).unflatten(2, (2, 4)).transpose(1, 2) for w in self.weights[:3])
        attention = torch.softmax(query @ key.transpose(2, 3) / 2, dim=3)
        return x + (attention @ value).transpose(1, 2).flatten(2) @ self.weights[3], attention


class _TorchTransformer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4), bias=False).double()
        self.patches.weight.data = torch.from_numpy(_PATCHES).permute(4, 3, 0, 1, 2).contiguous()
        self.blocks = torch.nn.ModuleList(map(_TorchAttention, _LAYERS))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([torch.from_numpy(_CLASS_TOKEN).expand(len(x), 1, 8), x], 1)
        for block in self.blocks:
            x, _ = block(x)
        return {"logits": torch.tanh(x[:, 0]) @ torch.from_numpy(_HEAD), "tokens": x}


class TFAttention(keras.layers.Layer):
    def __init__(self, weights):
        super().__init__(dtype="float64")
        self.matrices = tf.constant(weights)

    def call(self, x):
        query, key, value = (
            tf.transpose(tf.reshape(x @ w, (-1, 13, 2, 4)), (0, 2, 1, 3)) for w in tf.unstack(self.matrices[:3])
        )
        attention = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 2, axis=3)
        context = tf.reshape(tf.transpose(attention @ value, (0, 2, 1, 3)), (-1, 13, 8))
        return x + context @ self.matrices[3], attention


class TFTransformer(keras.Model):
    def __init__(self):
        super().__init__(dtype="float64")
        self.patches = keras.layers.Conv3D(8, (2, 4, 4), (2, 4, 4), use_bias=False, dtype="float64")
        self.patches.build((None, 4, 8, 12, 3))
        self.patches.kernel.assign(_PATCHES)
        self.blocks = [TFAttention(weights) for weights in _LAYERS]

    def call(self, x):
        x = tf.reshape(self.patches(x), (-1, 12, 8))
        x = tf.concat([tf.repeat(tf.constant(_CLASS_TOKEN), tf.shape(x)[0], axis=0), x], 1)
        for block in self.blocks:
            x, _ = block(x)
        return {"logits": tf.tanh(x[:, 0]) @ _HEAD, "tokens": x}


def test_maps_and_rollout_of_a_transformer():
    clips = np.random.default_rng(1).random((3, 4, 8, 12, 3))
    models = (torch_gradcam, _TorchTransformer(), torch.from_numpy(clips)), (tf_gradcam, TFTransformer(), clips)
    maps, rolled = [], []
    for gradcam, model, batch in models:
        run = gradcam.endpoint_fn(model, "blocks.0" if gradcam is torch_gradcam else "blocks/0", "", "N(THW)C")
        maps.append(gradcam.gradcam(run, batch, [0, 3, 4], GradCamConfig()))
        names = [f"blocks{'.' if gradcam is torch_gradcam else '/'}{i}" for i in range(2)]
        rolled.append(attention_rollout.rollout_maps(gradcam.attentions(model, names, batch), _GRID))
    assert maps[0].shape == rolled[0].shape == (3, *_GRID)
    assert maps[0].max() > 0
    assert np.ptp(rolled[0]) > 0.01
    compare.assert_close("map of tokens", *maps, tolerances.limit("gradcam", "float64"))
    compare.assert_close("rollout", *rolled, tolerances.limit("gradcam", "float64"))
