"""What explains one clip, made from rows of explanations."""

import dataclasses
import json

import imageio.v3 as iio
import numpy as np
import pytest

from common import errors
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations
from common.reporting import clip_explanation, report_for_tests

NAMES = ("<push> “left”", "pull right", "hold")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return report_for_tests.write_store(tmp_path_factory.mktemp("clips") / "store", NAMES, 3)


def _game(explained, game):
    return Explanations({**explained.header, "mask": {**explained.header["mask"], "game": game}}, explained.columns)


@pytest.fixture(scope="module")
def explanation(store):
    explained = report_for_tests.explain(store, "mine", "i3d")
    return clip_explanation.of_row({game: _game(explained, game) for game in ("delete", "preserve")}, store, 1)


def test_it_holds_what_the_row_says(explanation, store):
    assert explanation.name == store.video_ids[1] and explanation.framework == "torch"
    assert explanation.top[0] == ("pull right", pytest.approx(0.89))
    assert len(explanation.top) == 3 and explanation.target == 1
    np.testing.assert_array_equal(explanation.frames, store.read([1])[0])
    assert explanation.heat.shape == (8, 32, 32) and explanation.heat.max() == 1
    assert explanation.gradcam.shape == (2, 2, 2)
    assert explanation.source_frame.tolist() == list(range(8))
    assert [*explanation.masks] == ["delete", "preserve"]
    mask = explanation.masks["delete"]
    assert mask.snapped.tolist() == [0, 0, 1, 1, 1, 0, 0, 0] and mask.kind == "freeze"
    assert mask.scores["OS"] == pytest.approx(0.89) and mask.scores["RS"] == 0.5
    assert explanation.scores is mask.scores
    assert mask.words.startswith("Needs frames 2–4 (3 of 8)")
    assert explanation.masks["preserve"].words.startswith("Frames 2–4 (3 of 8) alone do not suffice")
    assert repr(explanation) == f"<ClipExplanation of {explanation.name!r}: 'pull right', 89.0 %>"


def test_text_has_guesses_strip_and_words(explanation):
    lines = explanation.text(60).splitlines()
    assert lines[0] == " 89.0 %  pull right"
    assert lines[4] == "frame      0   1   2   3   4   5   6   7"
    assert lines[5] == "needs    ▁▁▁ ▁▁▁ ███ ███ ███ ▁▁▁ ▁▁▁ ▁▁▁"
    assert lines[7].startswith("suffices ▁▁▁")
    assert lines[-2].startswith("Needs frames 2–4") and lines[-1].startswith("Frames 2–4")


def test_text_of_ascii_alone(explanation):
    text = explanation.text(60, unicode=False).replace("“", "").replace("”", "")
    assert text.encode("ascii") and "frames 2-4" in text


def test_the_gif_shows_all_frames(explanation, tmp_path):
    explanation.save_gif(tmp_path / "film.gif")
    assert iio.improps(tmp_path / "film.gif").shape[0] == 8


def test_notebooks_see_names_as_they_are(store):
    explained = report_for_tests.explain(store, "mine", "i3d")
    shown = clip_explanation.of_row({"delete": explained}, store, 0)._repr_html_()
    assert "&lt;push&gt; “left”" in shown and "<push>" not in shown
    assert 'src="data:image/gif;base64,R0lGOD' in shown and "<p>Needs frames 1–3" in shown


def test_json_holds_the_numbers(explanation, tmp_path):
    clip_explanation.write_json(tmp_path / "a.json", explanation)
    values = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert values["top"][0] == {"class": "pull right", "probability": pytest.approx(0.89)}
    assert values["masks"]["delete"]["snapped"] == [0, 0, 1, 1, 1, 0, 0, 0]
    assert values["header"]["model"] == "i3d" and "clips" not in values["header"]


def test_a_mask_is_learnt_for_each_game(store, tmp_path, monkeypatch):
    asked, build = [], ("make", "load")

    def run(settings, *parts):
        asked.append(settings)
        assert parts == build
        return report_for_tests.explain(store, "mine", "i3d"), store

    monkeypatch.setattr(clip_explanation.explanation_loop, "explain", run)
    settings = ExplainSettings(tmp_path / "run")
    found, clips = clip_explanation.explain(settings, ("preserve", "delete", "preserve"), build, tmp_path)
    assert [*found] == ["preserve", "delete"] and clips is store
    assert [one.mask.game for one in asked] == ["preserve", "delete"]
    assert [one.out.name for one in asked] == ["preserve.h5", "delete.h5"]
    assert dataclasses.replace(asked[0], mask=settings.mask, out=None) == settings


@pytest.mark.parametrize(
    ("games", "message"), [((), "at least one of delete, preserve"), (("keep",), "games must be one of .* 'keep'")]
)
def test_games_that_are_none_are_refused(games, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        clip_explanation.explain(ExplainSettings(tmp_path), games, None, tmp_path)
