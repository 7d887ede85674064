"""The same store, byte for byte, from two tasks of which one is killed, and from Ray."""

import dataclasses
import signal

import pytest

from common.launching import Launch
from data_prep import building, videos_for_tests
from data_prep.interruption_test import started, wait

SIZES = {f"{split}/a/{n}.avi": 4 + n for split in ("train", "validation") for n in range(3)}


@pytest.fixture
def config(tmp_path):
    """A config of six shards, of which a whole store lies in the folder beside."""
    config = videos_for_tests.folder_config(tmp_path, SIZES)
    assert building.prepare(dataclasses.replace(config, out=tmp_path / "whole")) == 0
    return config


def prepare(config, **launch):
    return building.prepare(dataclasses.replace(config, launch=Launch(**launch)))


def assert_whole(config):
    assert videos_for_tests.contents(config.out) == videos_for_tests.contents(config.out.with_name("whole"))


def test_two_tasks_make_the_same_store_and_the_last_one_finishes_it(config):
    assert prepare(config, num_tasks=2, task=0) == 0
    numbers = (("train", 0), ("train", 2), ("validation", 1))
    assert {path.name for path in config.out.iterdir()} == {f"{split}-0000{n}-of-00003.h5" for split, n in numbers}
    assert prepare(config, num_tasks=2, task=1) == 0
    assert_whole(config)
    assert prepare(config, num_tasks=2, task=0) == 0  # It is there already.
    assert_whole(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_makes_the_same_store(config):
    pytest.importorskip("ray")
    assert prepare(config, ray="local") == 0
    assert_whole(config)


def test_a_task_that_is_killed_and_run_again(config):
    assert prepare(config, num_tasks=2, task=1) == 0
    task = dataclasses.replace(config, launch=Launch(num_tasks=2, task=0))
    with started(task, hold_at=4) as process:  # Three of the other task, and the first one of this.
        wait(lambda: (config.out / ".train-00002-of-00003.h5.lock").exists(), process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (config.out / "dataset.json").exists()
    assert prepare(config, num_tasks=2, task=0) == 0
    assert_whole(config)
