"""Videos and arrays are explained in TensorFlow as the contract of both builds says."""

from common.command_line.video_contract_for_tests import VideoContract
from tf_impl import explanation, one_clip


class TestOneClip(VideoContract):
    framework = "tf"
    one_clip = one_clip
    explanation = explanation
