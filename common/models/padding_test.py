"""SAME padding against a table worked out by hand, and against its definition."""

import pytest

from common.models import padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "output", "before", "after"),
    [
        (8, 3, 1, 8, 1, 1),  # 7 * 1 + 3 - 8 = 2
        (8, 3, 2, 4, 0, 1),  # 3 * 2 + 3 - 8 = 1: the odd position comes after
        (9, 3, 2, 5, 1, 1),  # 4 * 2 + 3 - 9 = 2
        (224, 7, 2, 112, 2, 3),  # 111 * 2 + 7 - 224 = 5
        (225, 7, 2, 113, 3, 3),  # 112 * 2 + 7 - 225 = 6
        (16, 7, 1, 16, 3, 3),
        (7, 2, 2, 4, 0, 1),  # 3 * 2 + 2 - 7 = 1
        (8, 2, 2, 4, 0, 0),
        (4, 1, 2, 2, 0, 0),  # 1 * 2 + 1 - 4 < 0: nothing is cut
        (1, 3, 2, 1, 1, 1),
    ],
)
def test_table(size, kernel, stride, output, before, after):
    assert padding.same_output(size, stride) == output
    assert padding.same_padding(size, kernel, stride) == (before, after)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_last_window_ends_where_the_padding_does(kernel, stride):
    for size in range(1, 20):
        before, after = padding.same_padding(size, kernel, stride)
        assert 0 <= after - before <= 1
        positions = (size + before + after - kernel) // stride + 1
        assert positions == padding.same_output(size, stride)
