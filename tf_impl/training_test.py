"""Training in TensorFlow keeps the contract of both builds; a step is traced once."""

import dataclasses

import numpy as np
import pytest

from common.command_line.training_contract_for_tests import LEARNING, TrainingContract
from common.models import configs
from tf_impl import training


class TestTraining(TrainingContract):
    training = training
    package = "tf_impl"

    @pytest.mark.parametrize(("precision", "model"), LEARNING)
    def test_a_model_learns_the_tiny_clips_in_every_precision(self, clips, tmp_path, model, precision):
        self.check_learning(clips, tmp_path, model, precision)


@pytest.mark.parametrize("model", ["i3d", "conv_lstm"])
def test_a_step_is_traced_once_for_all_batch_sizes_rates_and_seeds(model, monkeypatch):
    preset = configs.PRESETS[f"{model}_synthetic"]
    change = {"num_classes": 3, "input_shape": (8, 32, 32), "dropout": 0.3}
    small = dataclasses.replace(preset.model, **change, **({"width": 0.0625} if model == "i3d" else {"filters": 2}))
    trainer = training.Trainer(dataclasses.replace(preset, model=small), "cpu")
    calls, call = [], type(trainer.model).call
    monkeypatch.setattr(type(trainer.model), "call", lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs))
    for step, clips in enumerate((4, 4, 2, 1)):
        frames = np.full((clips, 8, 32, 32, 3), step, np.uint8)
        loss, correct = trainer.train_step(frames, np.arange(clips) % 3, 0.1 / (step + 1), step)
        assert np.isfinite(float(loss)) and 0 <= int(correct) <= clips
        assert trainer.predict(frames).shape == (clips, 3)
    assert trainer._step.experimental_get_tracing_count() == 1
    assert len(calls) == 2  # While the step and the prediction were traced.
