import pytest

from common import errors
from common.clips import classes
from common.models import configs


def test_something_has_the_174_classes_of_appendix_b_in_order():
    names = classes.something_something_v2()
    assert len(names) == len(set(names)) == 174 == configs.PRESETS["i3d_something"].model.num_classes
    # The classes that the paper's figures give by number (A.2: "P: 157" and so on).
    assert names[0] == "Approaching something with your camera"
    assert names[37] == "Moving something and something closer to each other"
    assert names[160] == "Touching (without moving) part of something"
    assert names[173] == "Wiping something off of something"


def test_names_have_neither_brackets_nor_stray_blanks():
    for name in classes.something_something_v2() + classes.KTH:
        assert name == name.strip() and not set(name) & set("[]\t")


def test_kth_has_the_six_classes_of_appendix_c_in_order():
    assert classes.KTH == ("Boxing", "Handclapping", "Handwaving", "Jogging", "Running", "Walking")


@pytest.mark.parametrize("text", ["open\nput down\n", "\ufeffopen\r\nput down \r\n\r\n", "open\nput down"])
def test_names_of_ones_own_are_the_same_from_any_editor(tmp_path, text):
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert classes.read_names(tmp_path / "names.txt") == ("open", "put down")


@pytest.mark.parametrize("text", ["", "\n\n", "open\n\nclose", "open\nopen "])
def test_lists_with_gaps_and_repetitions_are_refused(tmp_path, text):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(errors.UserError, match="one class a line, all different. Received: "):
        classes.read_names(tmp_path / "names.txt")
