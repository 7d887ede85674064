from common.text_table import text_table


def test_first_column_is_left_and_the_others_are_right():
    assert text_table([("name", "n"), ("a", "10"), ("longer", "1")]) == "name     n\na       10\nlonger   1"
