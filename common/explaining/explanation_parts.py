"""The parts that an explanations file is made in: what makes `explanation_loop` a loop that can be stopped and shared.

A file OUT is made in the folder `OUT.parts/`. `plan.json` there names the settings and clips of OUT, and how many
clips a part has; each part is the explanations file of its clips, `000000.h5`, `000001.h5`, … The plan outlives a
call that was killed, so that the next one goes on with the same parts. Once all are there they are joined to OUT and
removed.
"""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np
from absl import logging

from common import errors, files, locks, units
from common.clips.clip_store import ClipStore
from common.explaining import explanations
from common.explaining.explanations import Explanations
from common.explaining.masks import MaskConfig

_PART = re.compile(r"\d{6}\.h5|\.\d{6}\.h5\.lock")  # Or its claim.


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One unit (see `units`): clips that are explained together.

    Attributes:
      file: to make.
      indices: of the clips in their store, int [n].
      header: of the file.
    """

    file: pathlib.Path
    indices: np.ndarray
    header: dict[str, Any]

    @property
    def size(self) -> int:
        """Number of clips."""
        return len(self.indices)


class _Plan(TypedDict):
    """`plan.json`; the fields of `header` are read by `explanations`."""

    header: dict[str, Any]
    video_ids: list[files.Text]
    batch_size: files.Positive


def read_plan(path: pathlib.Path) -> dict[str, Any]:
    """Returns what `plan.json` holds: header (see `explanations`), video_ids and batch_size."""
    what = "The plan of parts"
    plan = files.read_json(path, what)
    files.convert(plan, _Plan, what, path)
    return {**plan, "header": explanations.read_header(plan["header"], path)}


class Parts:
    """The parts of one explanations file, planned, joined and removed.

    Args:
      out: the file.
      header: that it is to have (see `explanations`).
      store: of the clips.
      chosen: indices of the clips to explain, int [n].

    Attributes:
      all: the parts in the order of their clips; [] before `plan`.
    """

    def __init__(self, out: pathlib.Path, header: dict[str, Any], store: ClipStore, chosen: np.ndarray) -> None:
        self._out, self._header, self._chosen = out, header, chosen
        self._video_ids = [store.video_ids[index] for index in chosen]
        self._folder = out.with_name(f"{out.name}.parts")
        self._plan_file = self._folder / "plan.json"
        self._lock = f".{out.name}.lock"
        self.all: list[Part] = []

    def locked(self) -> contextlib.AbstractContextManager[object]:
        """Keeps other calls from planning, joining and removing; waits for one that does."""
        return locks.exclusive(self._out.parent, self._lock, wait=True)

    def are_joined(self) -> bool:
        """Returns whether the file is all there is: nothing tells of a call that is at work, or was killed."""
        return self._out.exists() and not self._folder.exists() and not (self._out.parent / self._lock).exists()

    def read_whole(self) -> Explanations:
        """Returns the file that is there.

        Raises:
          errors.UserError: for one of other settings or clips.
        """
        found = explanations.read(self._out)
        check_same_settings(self._out, self._header, found.header)
        if list(found["video_id"]) != self._video_ids:
            raise errors.UserError(
                f"--out must be a new file, or one of the same clips. Received: {self._out} with other clips"
            )
        logging.info("%s is there already, with these settings.", self._out)
        return found

    def discard_others(self) -> None:
        """Removes file and parts that are of other clips or settings, or cannot be read."""
        if not (self._out.exists() or self._folder.exists()):
            return
        files.refuse_link(self._folder)
        with self.locked():
            if self._out.exists() and not _accepts(self.read_whole):
                logging.info("%s is of other clips or settings, and is replaced.", self._out)
                self._out.unlink()
            if self._plan_file.exists() and not _accepts(self._read_own_plan):
                for claim in self._folder.glob(".*.lock"):
                    with locks.exclusive(self._folder, claim.name):  # Refuses if another process makes it now.
                        pass
                logging.info("%s holds parts of other clips or settings, which are removed.", self._folder)
                self._clear()

    def make_place(self) -> None:
        """Makes the folder that file and parts are to lie in, and refuses a link in the place of the parts."""
        files.refuse_link(self._folder)
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(f"--out must be a file that can be made. Received: {self._out}: {error}") from None

    def plan(self, batch_size: int) -> None:
        """Cuts the clips into parts: as a plan says that is there already, or anew.

        Args:
          batch_size: clips of a part, where there is no plan yet.

        Raises:
          errors.UserError: for a plan of other clips or settings.
        """
        header = self._header
        if self._plan_file.exists():
            # Free memory may differ now; what is computed together stays together, so that every bit stays.
            found = self._read_own_plan()
            header, batch_size = found["header"], found["batch_size"]
        else:
            self._folder.mkdir(exist_ok=True)
            plan = {"header": header, "video_ids": self._video_ids, "batch_size": batch_size}
            files.write_json(self._plan_file, plan)
        starts = range(0, len(self._chosen), batch_size)
        self.all = [
            Part(self._folder / f"{number:06d}.h5", self._chosen[start : start + batch_size], header)
            for number, start in enumerate(starts)
        ]

    def withdraw(self) -> None:
        """Removes the plan if nothing came of it: what was refused leaves nothing that other settings would clash with.

        Parts that are there stay, with the plan, and so does what another process is at work on.
        """
        with self.locked():
            if not self._folder.exists() or any(path.suffix == ".h5" for path in self._folder.iterdir()):
                return
            try:
                for claim in self._folder.glob(".*.lock"):
                    with locks.exclusive(self._folder, claim.name):
                        pass
            except locks.HeldError:
                return
            self._clear()

    def join(self) -> Explanations:
        """Returns the whole file, made of its parts unless it is there, and removes the parts.

        Raises:
          units.UnfinishedError: where parts are missing.
        """
        if self._out.exists():  # Joined by another call, or by one that was killed before it had removed the parts.
            whole = self.read_whole()
        else:
            units.check_all_there(self.all, self._out)
            whole = explanations.concatenate([explanations.read(part.file) for part in self.all])
            explanations.write(self._out, whole, durable=True)  # The parts are about to be removed.
        self._remove(whole.header)
        return whole

    def _read_own_plan(self) -> dict[str, Any]:
        """Returns the plan that is there; refuses one of other clips or settings."""
        found = read_plan(self._plan_file)
        ours = {**self._header, "video_ids": self._video_ids}
        check_same_settings(self._folder, ours, {**found["header"], "video_ids": found["video_ids"]})
        return found

    def _remove(self, header: Mapping[str, Any]) -> None:
        """Removes the parts of the file that has this header, which is whole; all else in their folder stays."""
        if not self._folder.exists():
            return
        if self._plan_file.exists() and read_plan(self._plan_file)["header"] != header:
            return
        self._clear()

    def _clear(self) -> None:
        files.remove_leftovers(self._folder)
        for path in self._folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink()
        self._plan_file.unlink(missing_ok=True)  # After the parts: it says which clips each holds.
        if any(self._folder.iterdir()):
            logging.warning("%s holds files that are no parts, and stays.", self._folder)
        else:
            self._folder.rmdir()


def check_same_settings(place: pathlib.Path, header: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuses explanations that were made with other settings, or of other clips or weights.

    Args:
      place: file or folder that they lie in.
      header: that they should have.
      found: header that they have, perhaps by an earlier version of this project.
    """
    # Clips are the same wherever they lie; files of earlier versions say only where.
    by_digest = "clips_digest" in header and "clips_digest" in found
    ours, theirs = (_comparable(values, place.parent, by_digest) for values in (header, found))
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if different:
        raise errors.UserError(
            f"--out must be a new file, or one of the same settings. Received: {place}, which differs in "
            f"{', '.join(different)}; give another --out, or --overwrite"
        )


def _comparable(header: Mapping[str, Any], folder: pathlib.Path, by_digest: bool) -> dict[str, Any]:
    """Returns what a header is compared by: its clips by their digest, or by where they lie as seen from a folder."""
    compared = {
        name: value for name, value in header.items() if name not in ("clips_digest", "schema_version", "source")
    }
    # Settings that files of earlier versions did not have yet were what is the default now.
    compared["mask"] = {**dataclasses.asdict(MaskConfig()), **header["mask"]}
    clips = header["clips_digest"] if by_digest else files.found_path(header["clips"], folder)
    compared["clips"] = clips.resolve() if isinstance(clips, pathlib.Path) else clips
    return compared


def _accepts(check: Callable[[], object]) -> bool:
    """Returns whether a check refuses nothing."""
    try:
        check()
    except errors.UserError:
        return False
    return True
