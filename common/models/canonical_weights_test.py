import json

import numpy as np
import pytest

from common import errors
from common.models import architectures, canonical_weights, configs, initial_weights

CONFIG = configs.ConvLSTMConfig(3, (2, 16, 16), num_layers=1, filters=2)


@pytest.fixture
def arrays():
    return initial_weights.initial_weights(CONFIG, seed=0)


def test_round_trip_is_bit_exact_and_carries_the_config(tmp_path, arrays):
    canonical_weights.save(tmp_path / "w.safetensors", arrays, CONFIG)
    loaded, config = canonical_weights.load(tmp_path / "w.safetensors")
    assert config == CONFIG
    assert loaded.keys() == architectures.weights(CONFIG).keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == np.float32


def test_float64_weights_are_stored_as_float32(tmp_path, arrays):
    double = {name: array.astype(np.float64) for name, array in arrays.items()}
    canonical_weights.save(tmp_path / "w.safetensors", double, CONFIG)
    assert {array.dtype for array in canonical_weights.load(tmp_path / "w.safetensors")[0].values()} == {np.dtype("f4")}


def test_every_fault_is_listed_in_one_error(arrays):
    del arrays["Logits/bias"]
    arrays["Logits/scale"] = np.zeros(3)
    arrays["Logits/kernel"] = arrays["Logits/kernel"].T
    with pytest.raises(errors.UserError) as caught:
        canonical_weights.check(arrays, CONFIG, "here")
    assert str(caught.value) == (
        "Weights must have exactly the names and shapes of the conv_lstm config. Received from here: "
        "missing: Logits/bias; unexpected: Logits/scale; misshapen: Logits/kernel (3, 64) instead of (64, 3)"
    )


def test_files_that_are_no_canonical_weights_are_refused(tmp_path, arrays):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(errors.UserError, match="readable safetensors file"):
        canonical_weights.load(path)
    with pytest.raises(errors.UserError, match="readable safetensors file"):
        canonical_weights.load(tmp_path / "none")
    canonical_weights.save_arrays(path, arrays, {})
    with pytest.raises(
        errors.UserError, match="Weights must have the format canonical-video-weights-1. Received: None"
    ):
        canonical_weights.load(path)


def test_a_failed_save_keeps_the_old_file(tmp_path, arrays):
    path = tmp_path / "w.safetensors"
    canonical_weights.save(path, arrays, CONFIG)
    before = path.read_bytes()
    with pytest.raises(errors.UserError):
        canonical_weights.save(path, {}, CONFIG)
    with pytest.raises(TypeError):
        canonical_weights.save_arrays(path, arrays, {"bad": object()})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    json.dumps(configs.to_dict(CONFIG))
