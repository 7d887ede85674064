"""The index of a split: labels and ids of all its clips in one small HDF5 file, so that opening reads no shard.

| dataset | dtype, shape | meaning |
|---|---|---|
| `label` | int32 [N] | class index, -1 where it is unknown |
| `video_id` | UTF-8 string [N] | as in the shards, in their order |
| `shard_bytes` | int64 [S] | size of each shard's file |

`dataset.json` has the SHA-256 of the file. A shard that has other labels or ids is refused when it is first read.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from common import errors, files, hdf5
from common.hdf5 import Column

SCHEMA_VERSION = 1
_TABLE = {
    "label": Column(np.int32, "N", low=-1, high=lambda sizes: sizes["K"] - 1),
    "video_id": Column(hdf5.TEXT, "N"),
    "shard_bytes": Column(np.int64, "S", low=1),
}


@dataclasses.dataclass(frozen=True)
class SplitIndex:
    """What an index says of N clips in S shards.

    Attributes:
      labels: int32 [N], -1 where unknown.
      video_ids: str objects [N].
      shard_bytes: int64 [S].
    """

    labels: np.ndarray
    video_ids: np.ndarray
    shard_bytes: np.ndarray


def file_name(split: str) -> str:
    """Returns the name of a split's index in the folder of the store."""
    return f"{split}.index"


def write(path: pathlib.Path, labels: np.ndarray, video_ids: Sequence[str], shard_bytes: Sequence[int]) -> None:
    """Writes an index whole or not at all; the same values give the same bytes. See `SplitIndex`."""
    with hdf5.written_whole(path, durable=True) as file:
        file["label"] = np.asarray(labels, np.int32)
        hdf5.write_text(file, "video_id", video_ids)
        file["shard_bytes"] = np.asarray(shard_bytes, np.int64)
        file.attrs["schema_version"] = SCHEMA_VERSION


def read(path: pathlib.Path, sha256: str, *, clips: int, shards: int, classes: int) -> SplitIndex:
    """Returns what an index says.

    Args:
      path: of the file.
      sha256: that it must have, in hex.
      clips: N.
      shards: S.
      classes: K.

    Raises:
      errors.UserError: for a file of another SHA-256, or that is not as the table says.
    """
    what = "The index of a split"
    try:
        came = files.sha256(path)
    except OSError as error:
        raise errors.UserError(f"{what} must be a readable file. Received: {path}: {error}") from None
    if came != sha256:
        raise errors.UserError(
            f"{what} must have the SHA-256 in dataset.json. Received: another in {path} (prepare.py makes it anew)"
        )
    sizes = {"N": clips, "S": shards, "K": classes}
    with hdf5.opened(path, what) as file:
        version = hdf5.integer_attribute(file, "schema_version")
        if version != SCHEMA_VERSION:
            raise errors.UserError(f"{what} must have schema version {SCHEMA_VERSION}. Received: {version} in {path}")
        columns = hdf5.read(file, _TABLE, sizes)
    hdf5.check_bounds(columns, _TABLE, sizes, path)
    return SplitIndex(columns["label"], columns["video_id"], columns["shard_bytes"])
