"""Explain clips with TensorFlow: masks and Grad-CAM, e.g. `python tf_impl/explain.py --run=runs/i3d_planted`.

Or any video, without a clip store: `python tf_impl/explain.py --run=runs/i3d_planted --video=my.mp4`.
"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.command_line import commands, explain_flags, launch_flags
from common.explaining import explanation_loop
from common.explaining.explainer import Build

for _module in (explain_flags, launch_flags):
    flags.adopt_module_key_flags(_module)  # So that --help lists them.


def main(_: list[str]) -> int:
    """Explains what the flags say: clips of a store, whose statistics are printed, or videos."""
    settings = explain_flags.settings()
    # Only now and below, so that --help, wrong flags and files that are no videos are answered without a framework.
    from common.command_line import explain, explain_video
    from data_prep import loose_clips

    def build() -> Build:
        from tf_impl import explanation

        return explanation.build(explain_flags.DEVICE.value, explain_flags.DETERMINISTIC.value)

    if explain_flags.VIDEO.value:
        videos = [pathlib.Path(video) for video in explain_flags.VIDEO.value]
        return explain_video.explain(
            settings, videos, explain_flags.games(), loose_clips, build, explain_flags.input_shape()
        )
    explain.explain(
        settings,
        lambda settings: explanation_loop.explain(settings, *build(), launch_flags.launch()),
        explain_flags.BRIEF.value,
        explain_flags.report(),
    )
    return 0


def run() -> None:
    """Console script `explain-tf`."""
    commands.run(main)


if __name__ == "__main__":
    run()
