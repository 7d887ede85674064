from common import text


def test_a_noun_agrees_with_its_number():
    assert [text.counted(number, "clip") for number in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
