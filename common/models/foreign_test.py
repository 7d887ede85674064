import dataclasses
import pathlib
import sys

import numpy as np
import pytest

from common import errors
from common.models import foreign
from common.models.foreign import ForeignModel, Spec


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("torchvision:r3d_18", "torchvision", "r3d_18"),
        ("transformers:MCG-NJU/videomae-base", "transformers", "videomae-base"),
        ("transformers:folder/with.dot/", "transformers", "with.dot"),
        ("keras:some/net.v2.keras", "keras", "net.v2"),
        ("saved_model:exported/1", "saved_model", "1"),
        ("python:package.module:function", "python", "package.module.function"),
    ],
)
def test_a_foreign_model_is_named_by_its_kind_and_the_rest(text, kind, name):
    spec = foreign.parse(text)
    assert spec == Spec(kind, text.partition(":")[2])
    assert spec.name == name and foreign.folder(spec) == pathlib.Path("models") / name


def test_a_run_is_one_kind_of_model():
    run = pathlib.Path("runs/mine")
    assert foreign.parse("run:runs/mine") == run == foreign.folder(run)


def test_what_the_user_says_belongs_to_foreign_models_alone():
    told = {"weights": pathlib.Path("w.pt"), "pixels": "", "class_names": pathlib.Path("names.txt")}
    assert foreign.parse("torchvision:r3d_18", **told) == Spec("torchvision", "r3d_18", **told)
    with pytest.raises(errors.UserError, match="--weights must be left out for a run, .* Received: --weights, --class"):
        foreign.parse("run:runs/mine", **told)


def test_class_names_are_the_users_where_the_model_has_none(tmp_path):
    (tmp_path / "names.txt").write_text("open\nclose\n")
    spec = Spec("python", "a:b", class_names=tmp_path / "names.txt")
    model = ForeignModel("mine", "mine", len)
    assert foreign.with_names(model, spec).class_names == ("open", "close")
    assert foreign.with_names(model, Spec("python", "a:b")) is model
    with pytest.raises(errors.UserError, match="left out for a model that knows its classes, as mine does. Received: "):
        foreign.with_names(dataclasses.replace(model, class_names=("a", "b")), spec)


@pytest.mark.parametrize("text", ["", "r3d_18", "torchvision:", "timm:resnet", ":r3d_18"])
def test_other_names_are_refused(text):
    with pytest.raises(errors.UserError, match=r"--model must be KIND:NAME, KIND one of run, torchvision, .* Received"):
        foreign.parse(text)


def test_logarithms_of_probabilities():
    given = np.array([[0.5, 0.5], [0, 1]], np.float32)
    np.testing.assert_allclose(foreign.log_probabilities(given, 2), [[np.log(0.5)] * 2, [-87.33655, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.ones(2), r"\[N, K\]. Received: \(2,\) for 2 clip"),
        (np.ones((3, 1)), r"Received: \(3, 1\) for 2 clip"),
        (np.ones((2, 0)), r"Received: \(2, 0\) for 2 clip"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), "sum is 1.* Received: nan…nan"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), "sum is 1"),
        (np.array([[1.5, -0.5], [0.5, 0.5]]), "Received: -0.5…1.5"),
    ],
)
def test_what_is_no_probability_is_refused(returned, message):
    with pytest.raises(errors.UserError, match=message):
        foreign.log_probabilities(returned, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_names": ("a", "b", "a")}, "class_names must be all different"),
        ({"clip_shape": (16, 224)}, r"clip_shape must be T, H, W .* Received: \(16, 224\), 1"),
        ({"frames_per_step": 0}, "frames_per_step at least 1"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(values, message):
    with pytest.raises(errors.UserError, match=message):
        ForeignModel("mine", "mine", lambda clips: clips, **values)


def test_names_may_come_in_a_list():
    assert ForeignModel("mine", "mine", lambda clips: clips, ["a", "b"]).class_names == ("a", "b")


def test_a_preprocessing_is_known_by_what_it_does_to_black_white_and_grey():
    mean, deviation = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    inputs = foreign.probed(lambda color: (color / 255 - mean) / deviation, "NCTHW")
    expected = foreign.normalized(mean, deviation, "NCTHW")
    np.testing.assert_allclose([inputs.scale, inputs.shift], [expected.scale, expected.shift], rtol=1e-12)
    assert inputs.permutation == (0, 4, 1, 2, 3)
    with pytest.raises(errors.UserError, match="must scale and shift pixels"):
        foreign.probed(lambda color: (color / 255) ** 2, "NTHWC")


@pytest.mark.parametrize(("pixels", "expected"), [("0..255", [0, 255]), ("0..1", [0, 1]), ("-1..1", [-1, 1])])
def test_ranges_of_pixels(pixels, expected):
    inputs = foreign.in_range(pixels)
    assert [
        scale * level + shift for scale, shift in zip(inputs.scale, inputs.shift, strict=True) for level in (0, 255)
    ] == (pytest.approx(expected * 3))


def test_probabilities_are_told_from_logits():
    assert foreign.are_probabilities(np.array([[0.25, 0.75], [1, 0]]))
    assert not foreign.are_probabilities(np.array([[0.25, 0.75], [-0.5, 1.5]]))
    for outputs in (np.array([[0.9, 0.9]]), np.array([[np.inf, 0]]), np.zeros((2, 3, 4))):
        with pytest.raises(errors.UserError, match="A model must return"):
            foreign.are_probabilities(outputs)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("nothing", "must go on with MODULE:FUNCTION. Received: 'nothing'"),
        (".beside:make", "must go on with MODULE:FUNCTION. Received: '.beside:make'"),
        ("no.such.module:make", "must name a module that can be imported. Received: No module named 'no'"),
        ("common.errors:no_such", "must name a function of common.errors. Received: 'no_such'"),
        ("os:getpid", "os:getpid must return a ForeignModel or a score_fn. Received: int"),
    ],
)
def test_a_name_that_leads_to_no_model_is_refused(rest, message, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(errors.UserError, match=message):
        foreign.from_python(Spec("python", rest))
