"""Masks over the frames of a clip as lines of text, for a terminal of any width."""

from collections.abc import Sequence

import numpy as np

_HEAT, _ASCII_HEAT = "▁▂▃▄▅▆▇█", "_.:-=+*#"  # Of equal steps from 0 to 1.
_MARKS, _ASCII_MARKS = "·■", ".X"  # Off and on.
_MOST = 4  # Letters of a frame at most.


def strip(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], width: int, unicode: bool = True) -> list[str]:
    """Returns lines: numbers of frames, and of each mask its heat and, below, marks of the frames that are on.

    Where not all frames fit side by side, they are continued below.

    Args:
      rows: of each mask its name, its values float [T] in 0…1, and the same snapped, 0 or 1 [T].
      width: letters of a line; at least one frame stands in it whatever the width.
      unicode: False for letters of ASCII alone.
    """
    heat, marks = (_HEAT, _MARKS) if unicode else (_ASCII_HEAT, _ASCII_MARKS)
    names = ["frame", *(name for name, _, _ in rows)]
    margin = max(map(len, names)) + 1
    time = len(rows[0][1])
    least = len(str(time - 1)) + 1
    cell = min(max((width - margin) // time, least), max(least, _MOST))
    fitting = max((width - margin) // cell, 1)
    lines: list[str] = []
    for start in range(0, time, fitting):
        places = range(start, min(start + fitting, time))
        lines += [""] * bool(lines)
        lines.append("frame".ljust(margin) + "".join(str(place).rjust(cell - 1) + " " for place in places))
        for name, soft, snapped in rows:
            levels = [heat[min(int(soft[place] * len(heat)), len(heat) - 1)] for place in places]
            on = [marks[int(snapped[place])] for place in places]
            lines.append(name.ljust(margin) + "".join(level * (cell - 1) + " " for level in levels))
            lines.append(" " * margin + "".join(mark.rjust(cell - 1) + " " for mark in on))
    return [line.rstrip() for line in lines]
