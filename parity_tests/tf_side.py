"""One model in TensorFlow: its outcome on a batch, in NumPy."""

import tf_impl  # noqa: F401  (first: it chooses Keras' backend, and holds back TensorFlow's start-up lines)

# isort: split
import numpy as np
import tensorflow as tf

from common.models import configs
from parity_tests.twins import Outcome
from tf_impl import weights


def outcome(
    config: configs.ModelConfig,
    arrays: dict[str, np.ndarray],
    batch: tuple[np.ndarray, np.ndarray],
    precision: str,
    training: bool,
) -> Outcome:
    """Runs the model on a batch.

    Args:
      config: the model.
      arrays: its canonical weights.
      batch: frames, uint8 [N, T, H, W, 3], and labels, int64 [N].
      precision: of the computation.
      training: batch norm and dropout work as in training.
    """
    model = weights.build_model(config, precision, device="/CPU:0", arrays=arrays)
    variables = weights.trainable(model)
    with tf.GradientTape() as tape:
        logits, endpoints = model(batch[0], return_endpoints=True, training=training)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], logits))
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    return Outcome(
        {name: value.numpy() for name, value in endpoints.items()},
        loss.numpy(),
        {name: weights.to_canonical(name, gradient) for name, gradient in zip(variables, gradients, strict=True)},
        weights.get_weights(model),
    )
