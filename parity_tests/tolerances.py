"""How far the two frameworks may lie apart: the one place where a limit stands.

A limit is for max |torch - tf| / max(1, max |torch|). It is loosened only with the measured error and its reason.
"""

LIMITS: dict[str, dict[str, float]] = {
    # Every endpoint, and the logits.
    "endpoints": {"float64": 1e-10, "float32": 1e-4},
    # The loss, and its gradient in every weight.
    "gradients": {"float64": 1e-9, "float32": 1e-3},
    # I3D in training: 57 batch norms, each after a ReLU, and max-pools, whose choices rounding turns. Measured at
    # 16x224x224: PyTorch's float32 lies 1.3e-4 (endpoints; 2.4e-4 at width 0.25) and 3.2e-2 (gradients) from its own
    # float64, TensorFlow's 9e-5 and 2.5e-2, and the two 2.2e-4 and 3.7e-2 apart. In float64 nothing is loosened.
    "endpoints of I3D in training": {"float64": 1e-10, "float32": 5e-4},
    "gradients of I3D in training": {"float64": 1e-9, "float32": 1e-1},
    # ConvLSTM in training at 16x224x224. Measured: float32 of either framework lies 1.9e-3 from float64, and the two
    # 1.7e-4 (AVX512) to 8.6e-4 (AVX2) apart. Its loss, and all of smaller ones, keep "gradients".
    "gradients of full-size ConvLSTM in training": {"float64": 1e-9, "float32": 1e-2},
    # Perturbed clip, total variation, mask loss and its gradient.
    "perturbation": {"float64": 1e-10, "float32": 1e-5},
    # What the observer says of a clip, and its gradient in the mask: sums over all pixels. Measured: up to 4.9e-6.
    "observer": {"float64": 1e-10, "float32": 3e-5},
    # The mask after 300 iterations, and its scores.
    "mask": {"float64": 1e-6, "float32": 1e-2},
    # The mask of trained models, and its loss on the way. Adam divides by the size of the gradient, so where the loss
    # is flat it follows rounding. Measured on 36 clips of each model of the demo, 300 iterations: the frameworks lie up
    # to 4.7e-2 apart in float32 (median 3e-3 for I3D, 3e-6 for ConvLSTM; 7 of 72 clips beyond 1e-2), while PyTorch's
    # float32 lies up to 2.2e-1 from its own float64. The score that a mask was learnt by, S, keeps "mask".
    "mask of explained clips": {"float64": 1e-6, "float32": 2.5e-1},
    # FS and RS of such masks: one of them is S, and nothing in Eq. 1 keeps the other one flat where the mask ends, so
    # it follows what "mask of explained clips" allows. Measured on 18 clips of each planted model, --stop=converged:
    # masks that lie 5e-3 apart differ by 4.5e-2 in RS (2 of 36 clips beyond 1e-2, the median 2e-6). FS_snapped and
    # RS_snapped, of the same frames in both, keep "mask".
    "scores of explained clips": {"float64": 1e-6, "float32": 2e-1},
    # How near to 0.5 a frame's soft mask may be for its snapped value to differ; elsewhere it must not.
    "snapped mask": {"float64": 1e-6, "float32": 5e-2},
    "gradcam": {"float64": 1e-9, "float32": 1e-3},
    # 20 training steps: loss, weights, running statistics, optimiser state.
    "training": {"float64": 1e-8, "float32": 1e-3},
}


def limit(quantity: str, precision: str) -> float:
    """Returns the limit of a quantity, one of `LIMITS`, in "float64" or "float32"."""
    return LIMITS[quantity][precision]
