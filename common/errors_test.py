from common import errors


def test_a_message_is_one_line_of_a_readable_length():
    assert str(errors.UserError("one\n  line")) == "one line"
    assert str(errors.UserError("Received: a\x1b]0;title\x07\udcff…é")) == r"Received: a\x1b]0;title\x07\udcff…é"
    long = str(errors.UserError(f"X must be short. Received: {'x' * 5000}, in FILE"))
    assert len(long) < 1500 and long.startswith("X must be short.") and " … " in long and long.endswith("x, in FILE")


def test_the_first_line_that_says_what_happened():
    assert errors.first_line(ValueError("\nno such file\nat all")) == "no such file"
    assert errors.first_line(ValueError()) == "ValueError"
    keras = "Exception encountered when calling Conv3D.call().\n\n\x1b[1mNegative dimension\x1b[0m\n\nArguments"
    assert errors.first_line(ValueError(keras)) == "Negative dimension"
