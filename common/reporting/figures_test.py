import numpy as np
import pytest

from common import errors
from common.reporting import drawing, figures, sheet

WHITE, INK = (255, 255, 255), (20, 20, 20)
NAN = float("nan")


def figure(time=4, size=32, **changes):
    """A clip of noise, perturbed by reversal, with a hot square in the middle and the mask on in the middle half."""
    frames = np.random.default_rng(0).integers(0, 256, (time, size, size, 3), dtype=np.uint8)
    heat = np.zeros((time, size, size), np.float32)
    heat[:, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    mask = np.zeros(time, np.uint8)
    mask[time // 4 : time - time // 4] = 1
    values = {
        "frames": frames,
        "heat": heat,
        "perturbed": frames[::-1],
        "mask": mask,
        "title": "up",
        "caption": "OS: 1",
    }
    return figures.ClipFigure(**values | changes)


def enlarged(image, factor):
    return np.kron(image, np.ones((factor, factor, 1), np.uint8))


def test_scores_are_printed_as_in_the_paper():
    scores = {"OS": np.float32(0.9941), "FS": 0.083, "RS": 0.856, "prediction": np.int32(36)}
    assert figures.caption({**scores, "CS": np.float32(NAN)}) == "OS: 0.994 FS: 0.083 RS: 0.856"
    assert figures.caption({"OS": 1.0, "FS": 0.0, "RS": 0.5}) == "OS: 1.000 FS: 0.000 RS: 0.500"
    wrong = {"OS": 0.257, "FS": 0.079, "RS": 0.122, "CS": 0.002, "prediction": "Moving down"}
    said = "OS: 0.257 FS: 0.079 RS: 0.122 CS: 0.002, guess: Moving down"
    assert figures.caption(wrong) == said


def test_a_title_names_class_model_and_framework():
    assert figures.title("Moving something up", "conv_lstm", "tf") == "Moving something up\nC-LSTM (TensorFlow)"
    assert figures.title("up", "mine", "torch") == "up\nmine (PyTorch)"


def test_a_bar_shows_on_off_and_the_current_frame():
    bar = figures.mask_bar(np.array([0, 1, 1, 0], np.uint8), 2, width=80, height=20)
    assert bar.shape == (20, 80, 3) and bar.dtype == np.uint8
    pixel = {(y, x): tuple(bar[y, x].tolist()) for y in range(20) for x in range(80)}
    assert (
        pixel[10, 3] == pixel[10, 10] == pixel[4, 10] == pixel[15, 10] == drawing.OFF_COLOR
    )  # No dot where it is off.
    assert pixel[10, 23] == pixel[10, 36] == drawing.ON_COLOR and pixel[10, 30] == WHITE
    assert pixel[3, 10] == pixel[3, 30] == pixel[16, 30] == WHITE  # Other cells are lower than the current one.
    assert pixel[0, 50] == pixel[19, 50] == pixel[10, 40] == pixel[10, 59] == INK
    assert pixel[2, 50] == pixel[17, 43] == drawing.ON_COLOR and pixel[10, 50] == WHITE
    without = figures.mask_bar(np.array([0, 1, 1, 0], np.uint8), None, width=80, height=20)
    assert not np.any(np.all(without == INK, axis=2))
    np.testing.assert_array_equal(without[:, :40], bar[:, :40])


def test_a_bar_reads_in_gray():
    on, off = (np.array(color) @ (0.299, 0.587, 0.114) for color in (drawing.ON_COLOR, drawing.OFF_COLOR))
    assert off - on > 100


@pytest.mark.parametrize(("time", "width", "height"), [(32, 128, 8), (7, 100, 20), (1, 4, 8), (16, 1000, 40)])
def test_every_cell_of_a_bar_of_any_size_tells_its_value(time, width, height):
    mask = (np.arange(time) % 3 == 0).astype(np.uint8)
    bar = figures.mask_bar(mask, time - 1, width, height)
    edges = np.rint(np.linspace(0, width, time + 1)).astype(int)
    for value, cell in zip(mask, np.split(bar, edges[1:-1], axis=1), strict=True):
        colors = {tuple(color) for color in cell.reshape(-1, 3).tolist()}
        assert (drawing.ON_COLOR in colors, drawing.OFF_COLOR in colors) == (bool(value), not value)


@pytest.mark.parametrize(
    ("mask", "current", "width", "message"),
    [
        ([0, 2], None, 80, r"mask must be \[T\] of 0 and 1. Received: \[0, 2\]"),
        ([], None, 80, "mask must be"),
        ([0, 1], 2, 80, r"Highlighted frames must be in 0…1. Received: \[2\]"),
        ([0, 1], -1, 80, "Highlighted frames"),
        ([0, 1], None, 7, "A bar of 2 frames is at least 8 x 8 px. Received: 7 x 20"),
    ],
)
def test_a_bar_of_something_else_is_refused(mask, current, width, message):
    with pytest.raises(errors.UserError, match=message):
        figures.mask_bar(np.array(mask, np.uint8), current, width, 20)


def test_a_triptych_holds_the_three_panels_and_the_bar():
    clip = figure()
    film = figures.triptych(clip)
    # 32 px are enlarged 5 times: 3 panels of 160 px, 2 gaps and 2 margins of 6. Letters are 13 px, lines 19 px.
    # Margin 6, title and scores 38, gap 6, labels 19, panels 160, gap 6, bar 20, gap 6, legend 20, margin 6.
    assert film.shape == (4, 287, 504, 3) and film.dtype == np.uint8
    for t in range(4):
        panels = film[t, 69:229]
        np.testing.assert_array_equal(panels[:, 6:166], enlarged(clip.frames[t], 5))
        np.testing.assert_array_equal(panels[:, 172:332], enlarged(drawing.overlay(clip.frames, clip.heat)[t], 5))
        np.testing.assert_array_equal(panels[:, 338:498], enlarged(clip.perturbed[t], 5))
        np.testing.assert_array_equal(film[t, 235:255, 6:498], figures.mask_bar(clip.mask, t, 492, 20))


def test_without_a_map_there_is_no_panel_for_it():
    clip = figure(has_map=False)
    film = figures.triptych(clip)
    assert film.shape[2] == 338  # As above, with a panel and a gap less.
    for t in range(4):
        np.testing.assert_array_equal(film[t, 69:229, 172:332], enlarged(clip.perturbed[t], 5))


@pytest.mark.parametrize(("size", "width"), [(160, 3 * 160), (159, 3 * 318), (224, 3 * 224), (1, 3 * 160)])
def test_narrow_clips_are_enlarged_by_a_whole_number(size, width):
    heat = np.zeros((2, size, size), np.float32)
    assert figures.triptych(figure(2, size, heat=heat)).shape[2] == width + 4 * 6


def test_many_frames_widen_a_triptych():
    # 150 cells of at least 4 px need panels of 200 px; 8 px are enlarged 25 times.
    assert figures.triptych(figure(150, 8)).shape[2] == 3 * 200 + 4 * 6


@pytest.mark.parametrize("text", ["a b c d e f g h " * 12, "W" * 60])
def test_long_titles_are_neither_cut_nor_drawn_into_the_panels(text):
    one, other = (figures.triptych(figure(title=text + end))[0] for end in ("A", "B"))
    assert np.any(one != other)  # The last letter can be seen.
    extra = len(one) - 287
    assert extra % 19 == 0 and (extra > 0) == (" " in text)
    assert np.all(one[:, :6] == 255) and np.all(one[:, -6:] == 255)
    np.testing.assert_array_equal(one[69 + extra - 19 - 6 :], figures.triptych(figure())[0][69 - 19 - 6 :])


def test_empty_lines_stay():
    assert figures.triptych(figure(title="", caption="")).shape[1] == 287 - 19  # No title has no line.


def test_the_perturbation_is_named():
    assert np.any(figures.triptych(figure(kind="reverse"))[0, 50:69] != figures.triptych(figure())[0, 50:69])


def test_a_pair_stands_in_one_line_whatever_the_titles():
    left, right = figure(title="a\nb\nc"), figure(title="a", frames=255 - figure().frames)
    film = figures.pair(left, right)
    # Two titles more than in a triptych, and 4 gaps of 6 between the two.
    assert film.shape == (4, 287 + 2 * 19, 492 + 24 + 492 + 12, 3)
    np.testing.assert_array_equal(film[1, 107:267, 6:166], enlarged(left.frames[1], 5))
    np.testing.assert_array_equal(film[1, 107:267, 522:682], enlarged(right.frames[1], 5))


def test_a_pair_of_different_lengths_is_refused():
    with pytest.raises(errors.UserError, match="the same number of frames. Received: 4 and 5"):
        figures.pair(figure(4), figure(5))


def test_a_still_shows_frames_from_first_to_last():
    clip = figure(16)
    image = figures.still_strip(clip, frames_shown=8, dpi=72)
    # 7 inches of 72 px take 8 frames of 32 px twice as large, 2 px apart: 526 px. Letters are 8 px, lines 12 px.
    # Margin 4, title and scores 24, gap 2, three rows of 64 + 2, bar 16, numbers 12, legend 13, margin 4; labels 12.
    assert image.shape == (4 + 24 + 2 + 3 * 66 + 16 + 12 + 13 + 4, 4 + 12 + 2 + 526 + 4, 3)
    rows = (clip.frames, drawing.overlay(clip.frames, clip.heat), clip.perturbed)
    for column, t in enumerate((0, 2, 4, 6, 9, 11, 13, 15)):
        for row, frames in enumerate(rows):
            top, left = 30 + 66 * row, 18 + 66 * column
            np.testing.assert_array_equal(image[top : top + 64, left : left + 64], enlarged(frames[t], 2))
    bar = image[228:244, 18:544]
    framed = np.all(bar[0] == INK, axis=1)[(np.arange(16) * 526 / 16 + 16).astype(int)]
    assert np.flatnonzero(framed).tolist() == [0, 2, 4, 6, 9, 11, 13, 15]
    numbers = np.any(image[244:256, 18:544] != 255, axis=(0, 2))
    assert [bool(cell.any()) for cell in np.array_split(numbers, 16)] == framed.tolist()


def test_a_still_has_a_row_of_cells_and_a_name_for_each_mark():
    clip = figure(16)
    marks = (("needs", clip.mask), ("suffices", np.arange(16, dtype=np.uint8) // 15))
    alone, both = figures.still_sheet(clip, dpi=72), figures.still_sheet(figure(16, marks=marks), dpi=72)
    assert both.height == alone.height + 16 + 2 * 12  # A bar more, and two lines of names.
    texts = [item.text for item in both.items if isinstance(item, sheet.Text)]
    assert texts.index("needs") + 1 == texts.index("suffices")
    last = both.height - 4 - 13 - 12 - 8  # The middle of the last bar: above numbers and legend.
    pixels = sheet.paint(both)[last, 18:544]
    cells = [tuple(cell[3].tolist()) for cell in np.array_split(pixels, 16)]
    assert cells == [drawing.OFF_COLOR] * 15 + [drawing.ON_COLOR]


@pytest.mark.parametrize(("time", "shown", "columns"), [(4, 8, 4), (1, 8, 1), (300, 100, 100)])
def test_a_still_of_few_or_many_frames_fits_the_page(time, shown, columns):
    image = figures.still_strip(figure(time, 16), shown, dpi=50)
    assert 350 <= image.shape[1] <= 2 * max(350, 4 * time, 16 * columns)
    assert np.all(image[:, -4:] == 255)


@pytest.mark.parametrize(("shown", "dpi"), [(1, 300), (8, 49)])
def test_a_still_of_no_use_is_refused(shown, dpi):
    with pytest.raises(errors.UserError, match=f"Received: {shown}, {dpi}"):
        figures.still_strip(figure(), shown, dpi)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((4, 32, 32, 3))}, r"Frames must be uint8 \[T, H, W, 3\]. Received: float64"),
        ({"frames": np.zeros((4, 32, 32), np.uint8)}, r"Received: uint8 \[4, 32, 32\]"),
        ({"perturbed": np.zeros((3, 32, 32, 3), np.uint8)}, r"perturbed must be uint8 \[4, 32, 32, 3\]"),
        ({"mask": np.zeros(5, np.uint8)}, "mask must have 4 values, one per frame. Received: 5"),
        ({"mask": np.full(4, 0.5)}, "mask must be"),
        ({"heat": np.full((4, 32, 32), NAN)}, "heat must be in 0…1"),
    ],
)
def test_a_clip_whose_parts_clash_is_refused(changes, message):
    with pytest.raises(errors.UserError, match=message):
        figure(**changes)
