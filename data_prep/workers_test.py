import cv2
import pytest

from common import errors
from data_prep import workers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_all_jobs_are_done_and_every_tick_is_counted(num_workers):
    ticks = []
    results = sorted(workers.run_jobs(_square, [1, 2, 3], num_workers, ticks.append))
    assert results == [1, 4, 9]
    assert sum(ticks) == 1 + 2 + 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_a_job_raises_comes_through(num_workers):
    with pytest.raises(errors.UserError, match="A number is positive. Received: 0"):
        list(workers.run_jobs(_square, [0, 5, 0], num_workers, lambda ticks: None))


def test_work_in_this_process_leaves_its_threads_and_its_messages_as_they_were():
    before = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()
    seen = list(workers.run_jobs(_opencv_messages, [None], 1, lambda ticks: None))
    assert (cv2.getNumThreads(), cv2.utils.logging.getLogLevel()) == before
    assert seen == [0] and before[1] > 0  # None while jobs run.


def test_no_jobs_give_no_results():
    assert list(workers.run_jobs(_square, [], 4, lambda ticks: None)) == []


def _opencv_messages(job, tick):
    return cv2.utils.logging.getLogLevel()


def _square(number, tick):
    if not number:
        raise errors.UserError("A number is positive. Received: 0")
    for _ in range(number):
        tick()
    return number * number
