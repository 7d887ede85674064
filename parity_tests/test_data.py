import hashlib

import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common.clips import tiny_store_for_tests
from common.models import configs
from common.runs import training_loop
from parity_tests import twins  # noqa: F401  (imports PyTorch before TensorFlow)
from tf_impl import training as tf_training
from torch_impl import training as torch_training

_MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=2)


def recorded(trainer_class, seen):
    """Returns a trainer class that notes, for each call, what it was given."""

    class Recorder(trainer_class):
        def train_step(self, frames, labels, learning_rate, seed, total=0):
            seen.append((hashlib.sha256(frames).hexdigest(), labels.tolist(), learning_rate, seed))
            return super().train_step(frames, labels, learning_rate, seed)

        def predict(self, frames):
            seen.append(hashlib.sha256(frames).hexdigest())
            return super().predict(frames)

    return Recorder


@pytest.mark.parametrize("augmentation", [{}, {"crop": 0.7, "mirror": (0, 2, 1), "time_jitter": 1}])
def test_same_batches_rates_and_seeds_in_the_same_order(tmp_path, augmentation):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 10, "validation": 5})
    config = configs.TrainConfig(_MODEL, "sgd", epochs=2, batch_size=4, seed=3, **augmentation)
    calls = {}
    for trainer in (torch_training.Trainer, tf_training.Trainer):
        seen = calls[trainer.framework] = []
        settings = training_loop.TrainSettings(tmp_path / "clips", tmp_path / trainer.framework)
        training_loop.train(config, settings, recorded(trainer, seen))
    assert len(calls["torch"]) == 2 * (3 + 2)
    assert calls["torch"] == calls["tf"]
    assert calls["torch"][0] != calls["torch"][5], "the second epoch has another order"
