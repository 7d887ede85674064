"""Training in TensorFlow: one step and one prediction; all the rest is `common.runs.training_loop`."""

import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from common.models import architectures, configs
from common.runs import training_loop
from tf_impl import devices, evaluation, layers, optimizers, processes, weights


def train(config: configs.TrainConfig, settings: training_loop.TrainSettings, device: str = "auto") -> None:
    """Trains a model, from the start or from the run's checkpoint (see `training_loop.train`).

    Args:
      config: model and training.
      settings: where to train, and how.
      device: "auto", "cpu" or "gpu".
    """
    with processes.joined(device) as those:
        training_loop.train(config, settings, lambda final: Trainer(final, device), those)


def versions() -> dict[str, str]:
    """Returns the versions of the libraries in use, by name."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


class Trainer:
    """A model, its optimiser, and one step of training (see `training_loop.Trainer`)."""

    framework = "tf"

    def __init__(self, config: configs.TrainConfig, device: str = "auto") -> None:
        self._shared = tf.distribute.has_strategy()
        place = devices.find_device(device, config.precision)
        self._device = None if self._shared else place  # A strategy places what it replicates.
        self.model = weights.build_model(config.model, config.precision, config.seed, self._device)
        parameters = weights.trainable(self.model)
        for layer in architectures.frozen_layers(config):
            self.model.get_layer(layer.name).trainable = False
            for name in parameters.keys() & layer.weights.keys():
                del parameters[name]
        self._variables = [variable.value for variable in parameters.values()]
        with tf.device(self._device):
            self.optimizer = optimizers.Optimizer(parameters, config)
        frames = evaluation.frames_spec(config.model)
        # Batches of any size and every learning rate go through one trace.
        self._step = tf.function(
            self._traced_step,
            input_signature=(frames, tf.TensorSpec((None,), tf.int64), *[tf.TensorSpec((), tf.float64)] * 2),
            autograph=False,
        )
        self._logits = evaluation.logits_of(self.model, config.model, self._device)
        # Values of replicas have no signature; a batch of another size is traced once more at most.
        self._shared_step = tf.function(self._traced_shared_step, autograph=False, reduce_retracing=True)

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""
        return versions()

    def train_step(
        self, frames: np.ndarray, labels: np.ndarray, learning_rate: float, seed: int, total: int = 0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step on the mean cross entropy of a batch, which all processes share.

        Args:
          frames: uint8 [N, T, H, W, 3].
          labels: int64 [N].
          learning_rate: of this step.
          seed: of this step's dropout.
          total: clips of the batch, in all processes; 0: those that are given.

        Returns:
          Mean loss and number of right guesses, scalars on the device.
        """
        layers.seed_dropout(self.model, seed)
        rate, total = tf.constant(learning_rate, tf.float64), tf.constant(total or len(labels), tf.float64)
        if self._shared:
            present = processes.present(len(frames))
            return self._shared_step(*processes.split(frames, labels), rate, total, present)
        with tf.device(self._device):
            return self._step(frames, labels, rate, total)

    def _traced_step(
        self,
        frames: tf.Tensor,
        labels: tf.Tensor,
        learning_rate: tf.Tensor,
        total: tf.Tensor,
        present: tf.Tensor | float = 1.0,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape, layers.counting(present):
            tape.watch(self._variables)
            logits = self.model(frames, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) * tf.cast(present / total, logits.dtype)
        gradients = tape.gradient(loss, self._variables)
        if self._shared:
            gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        self.optimizer.step(gradients, learning_rate)
        return loss, tf.cast(present, tf.int64) * tf.math.count_nonzero(tf.argmax(logits, axis=1) == labels)

    def _traced_shared_step(self, *arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
        strategy = tf.distribute.get_strategy()
        loss, correct = strategy.run(self._traced_step, arguments)
        return strategy.reduce("SUM", loss, axis=None), strategy.reduce("SUM", correct, axis=None)

    def predict(self, frames: np.ndarray) -> ArrayLike:
        """Returns logits [N, K] of clips uint8 [N, T, H, W, 3], in inference mode; see `prediction.predict`."""
        return self._logits(frames)

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the canonical weights, in the precision they are held in."""
        return weights.get_weights(self.model)

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Returns the optimiser's state in canonical layout."""
        return self.optimizer.get_state()

    def load(self, arrays: dict[str, np.ndarray], optimizer_state: dict[str, np.ndarray]) -> None:
        """Takes over what `weights` and `optimizer_state` returned, in either framework."""
        weights.load_weights(self.model, arrays)
        self.optimizer.set_state(optimizer_state)
