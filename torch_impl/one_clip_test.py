"""Videos and arrays are explained in PyTorch as the contract of both builds says."""

import torch

from common.command_line.video_contract_for_tests import VideoContract
from torch_impl import explanation, one_clip


def _brightness(clips):
    level = clips.mean((1, 2, 3, 4)) / 255
    return torch.stack([level, 1 - level], dim=1)


class TestOneClip(VideoContract):
    framework = "torch"
    one_clip = one_clip
    explanation = explanation
    brightness = staticmethod(_brightness)
