import numpy as np
import pytest

from common.explaining import spread


@pytest.mark.parametrize(
    ("labels", "limit", "places"),
    [
        ([0, 1, 2, 0, 1, 2, 0, 1, 2], 3, [0, 1, 2]),  # Evenly over the file it would be three times class 0.
        ([0, 0, 0, 1, 1, 1], 4, [0, 1, 3, 4]),
        ([0, 0, 0, 0, 1, 1], 5, [0, 1, 2, 4, 5]),
        (list(range(12)), 4, [0, 3, 6, 9]),  # Fewer clips than classes: classes far apart.
        ([0, 0, 1], 0, [0, 1, 2]),
        ([0, 0, 1], 7, [0, 1, 2]),
    ],
)
def test_clips_are_spread_over_the_classes(labels, limit, places):
    assert spread.over_classes(np.array(labels), limit).tolist() == places
