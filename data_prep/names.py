"""Names of files and folders as text in a clip store.

A name on disk may hold any bytes but "/" and NUL: newlines, and bytes that are not UTF-8. A clip store holds Unicode
text, and its ids can be used as file names.
"""

import collections
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence

MAX_ID = 200  # bytes in UTF-8; most file systems end a name at 255
FORBIDDEN_IN_ID = re.compile(r"[/\\\x00-\x1f\x7f]|\.\.|[\ud800-\udfff]")
_DIGEST = 8  # hex digits


def as_text(name: str) -> str:
    r"""Returns a name as text; bytes that are not UTF-8 become escapes such as \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def clip_ids(paths: Sequence[str]) -> list[str]:
    """Returns an id for each path CLASS/FILE: CLASS-FILE if that can be an id and no other path gives the same.

    Otherwise the id is that text, with what an id cannot hold replaced or cut off, and a digest of the path.
    """
    plain = ["-".join(map(as_text, pathlib.PurePosixPath(path).parts[-2:])) for path in paths]
    counts = collections.Counter(plain)
    return [
        text if counts[text] == 1 and is_id(text) else _distinct(text, path)
        for text, path in zip(plain, paths, strict=True)
    ]


def is_id(text: str) -> bool:
    """Returns whether a text can be an id: a file name of 1…`MAX_ID` bytes, without "..", on one line."""
    size = len(text.encode("utf-8", "surrogatepass"))
    return 0 < size <= MAX_ID and not FORBIDDEN_IN_ID.search(text)


def _distinct(text: str, path: str) -> str:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:_DIGEST]
    allowed = FORBIDDEN_IN_ID.sub("_", text).encode("utf-8")[: MAX_ID - 1 - _DIGEST]
    return f"{allowed.decode('utf-8', 'ignore')}-{digest}"
