"""Training in PyTorch keeps the contract of both builds."""

import pytest

from common.command_line.training_contract_for_tests import LEARNING, TrainingContract
from torch_impl import training


class TestTraining(TrainingContract):
    training = training
    package = "torch_impl"

    @pytest.mark.parametrize(("precision", "model"), LEARNING)
    def test_a_model_learns_the_tiny_clips_in_every_precision(self, clips, tmp_path, model, precision):
        self.check_learning(clips, tmp_path, model, precision)
