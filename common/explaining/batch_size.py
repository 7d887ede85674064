"""How many clips to learn masks for at a time: what fits the memory, and no more than gains speed."""

import numpy as np
from absl import logging

from common import text
from common.clips.clip_store import ClipStore
from common.explaining.explainer import Explainer
from common.models import architectures, configs
from common.runs.subjects import Classifier, Trained

# An activation is kept for the backward pass, with its gradient and a copy that some layer makes of either.
_BYTES_PER_ACTIVATION = 4 * 4
_BYTES_PER_PREPARED = 4 * 2  # And as much again while it is brought into order.
_SHARE_OF_MEMORY = 0.5
# More at a time gains nothing: two cores leave their caches, a GPU is busy (docs/performance.md).
_MOST_BYTES_ON_CPU = 192 << 20
_MOST_CLIPS = 64


def that_fits(classifier: Classifier, explainer: Explainer, store: ClipStore, first: np.ndarray) -> int:
    """Returns how many clips to learn masks for at a time.

    Args:
      classifier: of clips; of one of this project's the memory is known from its layers.
      explainer: of the classifier.
      store: of the clips.
      first: index of a clip to try, int [1], where nothing else tells how much memory one needs.
    """
    if isinstance(classifier, Trained):
        bytes_per_clip = _bytes_per_clip(classifier.config)
    else:
        bytes_per_clip = max(explainer.bytes_per_clip(store.read(first)), 1)  # A linear model keeps nothing.
    free, is_gpu = explainer.free_memory()
    most = free * _SHARE_OF_MEMORY if is_gpu else min(free * _SHARE_OF_MEMORY, _MOST_BYTES_ON_CPU)
    size = int(min(max(most // bytes_per_clip, 1), _MOST_CLIPS))
    logging.info("%s at a time (--batch).", text.counted(size, "clip"))
    return size


def _bytes_per_clip(model: configs.ModelConfig) -> int:
    """Returns how many bytes the gradient in the mask needs for a clip."""
    layers = architectures.layers(model)
    activations = sum(int(np.prod(layer.output_shape)) for layer in layers)
    # What the first convolution makes of each frame, once for a tap in time (I3D, 7) or a gate (ConvLSTM, 4).
    parts = 7 if isinstance(model, configs.I3DConfig) else 4
    prepared = parts * (model.input_shape[0] + 1) * int(np.prod(layers[0].output_shape[1:]))
    return _BYTES_PER_ACTIVATION * activations + _BYTES_PER_PREPARED * prepared
