"""Importing weights with PyTorch keeps the contract of both builds."""

import pytest

from common.command_line.import_contract_for_tests import GOOD, ImportContract
from torch_impl import evaluation

_REFUSED = [
    ("--run=run", "--weights and --run must be given. Received: --weights=, --run=run"),
    ("--weights=FOLDER/none.pt --run=run", "none.pt: [Errno 2] No such file"),
    ("--weights=FOLDER/good.ckpt --run=run", "each of the 5 classes of the weights. Received: 400 names"),
    (f"{GOOD} --input_shape=16,224", "three whole numbers: frames, height, width. Received: 16,224"),
    (f"{GOOD} --input_shape=8,224,224", "frames >= 9"),
    (f"{GOOD} --temporal_strides=mine", "temporal_strides"),
    (f"{GOOD} --run=FOLDER", "--run must be a new or empty folder"),
    ("--weights=FOLDER/cut.ckpt --run=run", "nothing else. Received: "),
    ("--weights=FOLDER/hostile.ckpt --run=run", "mkdir is named, which is no array"),
    ("--weights=FOLDER/nan.ckpt --run=run", "NaN or infinite values of Logits/Conv3d_0c_1x1/bias"),
    ("--weights=FOLDER/other.ckpt --run=run", "bear the names of a published I3D"),
    ("--weights=FOLDER/two.ckpt --run=run", "must be of one model"),
    ("--weights=FOLDER/tf.index --run=run", "which tf_impl/import_weights.py imports; the run serves both builds"),
    ("--weights=FOLDER/old.pt --run=run", "Weights must be a whole"),
]


class TestImportWeights(ImportContract):
    evaluation = evaluation
    package = "torch_impl"
    refused = _REFUSED

    @pytest.mark.parametrize(("flags", "message"), _REFUSED)
    def test_bad_weights_are_one_line_and_code_2_and_leave_nothing(self, answers, folder, flags, message):
        self.check_refusal(answers, folder, flags, message)
