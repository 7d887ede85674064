"""Flags of `evidence.py` in both builds, and the values they make."""

import pathlib

from absl import flags

from common.command_line import clips_flags, model_flags
from common.explaining.evidence import EvidenceSettings

for _module in (clips_flags, model_flags):
    flags.adopt_module_key_flags(_module)  # So that --help lists them.

DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute; auto: a GPU if there is one.")
_RUN = flags.DEFINE_string("run", None, "Run directory, of either framework.")
_MODEL = flags.DEFINE_string("model", None, model_flags.MODEL_HELP)
_EXPLANATIONS = flags.DEFINE_string(
    "explanations", None, "Its explanations. Unset: explanations.h5 in the run, or in models/NAME."
)
_CLIPS = flags.DEFINE_string("clips", None, f"{clips_flags.HELP} Unset: the one that was explained.")
_LIMIT = flags.DEFINE_integer(
    "limit", 12, "Clips for curves and Grad-CAM, spread over the classes; 0: all.", lower_bound=0
)
_MASK_LIMIT = flags.DEFINE_integer(
    "mask_limit", 4, "Clips of these whose masks are learnt again, seven times each; 0: none.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Of random orders, weights and starts.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "File to write. Unset: evidence.json beside the explanations.")


def settings() -> EvidenceSettings:
    """Returns what to gather evidence about."""
    return EvidenceSettings(
        model=model_flags.source(_RUN.value, _MODEL.value),
        explanations=pathlib.Path(_EXPLANATIONS.value) if _EXPLANATIONS.value else None,
        clips=clips_flags.place(_CLIPS.value),
        cache=clips_flags.cache(),
        limit=_LIMIT.value,
        mask_limit=_MASK_LIMIT.value,
        seed=_SEED.value,
        out=pathlib.Path(_OUT.value) if _OUT.value else None,
    )
