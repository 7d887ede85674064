from common import text


def test_a_message_is_told_once(caplog):
    with caplog.at_level("INFO", logger="absl"):
        for _ in range(2):
            text.tell_once("Computing with NumPy")
    assert caplog.text.count("Computing with NumPy") == 1


def test_a_noun_agrees_with_its_number():
    assert [text.counted(number, "clip") for number in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]


def test_what_is_printed_stands_in_one_line():
    assert text.printable("a\nb\t\x1b[31m é\N{CLAPPER BOARD}\u2028\udcff") == (
        "a\\nb\\t\\x1b[31m é\N{CLAPPER BOARD}\\u2028\\udcff"
    )
