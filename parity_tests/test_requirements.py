"""The locks hold one version of everything, with hashes, and follow `setup.cfg` (requirements/lock.py)."""

import configparser
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def pins(path):
    """Returns (name, version) of each requirement of a lock."""
    return set(re.findall(r"^([\w.-]+)==([^\s;+]+)", path.read_text(), flags=re.M))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_each_lock_is_part_of_the_whole_and_has_a_hash_for_everything(path):
    blocks = re.split(r"^(?=\w)", path.read_text(), flags=re.M)[1:]

    assert blocks
    assert pins(path) <= pins(ROOT / "requirements.lock")
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)


def test_whatever_the_project_asks_for_is_locked():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    locked = {path.stem: {name for name, _ in pins(path)} for path in LOCKS}

    for extra in setup["options.extras_require"].keys() - {"tf-gpu"}:
        names = re.findall(r"^[\w-]+", (asked[""] + "\n" + asked[extra]).strip(), flags=re.M)
        assert {name.lower() for name in names} <= locked[extra]
