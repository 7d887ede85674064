"""Units of long work: each is a pure function of what it names, and ends in one file that is whole or not there.

So it does not matter who makes a unit, and when: this process, its workers, a task of an array job on another machine,
or a Ray task (`launching`). Callers that work for the same files at the same time share the units among them: the one
that makes a unit holds its claim, a lock file beside the unit's file, which the system gives back when the process
ends, however it ends. A unit whose maker was killed is made again by the next caller that comes to it.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from absl import logging

from common import launching, locks, text
from common.launching import Launch, Tick

_POLL = 1.0  # Seconds between looks at what others make.


class Unit(Protocol):
    """What is to be made; picklable."""

    @property
    def file(self) -> pathlib.Path:
        """The file that it ends in."""

    @property
    def size(self) -> int:
        """Amount of work in it, for the bar."""


class UnfinishedError(Exception):
    """Units are left to other tasks of an array job; the last of these puts the whole together."""


UnitT = TypeVar("UnitT", bound=Unit)
ResultT = TypeVar("ResultT")


@dataclasses.dataclass(frozen=True)
class _Outcome(Generic[UnitT, ResultT]):
    """How a unit ended.

    Attributes:
      unit: what was to be made.
      result: of making it; None where another process makes it or has made it.
      held: what its claim says, where another process makes it.
    """

    unit: UnitT
    result: ResultT | None = None
    held: str = ""


def share(units: Sequence[UnitT], launch: Launch) -> list[UnitT]:
    """Returns the units that this call makes: all, or, as task i of K, those whose number is i modulo K."""
    return list(units[launch.task :: launch.num_tasks or 1])


def make(
    units: Sequence[UnitT],
    make_unit: Callable[[UnitT, Tick], ResultT],
    whole: pathlib.Path,
    launch: Launch,
    advance: Callable[[float], object],
) -> dict[pathlib.Path, ResultT]:
    """Makes those of the units that are missing.

    All are there when it returns; but a task of an array job leaves to others what these are making, and ends.

    Args:
      units: see `share`.
      make_unit: makes a unit's file, and calls `tick` with the work it has done; see `launching.run`.
      whole: file that the units become; where it is there, another caller has put it together, and nothing is left to
        do.
      launch: where.
      advance: called with the work that was done since, by any process: in all, the size of what is missing now.

    Returns:
      File -> result, of the units made by this call.
    """
    results: dict[pathlib.Path, ResultT] = {}
    missing = [unit for unit in units if not unit.file.exists()]
    while missing and not whole.exists():
        held = []
        for outcome in launching.run(functools.partial(_attempt, make_unit, whole), missing, launch, advance):
            if outcome.held:
                held.append(outcome)
            elif outcome.result is not None:
                results[outcome.unit.file] = outcome.result
        if not held:
            break
        logging.info("%s left to others: %s", text.counted(len(held), "unit"), held[0].held)
        if launch.num_tasks:
            break
        missing = _given_up([outcome.unit for outcome in held], whole, advance)
    return results


def _given_up(held: list[UnitT], whole: pathlib.Path, advance: Callable[[float], object]) -> list[UnitT]:
    """Waits for units that others hold; returns those that these gave up without having made them.

    It returns as soon as there is one, with all that are still missing, and with none when all have been made.
    """
    while True:
        made = [unit for unit in held if unit.file.exists() or whole.exists()]
        advance(sum(unit.size for unit in made))
        held = [unit for unit in held if unit not in made]
        if not held or any(map(_is_free, held)):
            return held
        time.sleep(_POLL)


def _is_free(unit: Unit) -> bool:
    """Returns whether no process makes a unit; True where its folder is gone, so that the next attempt raises."""
    try:
        with locks.exclusive(unit.file.parent, claim(unit.file)):
            return True
    except FileNotFoundError:
        return True
    except locks.HeldError:
        return False


def amounts(units: Sequence[Unit]) -> dict[str, Any]:
    """Returns "total" and "initial" for `progress.bar`: how much work is in units, and in those that are there."""
    return {
        "total": sum(unit.size for unit in units),
        "initial": sum(unit.size for unit in units if unit.file.exists()),
    }


def check_all_there(units: Sequence[Unit], whole: pathlib.Path) -> None:
    """Raises `UnfinishedError` unless every unit has been made."""
    missing = sum(not unit.file.exists() for unit in units)
    if missing:
        raise UnfinishedError(f"{whole}: {missing} of {text.counted(len(units), 'unit')} left to other tasks.")


def remove_claims(units: Sequence[Unit]) -> None:
    """Removes the claims that killed callers left; for one who knows that all units are there."""
    for unit in units:
        (unit.file.parent / claim(unit.file)).unlink(missing_ok=True)


def claim(file: pathlib.Path) -> str:
    """Returns the name of the claim of a unit, beside its file."""
    return f".{file.name}.lock"


def _attempt(
    make_unit: Callable[[UnitT, Tick], ResultT], whole: pathlib.Path, unit: UnitT, tick: Tick
) -> _Outcome[UnitT, ResultT]:
    """Makes a unit, unless another process does or has done so."""
    done = 0.0

    def counted(amount: float) -> None:
        nonlocal done
        done += amount
        tick(amount)

    result = None
    try:
        with locks.exclusive(unit.file.parent, claim(unit.file)):
            if not unit.file.exists() and not whole.exists():
                result = make_unit(unit, counted)
    except locks.HeldError as error:
        return _Outcome(unit, held=error.holder)
    except FileNotFoundError:
        if not whole.exists():  # Else the folder went when its units had become that.
            raise
    tick(unit.size - done)
    return _Outcome(unit, result)
