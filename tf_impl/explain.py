"""Explain clips with TensorFlow: masks and Grad-CAM, e.g. `python tf_impl/explain.py --run=runs/i3d_synthetic`.

Or any video, without a clip store: `python tf_impl/explain.py --run=runs/i3d_synthetic --video=my.mp4`.
"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.clips.clip_store import ClipStore
from common.command_line import commands, explain_flags
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations

flags.adopt_module_key_flags(explain_flags)  # So that --help lists them.


def main(_: list[str]) -> int:
    """Explains what the flags say: clips of a store, whose statistics are printed, or videos."""
    settings = explain_flags.settings()
    # Only now and below: --help, wrong flags and what is no video need no framework.
    from common.command_line import explain, explain_video
    from data_prep import loose_clips

    def explain_clips(settings: ExplainSettings) -> tuple[Explanations, ClipStore]:
        from tf_impl import devices, explanation

        if explain_flags.DETERMINISTIC.value:
            devices.make_deterministic()
        return explanation.explain(settings, explain_flags.DEVICE.value)

    if explain_flags.VIDEO.value:
        videos = [pathlib.Path(video) for video in explain_flags.VIDEO.value]
        return explain_video.explain(settings, videos, explain_flags.games(), loose_clips, explain_clips)
    explain.explain(settings, explain_clips, explain_flags.BRIEF.value)
    return 0


def run() -> None:
    """Console script `explain-tf`."""
    commands.run(main)


if __name__ == "__main__":
    run()
