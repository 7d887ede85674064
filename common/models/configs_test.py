import dataclasses
import json

import pytest

from common import errors
from common.clips.augmentation import Augmentation
from common.models import architectures, configs

I3D = configs.I3DConfig(num_classes=3)
CONV_LSTM = configs.ConvLSTMConfig(num_classes=3)


def test_the_presets_are_table_2_of_the_paper():
    rows = {
        name: (p.model.dropout, p.weight_decay, p.optimizer, p.epochs, p.momentum)
        for name, p in configs.PRESETS.items()
        if not name.endswith(("planted", "synthetic"))
    }
    assert rows == {
        "i3d_something": (0.5, 0, "adam", 13, 0),
        "i3d_kth": (0.7, 5e-5, "adam", 30, 0),
        "conv_lstm_something": (0.0, 0, "sgd", 105, 0.2),
        "conv_lstm_kth": (0.5, 1e-4, "sgd", 21, 0.2),
    }
    for name in rows:
        preset = configs.PRESETS[name]
        assert (preset.learning_rate, preset.batch_size, preset.plateau_patience) == (1e-3, 16, 2)


@pytest.mark.parametrize("name", configs.PRESETS)
def test_json_round_trip(name):
    preset = configs.PRESETS[name]
    assert configs.train_config_from_dict(json.loads(json.dumps(configs.to_dict(preset)))) == preset


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (I3D, {"num_classes": 0}, "num_classes must be 1…1000000. Received: 0"),
        (I3D, {"dropout": 1.0}, r"in \[0, 1\). Received: 1.0"),
        (
            I3D,
            {"input_shape": (7, 224, 224)},
            r"frames >= 8, height >= 32, width >= 32\), each at most 65536. Received: \(7, 224, 224\)",
        ),
        (I3D, {"input_shape": (8, 31, 32)}, r"Received: \(8, 31, 32\)"),
        (I3D, {"head": "last_frame"}, "head must be one of mean, deepmind. Received: 'last_frame'"),
        (I3D, {"head": "deepmind", "input_shape": (16, 192, 224)}, "193"),
        (I3D, {"head": "deepmind", "temporal_strides": "original", "input_shape": (8, 224, 224)}, "9"),
        (I3D, {"temporal_strides": "mine"}, "temporal_strides must be one of paper, original. Received: 'mine'"),
        (I3D, {"width": 0.0}, r"width must be in \(0, 8\]. Received: 0.0"),
        (I3D, {"normalization": "zscore"}, "normalization must be one of minus_one_to_one, raw"),
        (
            CONV_LSTM,
            {"input_shape": (1, 62, 63)},
            r"height >= 63, width >= 63\), each at most 65536. Received: \(1, 62, 63\)",
        ),
        (CONV_LSTM, {"head": "mean"}, "head must be one of all_frames, last_frame. Received: 'mean'"),
        (CONV_LSTM, {"num_layers": 0}, "num_layers must be 1…8. Received: 0"),
        (CONV_LSTM, {"num_layers": 2**40}, "num_layers must be 1…8. Received: 1099511627776"),
        (CONV_LSTM, {"filters": 2**40}, "filters must be 1…16384. Received: 1099511627776"),
        (CONV_LSTM, {"input_shape": (2**40, 63, 63)}, r"each at most 65536. Received: \(1099511627776, 63, 63\)"),
        (CONV_LSTM, {"kernel_size": (3, 2**40)}, r"two numbers of 1…256. Received: \(3, 1099511627776\)"),
        (CONV_LSTM, {"kernel_size": (5,)}, "kernel_size must be two numbers of 1…256. Received: .5,."),
    ],
)
def test_a_model_that_cannot_be_is_refused(config, change, message):
    with pytest.raises(errors.UserError, match=message):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lamb"}, "optimizer must be one of adam, sgd. Received: 'lamb'"),
        ({"precision": "float16"}, "precision must be one of float32, tf32, bfloat16, float64"),
        ({"batch_size": 0}, "batch_size must be 1…1000000. Received: 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"learning_rate": float("inf")}, "both finite. Received: learning_rate=inf"),
        ({"weight_decay": -1.0}, "weight_decay not negative"),
        ({"weight_decay": float("inf")}, "weight_decay=inf"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"plateau_factor": 0.0}, r"plateau_factor in \(0, 1\]"),
        ({"crop": 0.0}, r"crop must be in \(0, 1\] and time_jitter not negative. Received: crop=0.0"),
        ({"time_jitter": -1}, "Received: crop=1.0, time_jitter=-1"),
        ({"mirror": (0, 1)}, "an entry for each of 6 classes. Received: 2"),
        ({"mirror": (1, 2, 0, 3, 4, 5)}, "mirror must name, for each class, the class whose mirror image it is"),
        ({"head_learning_rate": 0.0}, "head_learning_rate must be positive. Received: 0.0"),
        ({"head_learning_rate": float("inf")}, "head_learning_rate must be positive. Received: inf"),
    ],
)
def test_a_training_that_cannot_be_is_refused(change, message):
    with pytest.raises(errors.UserError, match=message):
        dataclasses.replace(configs.PRESETS["i3d_kth"], **change)


