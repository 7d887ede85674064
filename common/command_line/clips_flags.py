"""Flags that say where clips at a URL are kept, for every command that takes `--clips`."""

import pathlib

from absl import flags

from common import files, remote
from common.remote import Cache

_DIR = flags.DEFINE_string(
    "cache_dir",
    None,
    "Folder on a local disk where clips are kept that --clips reads from a URL. Unset: in the user's folder of caches.",
)
_GB = flags.DEFINE_float("cache_gb", remote.DEFAULT.gigabytes, "What that folder may hold, in GB.")
ALL = (_DIR, _GB)
HELP = "Folder of the clip store, or a URL that fsspec opens (s3://, gs://, https://, sftp:// …)."


def place(value: str | None) -> files.Place | None:
    """Returns what `--clips` names; None where it is unset."""
    return files.place(value) if value else None


def cache() -> Cache:
    """Returns where clips at a URL are kept."""
    return Cache(pathlib.Path(_DIR.value) if _DIR.value else None, _GB.value)
