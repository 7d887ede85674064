import pytest

from common import errors, locks


def test_a_second_holder_is_refused_until_the_first_is_done(tmp_path):
    with (
        locks.exclusive(tmp_path),
        pytest.raises(errors.UserError, match="written by one run at a time writes"),
        locks.exclusive(tmp_path),
    ):
        pass
    with locks.exclusive(tmp_path):
        pass


def test_an_error_inside_is_not_taken_for_a_held_lock(tmp_path):
    with pytest.raises(BlockingIOError), locks.exclusive(tmp_path):
        raise BlockingIOError
