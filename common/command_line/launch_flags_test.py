import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from common import errors
from common.command_line import launch_flags
from common.launching import Launch


@pytest.fixture(autouse=True)
def parsed():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])


def test_workers_are_what_a_command_says_unless_they_are_given_or_ray_is():
    assert launch_flags.launch(3) == Launch(3)
    with flagsaver.flagsaver(workers=5, num_tasks=2, task=1):
        assert launch_flags.launch(3) == Launch(5, num_tasks=2, task=1)


def test_where_ray_is_not_installed_nothing_else_is_begun(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with flagsaver.flagsaver(ray="local"), pytest.raises(errors.UserError, match="ray must be installed for --ray"):
        launch_flags.launch(3)
