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


def test_of_many_faults_the_first_are_named(arrays):
    other = {f"RGB/{name}": array for name, array in arrays.items()}
    with pytest.raises(errors.UserError, match=r"missing: ConvLSTM_1/.* and 4 more; unexpected: RGB/.* and 4 more"):
        canonical_weights.check(other, CONFIG, "here")


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w", "DeepMind's"),
        ("Flow/inception_i3d/Mixed_3b/Branch_1/Conv3d_0b_3x3/batch_norm/beta", "DeepMind's"),
        ("Mixed_3b.b1a.conv3d.weight", "piergiaj's"),
        ("module.Conv3d_1a_7x7.bn.weight", None),
        ("module.Conv3d_1a_7x7.conv3d.weight", "piergiaj's"),
        ("logits.conv3d.bias", "piergiaj's"),
        ("mixed_3b.branch_1.0.conv3d.weight", "hassony2's"),
        ("conv3d_0c_1x1.conv3d.bias", "hassony2's"),
        ("conv1.weight", None),
    ],
)
def test_weights_of_other_releases_are_known_by_their_names(tmp_path, arrays, name, whose):
    others = {f"{name}{number}" if number else name: np.zeros(1, np.float32) for number in range(300)}
    canonical_weights.save_arrays(tmp_path / "w.safetensors", others, {})
    for refuse in (
        lambda: canonical_weights.load(tmp_path / "w.safetensors"),
        lambda: canonical_weights.check(others, CONFIG, "here"),
    ):
        with pytest.raises(errors.UserError) as caught:
            refuse()
        hint = f" (these are {whose} names: import_weights.py reads them)"
        assert str(caught.value).endswith(hint) if whose else "import_weights" not in str(caught.value)
        assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"config": 3}, r"The header of weights .* Expected `object`, got `int` at `\$.config` in .*w.safetensors"),
        ({}, "The header of weights .* Object missing required field `config` in"),
        (
            {"config": {**configs.to_dict(CONFIG), "filters": "2"}},
            r"got `str` at `\$.config.filters` in .*w.safetensors",
        ),
        (
            {"config": {**configs.to_dict(CONFIG), "num_layers": 2**40}},
            "num_layers must be 1…8. Received: 1099511627776",
        ),
    ],
)
def test_a_header_that_is_not_as_the_format_says_is_refused(tmp_path, arrays, header, message):
    path = tmp_path / "w.safetensors"
    canonical_weights.save_arrays(path, arrays, {"format": canonical_weights.FORMAT, **header})
    with pytest.raises(errors.UserError, match=message):
        canonical_weights.load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, arrays, bad):
    arrays["Logits/kernel"][1, 2] = bad
    path = tmp_path / "w.safetensors"
    canonical_weights.save(path, arrays, CONFIG)
    with pytest.raises(errors.UserError, match="must be finite. Received: 1 NaN or infinite values of Logits/kernel"):
        canonical_weights.load(path)


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F16", 2), ("F64", 8)])
def test_weights_of_another_dtype_are_refused(tmp_path, arrays, dtype, size):
    path = tmp_path / "w.safetensors"
    canonical_weights.save(path, arrays, CONFIG)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, offset = json.loads(data[8 : 8 + length]), 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = int(np.prod(entry["shape"])) * size
            entry.update(dtype=dtype, data_offsets=[offset, offset + count])
            offset += count
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))
    with pytest.raises(errors.UserError, match="Weights must be float32. Received: .* of .* in .*w.safetensors"):
        canonical_weights.load(path)


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
