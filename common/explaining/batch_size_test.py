import pytest

from common.explaining import batch_size
from common.explaining.explanation_loop_for_tests import BYTES_PER_CLIP, GIB, MODEL, NumpyExplainer
from common.models import configs
from common.runs.subjects import Trained


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ((0, False), 1),
        ((BYTES_PER_CLIP, False), 1),
        ((0, True), 1),
        ((4 * BYTES_PER_CLIP, False), 2),  # Half of what is free.
        ((4 * BYTES_PER_CLIP - 1, False), 1),
        ((20 * BYTES_PER_CLIP, True), 10),
        ((100 * GIB, True), 64),
    ],
)
def test_the_batch_is_what_fits_the_memory(free, expected):
    explainer = NumpyExplainer(None, free)
    assert batch_size.that_fits(Trained(MODEL, {}), explainer, None, None) == expected


def test_on_a_cpu_a_batch_stays_small_where_a_gpus_does_not():
    model = Trained(configs.PRESETS["i3d_something"].model, {})
    on_cpu, on_gpu = (batch_size.that_fits(model, NumpyExplainer(None, (64 * GIB, gpu)), None, None) for gpu in (0, 1))
    assert on_cpu == 1 < on_gpu <= 64
