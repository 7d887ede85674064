"""The observer of planted events in TensorFlow: right by construction, as `common/explaining/observer.py` says.

learnt = temporal_mask.learn_masks(Observer("rare", clips.shape[1:]), clips, labels, masks.MaskConfig())
"""

import tensorflow as tf
from jaxtyping import Float, Shaped

from common.explaining import observer
from tf_impl import temporal_mask


class Observer(observer.Filtering):
    """A `temporal_mask.ScoreFn` with `prepare` and `perturbed` (see `observer.Filtering`), in the clips' dtype."""

    def prepare(self, clips: Shaped[tf.Tensor, "N T H W C"]) -> Float[tf.Tensor, "N T waves"]:
        """See `observer.Filtering`."""
        clips = clips if clips.dtype.is_floating else tf.cast(clips, tf.float32)
        pixels = tf.reshape(clips, (-1, clips.shape[1], len(self._filters)))
        return tf.matmul(pixels, tf.constant(self._filters, clips.dtype))

    def _probabilities(self, answers: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(observer.logits(answers, self._suite, temporal_mask.OPS))
