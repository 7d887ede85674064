import dataclasses

import pytest

from common import errors
from common.clips import tiny_store_for_tests
from common.models import foreign
from common.models.foreign import ForeignModel, Spec
from common.runs import subjects

SPEC = Spec("python", "package.module:function")
MODEL = ForeignModel("mine", "python:mine", lambda clips: clips, ("class 0", "class 1"), (8, None, 32), digest="d1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects") / "clips"
    tiny_store_for_tests.write_tiny_store(folder, clips={"test": 2}, num_classes=2)
    return folder


def open_model(clips, split="test", **values):
    return subjects.open_subject(SPEC, clips, split, lambda spec: dataclasses.replace(MODEL, **values))


def test_a_foreign_model_is_a_subject(clips):
    subject, store = open_model(clips)
    assert (subject.name, subject.model, subject.digest) == ("mine", "python:mine", "d1")
    assert subject.classifier == MODEL and len(store) == 2


def test_a_model_that_knows_no_classes_takes_those_of_the_clips(clips):
    subject, _ = open_model(clips, class_names=(), clip_shape=(None, None, None))
    assert isinstance(subject.classifier, ForeignModel) and not subject.classifier.class_names


def test_clips_of_other_classes_have_the_labels_that_the_model_knows(clips):
    _, store = open_model(clips, class_names=("class 1", "other", "class 0"))
    assert store.labels.tolist() == [2, 0] and store.info.class_names == ("class 1", "other", "class 0")


@pytest.mark.parametrize(("num_classes", "names"), [(2, ("class 0", "class 1")), (3, ("0", "1", "2"))])
def test_classes_without_names_are_those_of_the_clips_or_numbers(clips, num_classes, names):
    subject, store = open_model(clips, class_names=())
    seen = subjects.numbered(store, subject.foreign, num_classes)
    assert seen.info.class_names == names
    assert seen.labels.tolist() == ([0, 1] if num_classes == 2 else [-1, -1])


def test_clips_of_another_shape_are_refused(clips):
    with pytest.raises(errors.UserError, match="that mine takes, 16 x any x 32. Received: 8 x 32 x 32"):
        open_model(clips, clip_shape=(16, None, 32))


def test_a_foreign_model_needs_clips():
    with pytest.raises(errors.UserError, match="--clips must name a clip store for a model that was not trained here"):
        open_model(None)


def test_what_has_no_adapters_refuses_foreign_models(clips):
    with pytest.raises(errors.UserError, match="A model must be a run. Received: torchvision:r3d_18"):
        subjects.open_subject(foreign.parse("torchvision:r3d_18"), clips, "test", subjects.load_none)