def test_a_model_of_an_earlier_version_has_the_head_that_there_was():
    values = configs.to_dict(I3D)
    del values["head"]
    assert configs.model_config_from_dict(values) == I3D
    assert I3D.head == "mean"


def test_a_training_with_mirror_images_comes_back_from_json():
    config = dataclasses.replace(configs.PRESETS["i3d_kth"], mirror=(0, 2, 1, 3, 4, 5), crop=0.8, time_jitter=1)
    assert configs.train_config_from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config


def test_a_training_of_an_earlier_version_drew_and_trained_everything_and_changed_no_clip():
    preset = configs.PRESETS["i3d_kth"]
    values = configs.to_dict(preset)
    for name in ("init", "freeze", "head_learning_rate", "crop", "mirror", "time_jitter"):
        del values[name]
    assert configs.train_config_from_dict(values) == preset
    assert (preset.init, preset.freeze, preset.head_learning_rate, preset.head_rate_factor) == ("", "", None, 1)
    assert preset.augmentation == Augmentation()


def test_deepminds_head_fits_the_least_clips_that_it_takes():
    for strides, frames in (("original", 9), ("paper", 8)):
        config = configs.I3DConfig(3, (frames, 193, 193), temporal_strides=strides, head="deepmind")
        time, height, width, _ = architectures.layers(config)[-2].output_shape
        assert min(time, 2) == 2 and (height, width) == (7, 7)


def test_unknown_and_missing_fields_are_all_listed():
    values = configs.to_dict(I3D)
    del values["dropout"]
    with pytest.raises(errors.UserError, match=r"Missing: \['dropout'\], unexpected: \['drop'\]"):
        configs.model_config_from_dict({**values, "drop": 0.5})
    for model in ("c3d", None, ["i3d"], {}):
        with pytest.raises(errors.UserError, match=r"one of \['conv_lstm', 'i3d'\] as `model`. Received: .* in here"):
            configs.model_config_from_dict({"model": model}, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"epochs": "13"},
            r"TrainConfig|Training must have .* Received: Expected `int`, got `str` at `\$.train.epochs` in f",
        ),
        ({"learning_rate": None}, r"Expected `float`, got `null` at `\$.train.learning_rate` in f"),
        ({"epochs": -1}, "epochs must be 0…1000000. Received: -1"),
        ({"model": "i3d"}, "must have a model config as `model`. Received: 'i3d' in f"),
        ({"model": {**configs.to_dict(I3D), "dropout": True}}, r"got `bool` at `\$.train.model.dropout` in f"),
        ({"model": {**configs.to_dict(I3D), "dropout": 2.0}}, r"in \[0, 1\). Received: 2.0 in f"),
        (
            {"model": {**configs.to_dict(I3D), "input_shape": [16, 224]}},
            r"length 3, got 2 at `\$.train.model.input_shape`",
        ),
    ],
)
def test_fields_of_other_types_are_named(change, message):
    values = {**configs.to_dict(configs.PRESETS["i3d_kth"]), **change}
    with pytest.raises(errors.UserError, match=message):
        configs.train_config_from_dict(values, "f", "$.train")


def test_the_least_conv_lstm_frame_leaves_one_pixel():
    rows = {layer.name: layer.output_shape for layer in architectures.layers(configs.ConvLSTMConfig(2, (1, 63, 63)))}
    assert rows["MaxPool_3"] == (1, 1, 1, 32)
