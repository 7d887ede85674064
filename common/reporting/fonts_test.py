import pathlib

import pytest

from common.reporting import drawing, fonts

PLAIN, BOLD = pathlib.Path("/fonts/Plain.ttf"), pathlib.Path("/fonts/Plain-Bold.ttf")


@pytest.fixture
def system(monkeypatch):
    """Makes the system's fonts what a test says: file -> letters."""

    own = fonts._has

    def use(letters):
        for cached in (fonts._fitting, fonts._warn):
            cached.cache_clear()
        monkeypatch.setattr(fonts, "_system_fonts", lambda: tuple(letters))
        monkeypatch.setattr(fonts, "_has", lambda path, letter: letter in letters[path] if path else own(None, letter))

    yield use
    fonts._fitting.cache_clear()


def test_ascii_is_drawn_by_the_font_that_comes_with_pillow():
    assert fonts.fitting("Moving [something] up") == ("Moving [something] up", None)


def test_the_first_font_that_has_every_letter_is_taken(system):
    system({BOLD: "Под", PLAIN: "Поднять"})
    assert fonts.fitting("Поднять") == ("Поднять", PLAIN)


def test_letters_that_no_font_has_become_the_closest_with_one_warning(system, caplog):
    system({BOLD: "動", PLAIN: "動作"})
    assert fonts.fitting("動作") == ("動作", PLAIN)
    assert fonts.fitting("動作 Подъём") == ("動作 Pod'em", PLAIN)
    system({})
    assert fonts.fitting("動作 – vänster, höger, ø") == ("DongZuo - vanster, hoger, o", None)
    assert [record.message[:8] for record in caplog.records] == ["Figures:", "Figures:"]  # One for each system.


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\tb", "a\udcffb", "a\u202eb"])
def test_what_is_not_to_be_seen_is_a_blank(text):
    assert fonts.fitting(text) == ("a b", None)


def test_a_letter_that_pillow_lacks_is_noticed():
    assert fonts._has(None, "a") and not fonts._has(None, "動")
    assert not fonts._has(pathlib.Path("/nowhere.ttf"), "a")


def test_any_name_is_drawn_with_ink(system):
    system({})
    for text in ("動作", "Größe", "🎉", "\u0301", "x" * 300):
        assert drawing.text(text, 200, 12, drawing.INK).min() < 255
