"""Units that are text files; several callers are several claims."""

import contextlib
import dataclasses
import errno
import pathlib
import shutil

import pytest

from common import locks, locks_test, units
from common.launching import HERE, Launch


@dataclasses.dataclass(frozen=True)
class Text:
    file: pathlib.Path
    size: int = 2


def texts(folder, count=4):
    return [Text(folder / f"{number}.txt") for number in range(count)]


def write(unit, tick):
    tick(1.5)  # A little less than its size.
    unit.file.write_text("made")
    return unit.file.name


def make(folder, launch=HERE, make_unit=write, count=4):
    amounts = []
    all_units = texts(folder, count)
    made = units.make(units.share(all_units, launch), make_unit, folder / "whole", launch, amounts.append)
    return made, sum(amounts)


def held(folder, number):
    return locks.exclusive(folder, units.claim(texts(folder)[number].file))


def test_units_that_are_missing_are_made_and_all_work_is_counted(tmp_path):
    (tmp_path / "1.txt").write_text("there")
    made, amount = make(tmp_path)
    assert made == {tmp_path / name: name for name in ("0.txt", "2.txt", "3.txt")} and amount == 3 * 2
    assert (tmp_path / "1.txt").read_text() == "there"
    units.check_all_there(texts(tmp_path), tmp_path / "whole")
    with pytest.raises(units.UnfinishedError, match="whole: 1 of 5 units left to other tasks"):
        units.check_all_there(texts(tmp_path, 5), tmp_path / "whole")
    assert units.amounts(texts(tmp_path, 6)) == {"total": 12, "initial": 8}
    assert len(list(tmp_path.iterdir())) == 4  # Claims are gone.


@pytest.mark.parametrize(("task", "numbers"), [(0, "036"), (1, "147"), (2, "25")])
def test_a_task_makes_its_share(tmp_path, task, numbers):
    made, amount = make(tmp_path, Launch(num_tasks=3, task=task), count=8)
    assert [path.stem for path in made] == list(numbers) and amount == 2 * len(numbers)


def test_a_task_without_a_share_makes_nothing(tmp_path):
    assert make(tmp_path, Launch(num_tasks=9, task=8)) == ({}, 0)


def test_a_task_leaves_to_others_what_they_are_making(tmp_path):
    with held(tmp_path, 2):
        made, amount = make(tmp_path, Launch(num_tasks=2, task=0))
    assert list(made) == [tmp_path / "0.txt"] and amount == 2


def test_a_call_that_is_no_task_waits_for_what_others_are_making(tmp_path, monkeypatch):
    with contextlib.ExitStack() as other:
        other.enter_context(held(tmp_path, 1))

        def sleep(seconds):
            assert [path.name for path in sorted(tmp_path.glob("*.txt"))] == ["0.txt", "2.txt", "3.txt"]
            (tmp_path / "1.txt").write_text("by the other")
            other.close()

        monkeypatch.setattr(units.time, "sleep", sleep)
        made, amount = make(tmp_path)
    assert len(made) == 3 and amount == 4 * 2
    assert (tmp_path / "1.txt").read_text() == "by the other"


def test_what_others_give_up_is_made_here(tmp_path, monkeypatch):
    with contextlib.ExitStack() as other:
        other.enter_context(held(tmp_path, 1))
        monkeypatch.setattr(units.time, "sleep", lambda seconds: other.close())
        made, amount = make(tmp_path)
    assert made.keys() == {text.file for text in texts(tmp_path)} and amount == 4 * 2


def test_units_whose_folder_was_removed_are_not_waited_for(tmp_path, monkeypatch):
    folder = tmp_path / "parts"
    folder.mkdir()
    removals = iter([shutil.rmtree])  # A second time there is nothing to wait for.
    monkeypatch.setattr(units.time, "sleep", lambda seconds: next(removals)(folder))
    with held(folder, 1), pytest.raises(FileNotFoundError, match="parts"):
        make(folder)


def test_the_claim_of_a_process_that_ended_is_nobodys(tmp_path):
    (tmp_path / ".1.txt.lock").write_text("{}")  # The system gave the lock itself back.
    assert len(make(tmp_path)[0]) == 4
    (tmp_path / ".1.txt.lock").write_text("{}")  # Killed between the two.
    units.remove_claims(texts(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4


def test_without_locks_claims_of_the_dead_are_taken_over_and_those_of_other_machines_left(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "absl")
    locks_test.without_locks(monkeypatch, errno.ENOLCK)
    (tmp_path / ".0.txt.lock").write_text(locks_test.claim())
    (tmp_path / ".2.txt.lock").write_text(locks_test.claim(host="elsewhere"))
    made, _ = make(tmp_path, Launch(num_tasks=2))
    assert list(made) == [tmp_path / "0.txt"]
    assert ".0.txt.lock is taken over: it was of process" in caplog.text
    assert "1 unit left to others: .2.txt.lock is of process" in caplog.text
    assert caplog.messages[-1].endswith("if that one has ended, remove .2.txt.lock")


def test_once_they_have_become_the_whole_nothing_is_left_to_do(tmp_path):
    def join(unit, tick):
        (tmp_path / "whole").touch()  # By another caller, which then removes the units and their folder.
        return write(unit, tick)

    made, amount = make(tmp_path, make_unit=join)
    assert list(made) == [tmp_path / "0.txt"] and amount == 4 * 2
    gone = [Text(tmp_path / "gone" / "0.txt")]
    assert units._attempt(write, tmp_path / "whole", gone[0], lambda amount: None).result is None
    with pytest.raises(FileNotFoundError):
        units._attempt(write, tmp_path / "nothing", gone[0], lambda amount: None)


def test_what_a_unit_raises_comes_through_and_gives_its_claim_back(tmp_path):
    def fail(unit, tick):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(tmp_path, make_unit=fail)
    assert not list(tmp_path.iterdir())
