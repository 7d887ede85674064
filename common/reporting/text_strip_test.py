"""Strips as they stand in a terminal."""

import numpy as np
import pytest

from common.reporting import text_strip

SOFT = np.array([0, 0.2, 0.5, 1.0])
ROWS = [("needed", SOFT, (SOFT > 0.5).astype(np.uint8))]


def test_frames_stand_side_by_side():
    assert text_strip.strip(ROWS, 80) == [
        "frame    0   1   2   3",
        "needed ▁▁▁ ▂▂▂ ▅▅▅ ███",
        "         ·   ·   ·   ■",
    ]


def test_ascii():
    assert text_strip.strip(ROWS, 80, unicode=False) == [
        "frame    0   1   2   3",
        "needed ___ ... === ###",
        "         .   .   .   X",
    ]


def test_what_does_not_fit_is_continued_below():
    assert text_strip.strip(ROWS, 11) == [
        "frame  0 1",
        "needed ▁ ▂",
        "       · ·",
        "",
        "frame  2 3",
        "needed ▅ █",
        "       · ■",
    ]


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
@pytest.mark.parametrize("time", [1, 9, 16, 120])
def test_no_line_is_too_wide_and_every_frame_is_there(width, time):
    soft = np.linspace(0, 1, time)
    lines = text_strip.strip([("needed", soft, soft > 0.5), ("enough", soft, soft > 0.5)], width)
    assert max(map(len, lines)) <= max(width, len("needed ") + len(str(time - 1)))
    shown = [number for line in lines if line.startswith("frame") for number in line.split()[1:]]
    assert shown == [str(number) for number in range(time)]
