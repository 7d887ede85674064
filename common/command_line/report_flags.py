"""Flags of `report.py`, and the values they make."""

import pathlib

from absl import flags

from common.command_line import clips_flags
from common.reporting.building import ReportSettings

flags.adopt_module_key_flags(clips_flags)  # So that --help lists them.

_EXPLANATIONS = flags.DEFINE_list("explanations", [], "Files that explain.py wrote, separated by commas.")
_EVALUATIONS = flags.DEFINE_list("evaluations", [], "Files that evaluate.py wrote, separated by commas.")
_EVIDENCE = flags.DEFINE_list("evidence", [], "Files that evidence.py wrote, separated by commas.")
_RUNS = flags.DEFINE_list(
    "runs", [], "Run directories to show the training of, separated by commas, besides those that hold the files."
)
_CLIPS = flags.DEFINE_string("clips", None, f"{clips_flags.HELP} Unset: the one that was explained.")
_OUT = flags.DEFINE_string("out", "report", "Folder to make, or an earlier report to replace.")
_GALLERY = flags.DEFINE_integer(
    "gallery_clips", 240, "Clips to show at most, spread over the classes; the statistics are of all.", lower_bound=1
)
_FIGURES = flags.DEFINE_integer(
    "figures", 6, "Clips to draw as the paper's figures (GIF, MP4, stills), spread over the classes.", lower_bound=0
)
_STILLS = flags.DEFINE_list(
    "stills", ["png"], "Types of the figures' stills, separated by commas: png, svg, pdf. In svg and pdf text is text."
)
_URL = flags.DEFINE_string(
    "url", "", "Address of the folder where the report will be published, so that links to it show its picture."
)
_ZIP = flags.DEFINE_bool("zip", False, "Whether to pack the folder as OUT.zip, too.")


def settings() -> ReportSettings:
    """Returns what to report on."""
    return ReportSettings(
        out=pathlib.Path(_OUT.value),
        explanations=tuple(pathlib.Path(name) for name in _EXPLANATIONS.value),
        evaluations=tuple(pathlib.Path(name) for name in _EVALUATIONS.value),
        evidence=tuple(pathlib.Path(name) for name in _EVIDENCE.value),
        runs=tuple(pathlib.Path(name) for name in _RUNS.value),
        clips=clips_flags.place(_CLIPS.value),
        cache=clips_flags.cache(),
        gallery_clips=_GALLERY.value,
        figures=_FIGURES.value,
        url=_URL.value,
        zip=_ZIP.value,
        stills=tuple(_STILLS.value),
    )
