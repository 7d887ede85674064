"""The PyTorch examples of docs/your_own_model.md, run as a reader runs them, and quoted there word for word."""

import functools
import pathlib
import re
import subprocess
import sys

import numpy as np

_DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
_PAGE = (_DOCS / "your_own_model.md").read_text(encoding="utf-8")
_README = (_DOCS.parent / "README.md").read_text(encoding="utf-8")
_QUOTED = re.compile(r"^\[(\w+\.py)\]\(examples/\1\):\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@functools.cache
def printed(name):
    command = [sys.executable, str(_DOCS / "examples" / f"torch_{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table, columns):
    """Returns the cells of a table's lines, without the header; cells are two spaces apart or more."""
    cells = [re.split(" {2,}", line) for line in table.splitlines()[1:]]
    assert {len(row) for row in cells} == {columns}
    return cells


def numbers(cells):
    return np.array(cells, float)


def frames(cell):
    assert re.fullmatch("[01]{16}", cell)
    return np.array([*cell]) == "1"


def assert_masks_find_events(cells):
    assert len(cells) == 6
    events, masks = (np.array([frames(row[column]) for row in cells]) for column in (1, 2))
    # Masks of the same lengths at random places would reach 0.4.
    assert np.mean((events & masks).sum(axis=1) / (events | masks).sum(axis=1)) > 0.5


def share_of_peaks_in_events(cells):
    return np.mean([frames(row[1])[int(re.match(r"frame (\d+), row", row[-1])[1])] for row in cells])


def test_a_3d_cnn_needs_the_event_and_its_order():
    cells = rows(printed("3d_cnn"), columns=8)
    assert [row[0] for row in cells] == ["left", "right"] * 3
    assert_masks_find_events(cells)
    assert all((frames(row[1]) & frames(row[3])).any() for row in cells)
    original, frozen, reversed_ = numbers([row[4:7] for row in cells]).T
    assert original.min() > 0.8
    assert frozen.max() < 0.2
    assert reversed_.mean() < 0.5
    assert share_of_peaks_in_events(cells) > 0.8


def test_a_frame_wise_cnn_needs_the_event_and_cannot_know_its_order():
    table, changes = printed("frame_wise_cnn").split("\n\n")
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


def test_the_page_quotes_the_examples_word_for_word():
    quoted = _QUOTED.findall(_PAGE)
    assert len(quoted) == _PAGE.count("```python") > 0
    for name, block in quoted:
        assert f"\n{block}" in (_DOCS / "examples" / name).read_text(encoding="utf-8"), f"{name}:\n{block}"


def test_the_page_names_every_example():
    examples = {path.name for path in (_DOCS / "examples").glob("*.py")}
    assert len(examples) == 4
    assert examples == set(re.findall(r"\(examples/(\w+\.py)\)", _PAGE))


def test_the_page_shows_what_the_examples_print():
    # What is a number is the machine's: it may train a slightly different model.
    shown = re.findall(r"^```text\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
    assert [without_numbers(text) for text in shown] == [
        without_numbers(printed(name)) for name in ("3d_cnn", "frame_wise_cnn")
    ]


def test_the_readme_s_example_runs():
    (block,) = re.findall(r"^```python\n(.*?)^```$", _README, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=_DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\(2, 14, 30, 30\)$", done.stdout.strip())  # Grad-CAM's maps of a layer without padding.


def without_numbers(text):
    return re.sub(r"\d+(\.\d+)?", "#", text)


def test_both_builds_explain_the_same_clips():
    for name in ("3d_cnn", "frame_wise_cnn"):
        torch, tf = (
            (_DOCS / "examples" / f"{build}_{name}.py").read_text(encoding="utf-8") for build in ("torch", "tf")
        )
        made = re.compile(r"^def make_clips.*?(?=^def )", re.MULTILINE | re.DOTALL)
        assert made.findall(torch) == made.findall(tf) != []
