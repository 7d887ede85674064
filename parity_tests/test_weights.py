import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common import errors
from common.models import architectures, canonical_weights, configs
from parity_tests import twins
from tf_impl import weights as tf_weights
from torch_impl import weights as torch_weights

_CONFIGS = {
    "i3d": configs.I3DConfig(5, (8, 32, 32), width=0.125),
    "conv_lstm": configs.ConvLSTMConfig(5, (4, 20, 20), num_layers=2, filters=4),
    "conv_lstm own": configs.ConvLSTMConfig(5, (4, 20, 20), num_layers=2, filters=4, share_batch_norm=False),
}


@pytest.mark.parametrize("name", _CONFIGS)
def test_torch_file_tf_file_torch_is_bit_exact(name, tmp_path):
    config, first, second = _CONFIGS[name], tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    arrays = twins.trained_weights(config)
    ours = torch_weights.build_model(config, arrays=arrays)
    canonical_weights.save(first, torch_weights.get_weights(ours), config)
    theirs = tf_weights.build_model(config, arrays=canonical_weights.load(first)[0])
    canonical_weights.save(second, tf_weights.get_weights(theirs), config)
    assert first.read_bytes() == second.read_bytes()
    back = torch_weights.build_model(config, arrays=canonical_weights.load(second)[0])
    for weight, array in torch_weights.get_weights(back).items():
        np.testing.assert_array_equal(array, arrays[weight], strict=True)


@pytest.mark.parametrize("name", _CONFIGS)
def test_names_order_and_first_numbers_are_the_same(name):
    config = _CONFIGS[name]
    ours = torch_weights.get_weights(torch_weights.build_model(config, seed=7))
    theirs = tf_weights.get_weights(tf_weights.build_model(config, seed=7))
    assert list(ours) == list(theirs) == list(architectures.weights(config))
    for weight, array in ours.items():
        np.testing.assert_array_equal(array, theirs[weight], strict=True)
    assert list(torch_weights.trainable(torch_weights.build_model(config))) == list(
        tf_weights.trainable(tf_weights.build_model(config))
    )


def _without(arrays):
    return {name: array for name, array in arrays.items() if not name.endswith("bias")}


def _with_more(arrays):
    return {**arrays, "Mixed_9z/kernel": np.zeros(3, np.float32)}


def _transposed(arrays):
    return {name: array.T if name == "Logits/kernel" else array for name, array in arrays.items()}


@pytest.mark.parametrize("spoil", [_without, _with_more, _transposed])
def test_both_refuse_in_the_same_words_and_copy_nothing(spoil):
    config = _CONFIGS["conv_lstm"]
    messages = []
    for module in (torch_weights, tf_weights):
        model = module.build_model(config)
        with pytest.raises(errors.UserError) as refusal:
            module.load_weights(model, spoil(twins.trained_weights(config)))
        messages.append(str(refusal.value))
        np.testing.assert_array_equal(
            module.get_weights(model)["BatchNorm_1/moving_mean"], np.zeros(4), "nothing was copied"
        )
    assert messages[0] == messages[1]
    assert (
        "Weights must have exactly the names and shapes of the conv_lstm config. Received from the caller: "
        in messages[0]
    )
