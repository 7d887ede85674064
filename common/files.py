"""Files that are there whole or not at all, and JSON: strict, with a schema version and fields that readers check.

Commands write where their flags say, and a path in a flag may lead through links. Below it they write through none, so
that nobody who can write to the same folder can lead them to another file.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from common import errors, locks

Kind = Literal["a text", "a number", "a number or null", "a whole number", "a list", "an object"]


def _is_number(value: Any) -> bool:
    """Returns whether a value is a number that float64 holds; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_KINDS: dict[Kind, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a number": _is_number,
    "a number or null": lambda value: value is None or _is_number(value),
    "a whole number": lambda value: isinstance(value, int) and _is_number(value),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
}
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_SHOWN = 100  # Letters of a wrong value in a message.
_MISSING = object()


@contextlib.contextmanager
def written_whole(path: pathlib.Path, durable: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary file beside `path`, empty, to be written by name; it takes its place when all went well.

    Its name cannot be guessed, so that no link can wait there, and it is locked until it is whole. What killed
    processes left in the folder is removed first.

    Args:
      path: of the file; replaced if it exists, a link too.
      durable: whether it is whole after a power cut, too.

    Raises:
      OSError: where it cannot be written, or another process has replaced the temporary file.
    """
    remove_leftovers(path.parent)
    with _named_in_errors(path):
        temporary, descriptor = _create_temporary(path.parent)
        try:
            yield temporary
            if durable:
                os.fsync(descriptor)
            if not locks.is_named(descriptor, temporary):
                raise OSError(errno.EEXIST, "Another file took the place of the temporary one", str(path))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes the temporary files that killed processes left in a folder.

    They are those whose lock is free. Where a file system has no locks, nothing tells them from files that are being
    written, and they stay.

    Args:
      folder: whose files are looked at, not those of folders in it.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
        for path in found:
            with contextlib.suppress(OSError):  # A link, another user's, or gone by now.
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if locks.take(descriptor):
                        os.unlink(path)
                finally:
                    os.close(descriptor)


@contextlib.contextmanager
def _named_in_errors(path: pathlib.Path) -> Iterator[None]:
    """Puts the name that a user knows into errors that have none, or a temporary one."""
    try:
        yield
    except OSError as error:
        temporary = _TEMPORARY.fullmatch(pathlib.Path(str(error.filename)).name)
        if error.errno is not None and (error.filename is None or temporary):
            error.filename = str(path)
        raise


def _create_temporary(folder: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Returns path and descriptor of a new file, locked where there are locks."""
    while True:
        temporary = folder / f".{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            taken = locks.take(descriptor)
        except OSError:
            temporary.unlink()
            os.close(descriptor)
            raise
        if taken is not False and locks.is_named(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)  # Before it was locked here, another process took it for a leftover.


def write_bytes(path: pathlib.Path, data: bytes | memoryview, durable: bool = False) -> None:
    """Writes a file whole or not at all.

    Args:
      path: of the file; replaced if it exists.
      data: all of it.
      durable: whether it is whole after a power cut, too.
    """
    with written_whole(path, durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file (UTF-8) whole or not at all."""
    write_bytes(path, text.encode())


def append_text(path: pathlib.Path, text: str) -> None:
    """Adds text (UTF-8) at the end of a file, which is made if it is not there, and must be no link."""
    with _named_in_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(text)


def refuse_link(path: pathlib.Path) -> None:
    """Refuses a folder to write into that is a link, below a folder that a flag names.

    Raises:
      errors.UserError: for a link, wherever it leads.
    """
    if path.is_symlink():
        raise errors.UserError(
            f"A folder that a command writes into must not be a link. Received: {path}, a link to {path.readlink()}"
        )


def write_json(path: pathlib.Path, values: Any, ensure_ascii: bool = True) -> None:
    """Writes a JSON file whole or not at all.

    Args:
      path: of the file; replaced if it exists.
      values: what JSON can hold.
      ensure_ascii: whether other characters than ASCII's are written as escapes.

    Raises:
      ValueError: for NaN and infinities, which are no JSON.
    """
    write_text(path, json.dumps(values, indent=1, ensure_ascii=ensure_ascii, allow_nan=False) + "\n")


def read_json(path: pathlib.Path, what: str, schema_version: int | None = None) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Args:
      path: of the file.
      what: the file is, to begin a message with: "An evaluation".
      schema_version: that the field "schema_version" must have; None for a file without versions.

    Raises:
      errors.UserError: for a file that cannot be read, is not valid JSON (NaN is not), or has another schema version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError) as error:
        raise errors.UserError(f"{what} must be a readable JSON file. Received: {path}: {error}") from None
    if not isinstance(values, dict):
        raise errors.UserError(f"{what} must be a JSON object. Received: a {type(values).__name__} in {path}")
    version = values.get("schema_version")
    if schema_version is not None and version != schema_version:
        raise errors.UserError(f"{what} must have schema version {schema_version}. Received: {version} in {path}")
    return values


def check_fields(values: dict[str, Any], fields: Mapping[str, Kind], what: str, path: pathlib.Path) -> None:
    """Refuses an object that lacks a field, or has it with another type; further fields may be there.

    Args:
      values: the object.
      fields: path of a field -> its type. A path's parts are separated by "/"; the part "*" stands for every value of
        an object or list, even if there is none.
      what: the file is, to begin a message with: "An evaluation".
      path: of the file.

    Raises:
      errors.UserError: for the first field that is not as it must be, by its name.
    """
    for field, kind in fields.items():
        for name, value in _find(values, field.split("/"), ()):
            if value is _MISSING or not _KINDS[kind](value):
                received = "nothing" if value is _MISSING else repr(value)[:_SHOWN]
                raise errors.UserError(f"{what} must have {kind} as {name}. Received: {received} in {path}")


def _find(value: Any, parts: list[str], name: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    """Yields the name and value of every field that a path stands for; `_MISSING` where there is none."""
    if not parts:
        yield "/".join(name), value
        return
    here = dict(enumerate(value)) if isinstance(value, list) else value if isinstance(value, dict) else None
    if here is None:
        yield "/".join([*name, *parts]), _MISSING
    elif parts[0] == "*":
        for key, child in here.items():
            yield from _find(child, parts[1:], (*name, str(key)))
    else:
        yield from _find(here.get(parts[0], _MISSING), parts[1:], (*name, parts[0]))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def stored_path(path: pathlib.Path, folder: pathlib.Path) -> str:
    """Returns how a file in `folder` names a path: relative to that folder where this is shorter, else absolute.

    So it is found again from any working directory, and after both were moved together.
    """
    absolute = path.resolve()
    return min(os.path.relpath(absolute, folder.resolve()), str(absolute), key=len)


def found_path(stored: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path that a file in `folder` names (see `stored_path`).

    Files of earlier versions name paths relative to the working directory; these count where the folder has no such.
    """
    beside = folder / stored  # An absolute path stays as it is.
    return beside if beside.exists() or not pathlib.Path(stored).exists() else pathlib.Path(stored)
