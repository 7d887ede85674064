from common import errors


def test_a_message_is_one_line_of_a_readable_length():
    assert str(errors.UserError("one\n  line")) == "one line"
    long = str(errors.UserError(f"X must be short. Received: {'x' * 5000}, in FILE"))
    assert len(long) < 1500 and long.startswith("X must be short.") and " … " in long and long.endswith("x, in FILE")
