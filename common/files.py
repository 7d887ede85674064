"""Files that are there whole or not at all, and JSON: strict, with a schema version and fields that readers check."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from common import errors

# For the types that describe a format, see `convert`.
Text = Annotated[str, msgspec.Meta(pattern=r"^[^\ud800-\udfff]*$")]  # Unicode; a path, `str`, may be any bytes.
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]

_MOST_BYTES = 32 << 20  # Of JSON; the largest that is written here, of 200,000 clips, has some 10 MiB.
_SHOWN = 200  # Letters of what is wrong, in a message.


@contextlib.contextmanager
def written_whole(path: pathlib.Path, durable: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary name beside `path`; the file written there takes its place when all went well.

    Args:
      path: of the file; replaced if it exists.
      durable: whether it is whole after a power cut, too.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file (UTF-8) whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def read_json(path: pathlib.Path, what: str, *schema_versions: int) -> dict[str, Any]:
    """Returns the object that a JSON file holds; see `convert` for its fields.

    Args:
      path: of the file.
      what: the file is, to begin a message with: "An evaluation".
      *schema_versions: of which one must be in the field "schema_version"; none for a file without versions.

    Raises:
      errors.UserError: for a file that cannot be read or is larger than 32 MiB, as `parse_json`, and for another
        schema version.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
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
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
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
    """Returns what came, for a message: its first letters, escaped if a terminal could take some for commands."""
    text = str(value)[:_SHOWN]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


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
