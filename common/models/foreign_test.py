import pathlib

import numpy as np
import pytest

from common import errors
from common.models import foreign
from common.models.foreign import Spec


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


def test_weights_belong_to_what_has_none():
    assert foreign.parse("torchvision:r3d_18", pathlib.Path("w.pt")) == Spec(
        "torchvision", "r3d_18", pathlib.Path("w.pt")
    )
    with pytest.raises(errors.UserError, match="left out for a run, which has its own. Received: w.pt"):
        foreign.parse("run:runs/mine", pathlib.Path("w.pt"))


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
