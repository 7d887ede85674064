"""Files that are there whole or not at all, and JSON: strict, with a schema version and fields that readers check.

Commands write where their flags say, and a path in a flag may lead through links. Below it they write through none, so
that nobody who can write to the same folder can lead them to another file.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import re
import secrets
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from common import errors, locks

# For the types that describe a format, see `convert`.
Text = Annotated[str, msgspec.Meta(pattern=r"^[^\ud800-\udfff]*$")]  # Unicode; a path, `str`, may be any bytes.
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]  # SHA-256, in hex.

Place = pathlib.Path | str  # A folder; or the URL of one, as text.

MOST_BYTES = 32 << 20  # Of JSON; the largest that is written here, of 200,000 clips, has some 10 MiB.
_HASH_BLOCK = 1 << 20  # bytes
_SHOWN = 200  # Letters of what is wrong, in a message.
_WORK = "interpreting-video-features-"  # Begins the name of a work folder.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


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
            del error.filename2  # Of a rename, the same name again.
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


@contextlib.contextmanager
def folder_beside(path: pathlib.Path, flag: str) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside a folder that is to be made, on the same disk, and holds that against others.

    It is removed at the end, as are those that killed calls left.

    Args:
      path: of the folder to be made; its parents are made.
      flag: that named it, for a message.

    Raises:
      errors.UserError: where the parents cannot be made, or another process makes the folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.UserError(f"{flag} must be a folder that can be made. Received: {path}: {error}") from None
    ours = re.compile(rf"\.{re.escape(path.name)}\.\w{{8}}\.tmp")
    with locks.exclusive(path.parent, f".{path.name}.lock"):  # So whatever has such a name is nobody's.
        for left in [left for left in path.parent.iterdir() if ours.fullmatch(left.name)]:
            shutil.rmtree(left, ignore_errors=True)  # Follows no link.
        temporary = pathlib.Path(tempfile.mkdtemp(".tmp", f".{path.name}.", path.parent))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def work_folder() -> Iterator[pathlib.Path]:
    """Yields an empty folder among the system's temporary files, which is removed at the end of the block.

    Those that killed processes left are removed first: they are the ones that nobody has locked. On a disk where
    folders have no locks (NFS), they stay.
    """
    for left in pathlib.Path(tempfile.gettempdir()).glob(f"{_WORK}*"):
        # What cannot be opened is a link, another user's, or gone by now.
        with contextlib.suppress(OSError), _opened_folder(left) as descriptor:
            if locks.take(descriptor):
                shutil.rmtree(left, ignore_errors=True)
    made = pathlib.Path(tempfile.mkdtemp())
    with _opened_folder(made) as descriptor:
        locks.take(descriptor)
        folder = made.rename(made.with_name(f"{_WORK}{made.name}"))  # Not before it is locked.
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened_folder(path: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
    """Adds text (UTF-8) at the end of a file, which is made if it is not there, and must be no link.

    Bytes of a path that are no UTF-8, half characters in Python's text, are written as escapes.
    """
    with _named_in_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with open(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
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


def check_there(path: pathlib.Path, rule: str) -> None:
    """Refuses a folder without one of its files, or what is no folder.

    Args:
      path: of the file.
      rule: that is broken, to begin the message with: a sentence that says who makes such folders.
    """
    if not path.exists():
        came = "without it" if path.parent.is_dir() else "which is no folder"
        raise errors.UserError(f"{rule} Received: {path.parent}, {came}")


def read_json(path: pathlib.Path, what: str, *schema_versions: int) -> dict[str, Any]:
    """Returns the object that a JSON file holds; see `convert` for its fields.

    Args:
      path: of the file.
      what: the file is, to begin a message with: "An evaluation".
      *schema_versions: allowed in the field "schema_version"; none for a file without versions.

    Raises:
      errors.UserError: for a file that cannot be read or is larger than 32 MiB, as `parse_json`, and for another
        schema version.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise errors.UserError(f"{what} must be a readable JSON file. Received: {path}: {error}") from None
    values = parse_json(data, what, path)
    if schema_versions:
        check_schema_version(values, what, path, *schema_versions)
    return values


def check_schema_version(values: dict[str, Any], what: str, origin: object, *known: int) -> None:
    """Refuses values whose "schema_version" is none of those known."""
    version = values.get("schema_version")
    if type(version) is not int or version not in known:
        rule = " or ".join(map(str, known))
        raise errors.UserError(f"{what} must have schema version {rule}. Received: {_shown(version)} in {origin}")


