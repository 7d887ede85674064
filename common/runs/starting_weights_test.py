import dataclasses

import numpy as np
import pytest

from common import errors
from common.models import architectures, canonical_weights, configs, initial_weights
from common.runs import starting_weights
from common.runs.run_directory import RunConfig, RunDirectory

I3D = configs.I3DConfig(4, (8, 32, 32), width=1 / 16, temporal_strides="original")
CLASSES = ("a", "b", "c", "d")
HEAD = ("Logits/Conv3d_0c_1x1/kernel", "Logits/Conv3d_0c_1x1/bias")


def training(model=I3D, **changes):
    return dataclasses.replace(configs.TrainConfig(model, "adam", epochs=1), **changes)


def drawn_for(config):
    return initial_weights.initial_weights(config.model, seed=7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "run"
    run = RunDirectory(path)
    data = {"dataset": "tiny", "input_shape": list(I3D.input_shape), "resize": "stretch", "subsampling": "linspace"}
    run.create(RunConfig(training(), {**data, "class_names": list(CLASSES)}, "clips", "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(I3D, seed=1), I3D)
    return path


@pytest.fixture(scope="module")
def source(run):
    return starting_weights.read(run)


def test_a_run_is_read_with_its_classes_and_a_file_without(run, source):
    assert (source.class_names, source.model) == (CLASSES, I3D)
    file = starting_weights.read(run / "weights.safetensors")
    assert file.class_names is None and file.digest == source.digest and len(file.digest) == 64
    np.testing.assert_array_equal(file.weights[HEAD[0]], source.weights[HEAD[0]])


def test_what_is_no_run_and_no_weights_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(errors.UserError, match="must hold config.json|readable safetensors"):
            starting_weights.read(path)


def test_published_weights_are_left_to_their_command(tmp_path):
    for content in (b"PK\x03\x04 a zip of PyTorch", b"\x80\x04a pickle", b""):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(errors.UserError, match="import_weights.py makes a run of published weights. Received: "):
            starting_weights.read(tmp_path / "model.pt")


def test_the_same_model_and_classes_keep_everything(source):
    config = training()
    fitted = starting_weights.fit(source, config, CLASSES, drawn_for(config))
    assert set(fitted.kept) == set(source.weights) and fitted.drawn == fitted.left_out == ()
    for name, array in source.weights.items():
        np.testing.assert_array_equal(fitted.weights[name], array)


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        (dataclasses.replace(I3D, num_classes=3), ("a", "b", "c")),
        (I3D, ("a", "b", "c", "e")),  # As many classes, and not the same ones.
        (I3D, ("b", "a", "c", "d")),
    ],
)
def test_the_head_is_drawn_where_classes_differ(source, model, classes):
    config = training(model)
    drawn = drawn_for(config)
    fitted = starting_weights.fit(source, config, classes, drawn)
    assert set(fitted.drawn) == set(fitted.left_out) == set(HEAD)
    assert len(fitted.kept) == len(drawn) - 2
    for name, array in fitted.weights.items():
        np.testing.assert_array_equal(array, drawn[name] if name in HEAD else source.weights[name])
    report = starting_weights.report(source, config, fitted).splitlines()
    assert report[1].startswith(f"  kept: {len(drawn) - 2} arrays: Conv3d_1a_7x7, Conv3d_2b_1x1,")
    assert report[1].endswith("Mixed_5b, Mixed_5c")
    assert report[2:] == ["  drawn: 2 arrays: Logits", "  left out: 2 arrays: Logits"]


def test_without_names_shapes_decide(run):
    source = starting_weights.read(run / "weights.safetensors")
    config = training()
    assert not starting_weights.fit(source, config, ("x", "y", "z", "w"), drawn_for(config)).drawn


def test_what_no_shape_tells_is_said(source):
    model = dataclasses.replace(I3D, temporal_strides="paper", normalization="raw", input_shape=(16, 64, 64))
    config = training(model)
    fitted = starting_weights.fit(source, config, CLASSES, drawn_for(config))
    assert starting_weights.report(source, config, fitted).splitlines()[2:] == [
        "  drawn: 0 arrays",
        "  left out: 0 arrays",
        "  temporal_strides: original there, paper here",
        "  normalization: minus_one_to_one there, raw here",
    ]


def test_single_weights_that_do_not_fit_are_drawn_and_named(source):
    odd = {"Conv3d_1a_7x7/kernel": np.zeros((5, 7, 7, 3, 4), np.float32), HEAD[0]: np.zeros((64, 4), np.float32)}
    source = dataclasses.replace(source, weights=source.weights | odd)
    config = training()
    fitted = starting_weights.fit(source, config, CLASSES, drawn_for(config))
    # The bias of the head fits, but it is of one layer with the kernel.
    assert set(fitted.drawn) == set(fitted.left_out) == {"Conv3d_1a_7x7/kernel", *HEAD}
    report = starting_weights.report(source, config, fitted).splitlines()
    assert report[1].startswith("  kept: 284 arrays: Conv3d_1a_7x7/gamma, Conv3d_1a_7x7/beta, ")
    assert report[2:] == [f"  {what}: 3 arrays: Conv3d_1a_7x7/kernel, Logits" for what in ("drawn", "left out")]
    with pytest.raises(
        errors.UserError, match="--freeze=Conv3d_2b_1x1 keeps .* 1 such .* not fit, Conv3d_1a_7x7/kernel"
    ):
        starting_weights.fit(source, training(freeze="Conv3d_2b_1x1"), CLASSES, drawn_for(config))


def test_another_architecture_is_refused(source):
    config = training(configs.ConvLSTMConfig(4, (8, 32, 32), num_layers=1, filters=2))
    with pytest.raises(errors.UserError, match="weights that fit the conv_lstm to be trained"):
        starting_weights.fit(source, config, CLASSES, drawn_for(config))


def test_frozen_layers_are_those_up_to_an_endpoint_and_never_all():
    def frozen(name, model=I3D):
        return [layer.name for layer in architectures.frozen_layers(training(model, freeze=name))]

    assert frozen("") == []
    assert frozen("Conv3d_2b_1x1") == ["Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1"]
    lstm = configs.ConvLSTMConfig(4, (8, 32, 32), num_layers=2, filters=2)
    assert frozen("BatchNorm_1", lstm) == ["ConvLSTM_1", "BatchNorm_1"]
    for name in ("Logits", "Mixed_9z", "mixed_3b"):
        with pytest.raises(errors.UserError, match="freeze must be one of Conv3d_1a_7x7, .*Mixed_5c. Received"):
            frozen(name)
