"""Flags of `evaluate.py` in both builds, and the values they make."""

import pathlib

from absl import flags

from common.clips.clip_store import SPLITS
from common.command_line import clips_flags, model_flags
from common.models import configs
from common.runs.evaluation_loop import EvaluateSettings

for _module in (clips_flags, model_flags):
    flags.adopt_module_key_flags(_module)  # So that --help lists them.

DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute; auto: a GPU if there is one.")
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Same bits for the same input, at some cost in speed on a GPU. On a CPU it is so anyway."
)
PRECISION = flags.DEFINE_enum("precision", "float32", list(configs.PRECISIONS), "Precision of the computation.")
_RUN = flags.DEFINE_list("run", [], "Run directories of either framework, separated by commas.")
_MODEL = flags.DEFINE_list("model", [], f"{model_flags.MODEL_HELP} Several: separated by commas.")
_CLIPS = flags.DEFINE_string("clips", None, f"{clips_flags.HELP} Unset: the one a run was trained on.")
_SPLIT = flags.DEFINE_enum("split", "validation", list(SPLITS), "Split to evaluate.")
_BATCH = flags.DEFINE_integer("batch_size", 16, "Clips at a time.", lower_bound=1)
_OUT = flags.DEFINE_list(
    "out",
    [],
    "Files to write, one for each model, separated by commas. Unset: evaluation.json in each run directory, or in "
    "models/NAME.",
)
_ORDER_CARD = flags.DEFINE_bool(
    "order_card",
    None,
    "Show clips shuffled, as one frame, and frozen after each frame, too: T + 1 more passes. Unset: of foreign models.",
)
BRIEF = flags.DEFINE_bool("brief", False, "Print Table 1 alone, without a table of classes for each run.")
_THREADS = flags.DEFINE_integer("loader_threads", 2, "Threads that read and decode clips.", lower_bound=1)


def settings() -> EvaluateSettings:
    """Returns what to evaluate."""
    return EvaluateSettings(
        models=model_flags.sources(_RUN.value, _MODEL.value),
        clips=clips_flags.place(_CLIPS.value),
        cache=clips_flags.cache(),
        split=_SPLIT.value,
        batch_size=_BATCH.value,
        num_threads=_THREADS.value,
        order_card=bool(_MODEL.value) if _ORDER_CARD.value is None else _ORDER_CARD.value,
        out=tuple(pathlib.Path(name) for name in _OUT.value),
    )
