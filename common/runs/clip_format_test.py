import pytest

from common import errors
from common.models.foreign import ForeignModel
from common.runs import clip_format


def model(**values):
    return ForeignModel("mine", "python:mine", lambda clips: clips, **values)


@pytest.mark.parametrize(
    ("values", "asked", "shape"),
    [
        ({"clip_shape": (4, 8, 8)}, None, (4, 8, 8)),
        ({"clip_shape": (4, 8, 8)}, (4, 8, 8), (4, 8, 8)),
        ({"clip_shape": (4, None, None)}, (4, 6, 6), (4, 6, 6)),
        ({"usual_shape": (16, 112, 112)}, None, (16, 112, 112)),
        ({"usual_shape": (16, 112, 112)}, (8, 64, 64), (8, 64, 64)),
        ({"clip_shape": (4, None, None), "usual_shape": (16, 112, 112)}, None, (4, 112, 112)),
    ],
)
def test_the_shape_is_what_the_model_takes_else_what_the_user_says_else_what_is_usual(values, asked, shape):
    form = clip_format.of_foreign(model(**values), asked)
    assert form == clip_format.ClipFormat(shape, "stretch", "linspace", ())


def test_a_shape_that_nobody_says_or_the_model_does_not_take_is_refused():
    with pytest.raises(errors.UserError, match=r"--input_shape must say .* Received: none, and 4 x any x any of mine"):
        clip_format.of_foreign(model(clip_shape=(4, None, None)))
    with pytest.raises(errors.UserError, match="must be what mine takes, 4 x any x any. Received: 8 x 6 x 6"):
        clip_format.of_foreign(model(clip_shape=(4, None, None)), (8, 6, 6))


@pytest.mark.parametrize("sizes", [["16", "112"], ["16", "112", "x"], ["0", "112", "112"], ["1.5", "2", "3"]])
def test_sizes_that_are_no_shape_are_refused(sizes):
    assert clip_format.parse_shape(["16", " 112", "96"]) == (16, 112, 96)
    with pytest.raises(errors.UserError, match="--input_shape must be three whole numbers"):
        clip_format.parse_shape(sizes)
