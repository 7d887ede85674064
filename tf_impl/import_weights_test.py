"""Importing weights with TensorFlow keeps the contract of both builds."""

import pytest

from common.command_line.import_contract_for_tests import ImportContract
from tf_impl import evaluation

_REFUSED = [
    ("--weights=FOLDER/hostile.ckpt --run=run", "mkdir is named, which is no array"),
    ("--weights=FOLDER/old.pt --run=run", "which torch_impl/import_weights.py imports; the run serves both builds"),
    ("--weights=FOLDER/tf.index --run=run", "Weights must be a whole"),
]


class TestImportWeights(ImportContract):
    evaluation = evaluation
    package = "tf_impl"
    refused = _REFUSED

    @pytest.mark.parametrize(("flags", "message"), _REFUSED)
    def test_bad_weights_are_one_line_and_code_2_and_leave_nothing(self, answers, folder, flags, message):
        self.check_refusal(answers, folder, flags, message)