def parse_json(text: bytes | str, what: str, origin: object, infinity: bool = False) -> dict[str, Any]:
    """Returns the object that JSON text holds, whose numbers are finite and fit int64 or float64.

    Args:
      text: UTF-8, or text.
      what: it is, to begin a message with.
      origin: where it comes from, to end a message with.
      infinity: whether Infinity, which Python writes and JSON does not have, is taken.

    Raises:
      errors.UserError: for text that is not valid JSON (NaN is not), too large or too deep, a number that is too large,
        a key that an object has twice, and for any value but an object.
    """

    def constant(name: str) -> float:
        if infinity and name == "Infinity":
            return math.inf
        raise ValueError(f"{name} is no JSON")

    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
        values = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=constant,
        )
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"{what} must be a readable JSON file. Received: {origin}: {_shown(error)}") from None
    if not isinstance(values, dict):
        raise errors.UserError(f"{what} must be a JSON object. Received: a {type(values).__name__} in {origin}")
    return values


def convert(values: Any, kind: Any, what: str, origin: object, at: str = "$") -> Any:
    """Returns what was read as the type that describes its format; nothing is converted that JSON tells apart.

    Args:
      values: what JSON or a header held.
      kind: a dataclass or TypedDict; bounds are `msgspec.Meta` in its annotations, or checked by `__post_init__`.
      what: it is, to begin a message with: "An evaluation".
      origin: where it comes from, to end a message with.
      at: path of the values in the file, "$" for all of it.

    Raises:
      errors.UserError: for a field that is missing, unknown, of another type or out of its bounds, by its path.
    """
    try:
        found = msgspec.convert(values, kind, strict=True)
        unknown = next(_unknown(values, msgspec.to_builtins(found), at), None)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:  # The last: of a surrogate.
        fault = str(error).replace(" - at ", " at ").replace("`$", f"`{at}")
        raise errors.UserError(
            f"{what} must have the fields of its format. Received: {_shown(fault)} in {origin}"
        ) from None
    except errors.UserError as error:
        raise errors.UserError(f"{error!s:.400} in {origin}") from None
    if unknown:
        raise errors.UserError(
            f"{what} must have the fields of its format. Received: unknown field `{_shown(unknown)}` in {origin}"
        )
    return found


def _unknown(values: Any, known: Any, at: str) -> Iterator[str]:
    """Yields the paths of fields that a type does not have: msgspec leaves them out of dataclasses and TypedDicts."""
    if isinstance(values, dict):
        for name, value in values.items():
            if name in known:
                yield from _unknown(value, known[name], f"{at}.{name}")
            else:
                yield f"{at}.{name}"
    elif isinstance(values, list):
        for number, pair in enumerate(zip(values, known, strict=True)):
            yield from _unknown(*pair, f"{at}[{number}]")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:  # Python would take a second for a million digits.
        raise ValueError(f"{digits[:24]} is no number of int64")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:24]} is no number of float64")
    return value


def _shown(value: object) -> str:
    """Returns what came, for a message: its first letters."""
    return str(value)[:_SHOWN]


def sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def place(text: str) -> Place:
    """Returns what a flag names: a URL, which has "://" in it, or a folder.

    Raises:
      errors.UserError: for a URL with a password, which would be written into files, and one with a query, to which no
        file name can be added.
    """
    if not is_url(text):
        return pathlib.Path(text)
    try:
        parts = urllib.parse.urlsplit(text)
        secret, more = parts.password is not None, parts.query or parts.fragment
    except ValueError as error:
        raise errors.UserError(f"A URL must be readable. Received: {text}: {error}") from None
    if secret or more:
        came = "a password" if secret else f"{more!r:.100} at its end"
        raise errors.UserError(f"A URL must name a folder, without password, ? and #. Received: one with {came}")
    return text.rstrip("/")


def is_url(text: str) -> bool:
    """Returns whether text is a URL; in a path that was normalised there are no two slashes in a row."""
    return "://" in text


def stored_path(path: Place, folder: pathlib.Path) -> str:
    """Returns how a file in `folder` names a path: relative to that folder where this is shorter, else absolute.

    So it is found again from any working directory, and after both were moved together. A URL is named as it is.
    """
    if isinstance(path, str):
        return path
    absolute = path.resolve()
    return min(os.path.relpath(absolute, folder.resolve()), str(absolute), key=len)


def found_path(stored: str, folder: pathlib.Path) -> Place:
    """Returns the path that a file in `folder` names (see `stored_path`).

    Files of earlier versions name paths relative to the working directory; these count where the folder has no such.
    """
    if is_url(stored):
        return place(stored)
    beside = folder / stored  # An absolute path stays as it is.
    return beside if beside.exists() or not pathlib.Path(stored).exists() else pathlib.Path(stored)
