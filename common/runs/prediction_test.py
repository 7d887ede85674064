"""Every clip is predicted once, by whichever process, among the same clips as in one process."""

import numpy as np
import pytest

from common.clips import tiny_store_for_tests
from common.clips.clip_store import ClipStore
from common.runs import prediction
from common.runs.processes_test import together


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
def test_processes_share_the_clips(tmp_path, count, batch_size):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 3, "validation": 7})
    store = ClipStore(tmp_path / "clips", "validation")
    seen = []

    def predict_batch(frames):
        means = frames.mean(axis=(1, 2, 3, 4))
        seen.extend(means)
        return np.stack([means, np.full_like(means, frames.mean())], axis=1)  # Rounding may depend on the others.

    expected = prediction.predict(predict_batch, store, batch_size=batch_size)
    alone, seen = seen, []

    def predict(those):
        own = ClipStore(tmp_path / "clips", "validation")
        return prediction.predict(predict_batch, own, batch_size=batch_size, num_threads=1, processes=those)

    for logits in together(count, predict):
        np.testing.assert_array_equal(logits, expected)
    assert sorted(seen) == sorted(alone) and len(alone) == 7
