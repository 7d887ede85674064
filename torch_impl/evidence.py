"""Evidence on explanations with PyTorch, e.g. `python torch_impl/evidence.py --run=runs/i3d_planted`."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common.command_line import commands, evidence_flags, launch_flags

for _module in (evidence_flags, launch_flags):
    flags.adopt_module_key_flags(_module)  # So that --help lists them.


def main(_: list[str]) -> None:
    """Gathers what the flags say and prints it."""
    settings, device, launch = evidence_flags.settings(), evidence_flags.DEVICE.value, launch_flags.launch()
    # Only now: --help and wrong flags need no framework.
    from common.command_line import evidence
    from torch_impl import explanation

    evidence.gather(settings, lambda settings: explanation.gather_evidence(settings, device, launch))


def run() -> None:
    """Console script `evidence-torch`."""
    commands.run(main)


if __name__ == "__main__":
    run()
