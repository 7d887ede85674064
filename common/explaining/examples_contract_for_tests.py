"""The examples of docs/your_own_model.md, run as a reader runs them: what either build's print."""

import functools
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


class ExamplesContract:
    """The tests that both builds share.

    Attributes:
      build: "torch" or "tf", with which the examples' names begin.
    """

    build: str

    def test_a_3d_cnn_needs_the_event_and_its_order(self):
        cells = rows(printed(self.build, "3d_cnn"), columns=8)
        assert [row[0] for row in cells] == ["left", "right"] * 3
        assert_masks_find_events(cells)
        assert all((frames(row[1]) & frames(row[3])).any() for row in cells)
        original, frozen, reversed_ = numbers([row[4:7] for row in cells]).T
        assert original.min() > 0.8
        assert frozen.max() < 0.2
        assert reversed_.mean() < 0.5
        assert share_of_peaks_in_events(cells) > 0.8

    @pytest.mark.slow
    def test_a_frame_wise_cnn_needs_the_event_and_cannot_know_its_order(self):
        table, changes = printed(self.build, "frame_wise_cnn").split("\n\n")
        cells = rows(table, columns=7)
        assert [row[0] for row in cells] == ["red", "green"] * 3
        assert_masks_find_events(cells)
        original, frozen, reversed_ = numbers([row[3:6] for row in cells]).T
        assert original.min() > 0.8
        assert frozen.max() < 0.2
        np.testing.assert_allclose(reversed_, original, rtol=0, atol=1e-5)
        assert share_of_peaks_in_events(cells) > 0.8

        least_and_most = {kind: numbers(values) for kind, *values in rows(changes, columns=3)}
        assert [*least_and_most] == ["freeze", "reverse", "blank", "dim"]
        assert least_and_most["reverse"][1] < 1e-5
        assert min(least_and_most[kind][0] for kind in ("freeze", "blank", "dim")) > 1

    def test_the_page_shows_what_the_examples_print(self):
        # What is a number is the machine's: it may train a slightly different model.
        page = (DOCS / "your_own_model.md").read_text(encoding="utf-8")
        shown = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        assert [without_numbers(text) for text in shown] == [
            without_numbers(printed(self.build, name)) for name in ("3d_cnn", "frame_wise_cnn")
        ]


@functools.cache
def printed(build, name):
    """Returns what an example prints."""
    command = [sys.executable, str(DOCS / "examples" / f"{build}_{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table, columns):
    """Returns the cells of a table's lines, without the header; cells are two spaces apart or more."""
    cells = [re.split(" {2,}", line) for line in table.splitlines()[1:]]
    assert {len(row) for row in cells} == {columns}
    return cells


def numbers(cells):
    """Returns cells as an array."""
    return np.array(cells, float)


def frames(cell):
    """Returns which of 16 frames a cell marks with 1, bool [16]."""
    assert re.fullmatch("[01]{16}", cell)
    return np.array([*cell]) == "1"


def assert_masks_find_events(cells):
    """Compares the masks of six clips (third column) with their events (second column)."""
    assert len(cells) == 6
    events, masks = (np.array([frames(row[column]) for row in cells]) for column in (1, 2))
    # Masks of the same lengths at random places would reach 0.4.
    assert np.mean((events & masks).sum(axis=1) / (events | masks).sum(axis=1)) > 0.5


def share_of_peaks_in_events(cells):
    """Returns how many of Grad-CAM's peaks (last column) lie in a frame of the event."""
    return np.mean([frames(row[1])[int(re.match(r"frame (\d+), row", row[-1])[1])] for row in cells])


def without_numbers(text):
    """Returns a text with # for each number."""
    return re.sub(r"\d+(\.\d+)?", "#", text)
