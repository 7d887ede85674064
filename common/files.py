"""Files that are there whole or not at all, and JSON: strict, with a schema version that readers check."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from common import errors


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


def read_json(path: pathlib.Path, what: str, schema_version: int | None = None) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Args:
      path: of the file.
      what: the file is, to begin a message with: "An evaluation".
      schema_version: that the field "schema_version" must have; None for a file without versions.

    Raises:
      errors.UserError: for a file that cannot be read, is no JSON (NaN is none), or has another schema version.
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


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
