import numpy as np
import pytest

from common.reporting import drawing, preview, report_for_tests, sheet
from common.reporting.sheet import Picture, Text


@pytest.fixture
def store(tmp_path):
    return report_for_tests.write_store(tmp_path / "clips", ("left", "right " * 40, "wave"))


def test_a_preview_shows_frames_sentences_and_masks_of_both_games(store):
    needs, keeps = (report_for_tests.make_run(store, "I3D (PyTorch)", "i3d") for _ in range(2))
    keeps.explanations.header["mask"]["game"] = "preserve"
    drawn = preview.sheet("A title", "6 clips", [needs, keeps], store, 0)
    texts = [item.text for item in drawn.items if isinstance(item, Text)]
    assert texts[:2] == ["A title", "6 clips"] and texts[-4:] == ["heat", "needs", "keeps", "event"]
    assert texts[2].startswith("I3D (PyTorch): Needs frames 1-3 (3 of 8): frozen,")
    pictures = [item for item in drawn.items if isinstance(item, Picture)]
    assert len(pictures) == 7 and all(item.factor == 4 for item in pictures)
    pixels = sheet.paint(drawn)
    assert pixels.shape == (630, 1200, 3)
    for color in (drawing.ON_COLOR, drawing.OFF_COLOR):
        assert (pixels == color).all(axis=2).any()


@pytest.mark.parametrize("place", range(3))
def test_nothing_leaves_a_preview_however_long_the_names(store, place, monkeypatch):
    run = report_for_tests.make_run(store, "a model of a very long name " * 5, "i3d")
    frames = np.zeros((1, 8, 224, 320, 3), np.uint8)
    monkeypatch.setattr(type(store), "read", lambda self, places: frames)
    pixels = sheet.paint(preview.sheet("title " * 30, "facts " * 60, [run], store, place))
    edges = [pixels[:20], pixels[-20:], pixels[:, :40], pixels[:, -40:]]
    assert all((edge == 255).all() for edge in edges)


def test_a_run_without_maps_has_a_preview_of_plain_frames(store):
    run = report_for_tests.make_run(store, "mine", "i3d")
    run.explanations.header["gradcam"] = None
    del run.explanations.columns["gradcam"]
    drawn = preview.sheet("A title", "6 clips", [run], store, 0)
    first = next(item for item in drawn.items if isinstance(item, Picture))
    np.testing.assert_array_equal(first.image, store.read([0])[0, 0])
