import numpy as np
import pytest
from PIL import Image

from common import errors
from common.reporting import drawing

NAN = float("nan")


def test_heat_leaves_cold_pixels_and_weighs_more_the_hotter():
    frames = np.full((1, 1, 4, 3), 100, np.uint8)
    drawn = drawing.overlay(frames, np.array([[[0, 0.2, 2 / 3, 1]]], np.float32))
    # Viridis at 0, 0.2, 2/3 and 1 is (68, 1, 84), (65, 68, 135), (53, 183, 121) and (253, 231, 37).
    # The weights are 0, 0.21, 0.7 and 0.7.
    expected = [[100, 100, 100], [93, 93, 107], [67, 158, 115], [207, 192, 56]]
    np.testing.assert_allclose(drawn[0, 0].astype(int), expected, atol=1)
    assert drawn[0, 0, 0].tolist() == [100, 100, 100]


def test_heat_gets_lighter_all_the_way():
    frames = np.zeros((1, 1, 256, 3), np.uint8)
    drawn = drawing.overlay(frames, np.linspace(0, 1, 256)[None, None])
    gray = np.asarray(Image.fromarray(drawn[0]).convert("L"), int)[0]
    assert np.all(np.diff(gray) >= -1) and gray[-1] - gray[0] > 100


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (np.full((1, 2, 2), NAN), "heat must be in 0…1. Received: nan"),
        (np.full((1, 2, 2), 1.1), "heat must be in 0…1. Received: 1.1"),
        (np.zeros((1, 2, 3)), r"heat must be float \[1, 2, 2\]. Received: float64 \[1, 2, 3\]"),
        (np.zeros((1, 2, 2), np.uint8), "heat must be float .* Received: uint8"),
    ],
)
def test_heat_that_is_none_is_refused(heat, message):
    with pytest.raises(errors.UserError, match=message):
        drawing.overlay(np.zeros((1, 2, 2, 3), np.uint8), heat)
