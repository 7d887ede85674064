"""Flags of `score_when.py`, and the values they make."""

import pathlib

from absl import flags

from common import errors
from common.clips.clip_store import SPLITS
from common.explaining.when_scores import ScoreSettings

_ATTRIBUTIONS = flags.DEFINE_list(
    "attributions", [], "Files of attributions (.npz) or explanations (.h5), separated by commas."
)
_SUITE = flags.DEFINE_string("suite", None, "Folder of the clip store whose truth counts.")
_SPLIT = flags.DEFINE_enum("split", "test", list(SPLITS), "Split of the suite.")
_OUT = flags.DEFINE_string("out", None, "Folder for when.json, when.csv and selected.csv. Unset: print only.")


def settings() -> ScoreSettings:
    """Returns what to score."""
    if not _ATTRIBUTIONS.value or not _SUITE.value:
        raise errors.UserError(
            "--attributions must name at least one file, and --suite a clip store. "
            f"Received: {','.join(_ATTRIBUTIONS.value) or 'none'} and {_SUITE.value or 'none'}"
        )
    return ScoreSettings(
        attributions=tuple(pathlib.Path(name) for name in _ATTRIBUTIONS.value),
        suite=pathlib.Path(_SUITE.value),
        split=_SPLIT.value,
        out=pathlib.Path(_OUT.value) if _OUT.value else None,
    )
