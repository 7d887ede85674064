"""Flags of `evaluate.py` in both builds, and the values they make."""

import pathlib

from absl import flags

from common import errors
from common.models import configs
from common.runs.evaluation_loop import EvaluateSettings

DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute; auto: a GPU if there is one.")
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Same bits for the same input, at some cost in speed on a GPU. On a CPU it is so anyway."
)
PRECISION = flags.DEFINE_enum("precision", "float32", list(configs.PRECISIONS), "Precision of the computation.")
_RUN = flags.DEFINE_list("run", None, "Run directories of either framework, separated by commas.")
_CLIPS = flags.DEFINE_string("clips", None, "Folder of the clip store. Unset: the one each run was trained on.")
_SPLIT = flags.DEFINE_enum("split", "validation", ["train", "validation", "test"], "Split to evaluate.")
_BATCH = flags.DEFINE_integer("batch_size", 16, "Clips at a time.", lower_bound=1)
_OUT = flags.DEFINE_list(
    "out", [], "Files to write, one for each run, separated by commas. Unset: evaluation.json in each run directory."
)
_THREADS = flags.DEFINE_integer("loader_threads", 2, "Threads that read and decode clips.", lower_bound=1)


def settings() -> EvaluateSettings:
    """Returns what to evaluate."""
    if not _RUN.value:
        raise errors.UserError("--run must name at least one run directory. Received: none")
    return EvaluateSettings(
        models=tuple(pathlib.Path(name) for name in _RUN.value),
        clips=pathlib.Path(_CLIPS.value) if _CLIPS.value else None,
        split=_SPLIT.value,
        batch_size=_BATCH.value,
        num_threads=_THREADS.value,
        out=tuple(pathlib.Path(name) for name in _OUT.value),
    )
