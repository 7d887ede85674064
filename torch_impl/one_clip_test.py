"""Videos and arrays are explained in PyTorch as the contract of both builds says."""

from common.command_line.video_contract_for_tests import VideoContract
from torch_impl import explanation, one_clip


class TestOneClip(VideoContract):
    framework = "torch"
    one_clip = one_clip
    explanation = explanation
