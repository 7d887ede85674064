import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common.models import configs
from parity_tests import compare, tf_side, tolerances, torch_side, twins

# Odd and even sizes, at least 8 frames for I3D, both stride rules, every option that changes a layer.
_SMALL = {
    "i3d even": (configs.I3DConfig(5, (8, 48, 48), dropout=0, width=0.06), 2),
    "i3d odd": (configs.I3DConfig(4, (9, 33, 47), dropout=0, width=0.06, normalization="raw"), 2),
    "i3d original strides": (configs.I3DConfig(3, (16, 38, 35), dropout=0, width=0.06, temporal_strides="original"), 2),
    "i3d DeepMind's head": (
        configs.I3DConfig(3, (17, 193, 193), dropout=0, width=0.03, temporal_strides="original", head="deepmind"),
        1,
    ),
    "conv_lstm even": (configs.ConvLSTMConfig(5, (8, 64, 80), num_layers=3, filters=6), 2),
    "conv_lstm odd": (
        configs.ConvLSTMConfig(4, (5, 33, 47), num_layers=2, filters=4, kernel_size=(3, 5), head="last_frame"),
        2,
    ),
    "conv_lstm own batch norms": (
        configs.ConvLSTMConfig(4, (3, 31, 18), num_layers=2, filters=4, share_batch_norm=False, normalization="raw"),
        3,
    ),
    "conv_lstm even kernel": (configs.ConvLSTMConfig(4, (4, 20, 21), num_layers=2, filters=4, kernel_size=(2, 4)), 2),
}
_FULL = {
    "i3d": configs.I3DConfig(174, (16, 224, 224), dropout=0),
    "conv_lstm": configs.ConvLSTMConfig(174, (16, 224, 224)),
}


def assert_same(config, clips, precision, training):
    arrays, batch = twins.trained_weights(config), twins.random_batch(config, clips)
    ours = torch_side.outcome(config, arrays, batch, precision, training)
    theirs = tf_side.outcome(config, arrays, batch, precision, training)
    suffix = " of I3D in training" if training and config.model == "i3d" else ""
    limit = tolerances.limit("endpoints" + suffix, precision)
    compare.assert_all_close("endpoint", ours.endpoints, theirs.endpoints, limit)
    compare.assert_all_close("weights after", ours.weights, theirs.weights, limit)
    limit = tolerances.limit("gradients" + suffix, precision)
    compare.assert_close("loss", ours.loss, theirs.loss, limit)
    if config is _FULL["conv_lstm"]:
        limit = tolerances.limit("gradients of full-size ConvLSTM in training", precision)
    compare.assert_all_close("gradient of", ours.gradients, theirs.gradients, limit)


# DeepMind's head needs frames of 193 px. Inference differs from training by batch norm alone, which the others test.
_CASES = [(name, training) for name in _SMALL for training in (False, True) if training or "DeepMind" not in name]


def _slow(name, precision):
    """Returns the mark of a case that takes long and differs from others by rounding alone."""
    return pytest.mark.slow if "DeepMind" in name and precision == "float32" else ()


@pytest.mark.parametrize(
    ("name", "training", "precision"),
    [
        pytest.param(
            name,
            training,
            precision,
            marks=_slow(name, precision),
            id=f"{name}-{'training' if training else 'inference'}-{precision}",
        )
        for name, training in _CASES
        for precision in twins.PRECISIONS
    ],
)
def test_small_model(name, training, precision):
    assert_same(*_SMALL[name], precision, training)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "i3d" in name else ()) for name in _FULL]
)
def test_full_size_model_in_training(name):
    assert_same(_FULL[name], 1, "float32", training=True)


def test_raw_pixels_as_floats_give_the_same_logits_as_bytes():
    config, clips = _SMALL["conv_lstm odd"]
    arrays, (frames, labels) = twins.trained_weights(config), twins.random_batch(config, clips)
    as_bytes = tf_side.outcome(config, arrays, (frames, labels), "float32", training=False)
    for side in (torch_side, tf_side):
        as_floats = side.outcome(config, arrays, (frames.astype("float32"), labels), "float32", False)
        compare.assert_close("logits", as_bytes.endpoints["Logits"], as_floats.endpoints["Logits"], 1e-6)
