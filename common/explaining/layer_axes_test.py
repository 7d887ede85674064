"""Axes, grids and names against what can be read off."""

import numpy as np
import pytest

from common import errors
from common.explaining import layer_axes
from common.explaining.layer_axes import Fold, LayerAxes

CLIP = (16, 224, 224)
TUBELETS = [(2, 16, 16)]


def test_permutations_of_axes():
    array = np.zeros((2, 3, 4, 5, 6))
    assert array.transpose(layer_axes.permutation("NCTHW", "NTHWC")).shape == (2, 4, 5, 6, 3)
    assert array.transpose(layer_axes.permutation("NTHWC", "NCTHW")).shape == (2, 6, 3, 4, 5)
    assert layer_axes.permutation("NTCHW", "NTCHW") == (0, 1, 2, 3, 4)


def test_letters_in_brackets_share_an_axis():
    assert LayerAxes("N(THW)C").groups == ["N", "THW", "C"]
    assert LayerAxes("(NT)CHW").groups == ["NT", "C", "H", "W"]


@pytest.mark.parametrize("axes", ["", "NTHW", "N(T)HWC", "N(TH(W))C", "N(THW)", "(NTHWC)", "NTH(WC)", "NTHWC)"])
def test_axes_that_cannot_be_are_refused(axes):
    with pytest.raises(errors.UserError, match="must be the letters NTHWC in some order, those that share an axis in"):
        LayerAxes(axes)


@pytest.mark.parametrize("settings", [{"grid": (2, 2)}, {"grid": (0, 2, 2)}, {"class_tokens": -1}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(errors.UserError, match=f"{next(iter(settings))} must be"):
        LayerAxes("N(THW)C", **settings)


@pytest.mark.parametrize(
    ("axes", "channels", "right"),
    [
        ("NCTHW", 1, True),
        ("NTHWC", -1, True),
        ("NTCHW", None, True),
        ("N(THW)C", -1, True),
        ("(NT)CHW", 1, True),
        ("NTHWC", 1, False),
        ("N(THW)C", 1, False),
    ],
)
def test_channels_are_where_the_layer_has_them(axes, channels, right):
    if right:
        LayerAxes(axes).check_channels(channels)
    else:
        with pytest.raises(errors.UserError, match="where the layer has its channels, axis 1. Received: '"):
            LayerAxes(axes).check_channels(channels)


@pytest.mark.parametrize(
    ("axes", "settings", "shape", "patches", "expected"),
    [
        ("NCTHW", {}, (2, 9, 4, 5, 6), [], Fold(0, 0, None, (0, 2, 3, 4, 1))),
        # VideoMAE and ViViT: 8 x 14 x 14 patches of 2 x 16 x 16.
        ("N(THW)C", {}, (2, 1568, 9), TUBELETS, Fold(1, 0, (-1, 8, 14, 14, 9), (0, 1, 2, 3, 4))),
        ("N(THW)C", {}, (None, 1569, 9), TUBELETS * 2, Fold(1, 1, (-1, 8, 14, 14, 9), (0, 1, 2, 3, 4))),
        ("N(THW)C", {"class_tokens": 5}, (2, 1573, 9), TUBELETS, Fold(1, 5, (-1, 8, 14, 14, 9), (0, 1, 2, 3, 4))),
        ("N(THW)C", {"class_tokens": 1}, (2, None, 9), TUBELETS, Fold(1, 1, (-1, 8, 14, 14, 9), (0, 1, 2, 3, 4))),
        # MViT, whose patches overlap.
        ("N(THW)C", {"grid": (8, 7, 7)}, (2, 393, 9), [], Fold(1, 1, (-1, 8, 7, 7, 9), (0, 1, 2, 3, 4))),
        # TimeSformer: 16 frames of 14 x 14 patches, time innermost; and its attention in space.
        ("N(HWT)C", {}, (2, 3137, 9), [(1, 16, 16)], Fold(1, 1, (-1, 14, 14, 16, 9), (0, 3, 1, 2, 4))),
        ("(NT)(HW)C", {}, (32, 197, 9), [(1, 16, 16)], Fold(1, 1, (-1, 16, 14, 14, 9), (0, 1, 2, 3, 4))),
        ("(NHW)TC", {}, (392, 16, 9), [(1, 16, 16)], Fold(0, 0, (-1, 14, 14, 16, 9), (0, 3, 1, 2, 4))),
        # A 2-D CNN of single frames.
        ("(NT)CHW", {}, (32, 9, 7, 7), [], Fold(0, 0, (-1, 16, 9, 7, 7), (0, 1, 3, 4, 2))),
    ],
)
def test_folds(axes, settings, shape, patches, expected):
    fold = LayerAxes(axes, **settings).fold(shape, CLIP, patches)
    assert fold == expected
    assert [fold.order[axis] for axis in fold.back] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("axes", "shape", "patches", "message"),
    [
        ("N(THW)C", (2, 1568, 9), [], "grid must be given, .* Received: none, for patches of no size"),
        ("N(THW)C", (2, 1568, 9), [*TUBELETS, (2, 8, 8)], "grid must be given.* for patches of 2x8x8, 2x16x16 size"),
        ("N(THW)C", (2, 1567, 9), TUBELETS, "8 x 14 x 14, after 0 or 1 class tokens .*. Received: 1567"),
        ("N(THW)C", (2, 1570, 9), TUBELETS, "Received: 1570"),
        ("N(THW)C", (2, None, 9), TUBELETS, "Received: an unknown number"),
        ("N(THW)C", (2, 1568, None), TUBELETS, r"sizes that are known, but for N. Received: \(2, 1568, None\)"),
        ("(NT)CHW", (33, 9, 7, 7), [], r"axis \(NT\) must be a multiple of 16. Received: \(33, 9, 7, 7\)"),
    ],
)
def test_tokens_that_are_not_of_the_grid_are_refused(axes, shape, patches, message):
    with pytest.raises(errors.UserError, match=message):
        LayerAxes(axes).fold(shape, CLIP, patches)


LAYERS = [(["net.a.conv", "net.module.a.conv"], 1), (["net.b.conv"], 2), (["net.b.norm"], 3), (["norm"], 4)]


@pytest.mark.parametrize(
    ("name", "layer"),
    [("net.a.conv", 1), ("net.module.a.conv", 1), ("a.conv", 1), ("b.norm", 3), ("norm", 4)],
)
def test_a_layer_is_found_by_its_path_or_the_end_of_it(name, layer):
    assert layer_axes.find_layer(name, LAYERS, ".") == layer


@pytest.mark.parametrize("name", ["", "onv", ".conv", "net"])
def test_a_name_of_no_layer_is_refused(name):
    with pytest.raises(errors.UserError, match=f"one of net.a.conv, net.b.conv, net.b.norm, norm. Received: '{name}'"):
        layer_axes.find_layer(name, LAYERS, ".")


def test_a_name_of_two_layers_is_refused():
    with pytest.raises(errors.UserError, match="name of one layer .*its path.*. Received: 'conv', of 2"):
        layer_axes.find_layer("conv", LAYERS, ".")


def test_of_many_layers_the_last_are_named():
    layers = [([f"layer{i}"], i) for i in range(100)]
    with pytest.raises(errors.UserError, match="one of 60 more, layer60, .*, layer99. Received: 'x'"):
        layer_axes.find_layer("x", layers, ".")
