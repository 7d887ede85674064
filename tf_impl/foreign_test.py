"""Adapters against Keras and TensorFlow: small models that are saved, loaded, and asked for what they said before."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import errors
from common.explaining.gradcam_maps import GradCamConfig
from common.models.foreign import Spec
from tf_impl import foreign, gradcam

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")  # Keras' own.

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)


def small(*last, rescaling=True, shape=(4, 16, 16, 3), axes="channels_last"):
    """Returns a 3-D CNN of three classes, with layers of one's own after its logits."""
    return keras.Sequential(
        [
            keras.Input(shape),
            *([keras.layers.Rescaling(1 / 255)] if rescaling else []),
            keras.layers.Permute((2, 3, 4, 1)) if axes == "channels_first" else keras.layers.Identity(),
            keras.layers.Conv3D(4, 3, strides=2, padding="same", activation="relu", name="conv"),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=3, seed=1), name="logits"),
            *last,
        ]
    )


def load(path, kind="keras", pixels="", endpoint="", **values):
    return foreign.load(Spec(kind, str(path), pixels=pixels), endpoint, device="cpu", **values)


def scores(model):
    return model.score_fn(tf.cast(CLIPS, tf.float32)).numpy()


def softmax_of(model, clips):
    return tf.nn.softmax(model(clips.astype(np.float32), training=False)).numpy()


def test_a_keras_file_says_what_it_said_before_it_was_saved(tmp_path):
    model = small()
    model.save(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras")
    np.testing.assert_allclose(scores(loaded), softmax_of(model, CLIPS), atol=1e-6)
    assert np.abs(np.diff(scores(loaded), axis=0)).max() > 1e-4  # A hundred times what is tolerated above.
    assert (loaded.name, loaded.kind, loaded.clip_shape) == ("net", "keras:net", (4, 16, 16))
    assert loaded.versions == {"keras": keras.__version__} and len(loaded.digest) == 64


def test_a_softmax_at_the_end_is_not_taken_twice(tmp_path):
    model = small(keras.layers.Softmax())
    model.save(tmp_path / "net.keras")
    expected = model(CLIPS.astype(np.float32), training=False)
    np.testing.assert_allclose(scores(load(tmp_path / "net.keras")), expected, atol=1e-6)


def test_classes_that_do_not_exclude_one_another_are_refused(tmp_path):
    small(keras.layers.Activation("sigmoid")).save(tmp_path / "net.keras")
    with pytest.raises(errors.UserError, match="probabilities whose sum is 1, or logits"):
        load(tmp_path / "net.keras")


@pytest.mark.parametrize(
    ("pixels", "change"),
    [("0..255", lambda x: x * 1.0), ("0..1", lambda x: x / 255), ("-1..1", lambda x: x / 127.5 - 1)],
)
def test_the_user_says_which_range_a_model_takes_that_does_not(tmp_path, pixels, change):
    model = small(rescaling=False)
    model.save(tmp_path / "net.keras")
    with pytest.raises(errors.UserError, match=r"--pixels must say which range of pixels net takes, 0\.\.255, 0\.\.1"):
        load(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras", pixels=pixels)
    np.testing.assert_allclose(scores(loaded), softmax_of(model, change(CLIPS)), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "order", "axes"), [((3, 4, 16, 16), (0, 4, 1, 2, 3), "channels_first"), ((None, None, None, 3), None, "")]
)
def test_shape_and_order_of_axes_are_the_models(tmp_path, shape, order, axes):
    model = small(shape=shape, axes=axes)
    model.save(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras")
    clips = CLIPS.transpose(order) if order else CLIPS
    np.testing.assert_allclose(scores(loaded), softmax_of(model, clips), atol=1e-6)
    assert loaded.clip_shape == ((4, 16, 16) if order else (None, None, None))


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (keras.layers.Rescaling(1 / 127.5, offset=-1), True),
        (keras.layers.Rescaling(2, offset=-1), False),
        (keras.layers.Normalization(mean=[110.0] * 3, variance=[3000.0] * 3), True),
        (keras.layers.Normalization(mean=[0.45] * 3, variance=[0.05] * 3), False),
    ],
)
def test_a_layer_says_the_range_only_where_no_other_range_makes_sense(tmp_path, layer, says):
    keras.Sequential([keras.Input((4, 16, 16, 3)), layer, small(rescaling=False)]).save(tmp_path / "net.keras")
    if says:
        assert np.isfinite(scores(load(tmp_path / "net.keras"))).all()
    else:
        with pytest.raises(errors.UserError, match="--pixels must say which range"):
            load(tmp_path / "net.keras")
    assert np.isfinite(scores(load(tmp_path / "net.keras", pixels="0..255"))).all()


def test_logits_of_one_clip_that_look_like_probabilities_are_still_logits(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 16, 16, 3)), keras.layers.GlobalAveragePooling3D(), keras.layers.Dense(2, name="logits")]
    )
    # Grey gives (0.25, 0.75), and darker or brighter clips what no probabilities are.
    model.set_weights([np.full((3, 2), 1.0, np.float32) / 3, np.array([0.25, 0.75], np.float32) - 127.5])
    model.save(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras", pixels="0..255")
    np.testing.assert_allclose(scores(loaded), softmax_of(model, CLIPS), atol=1e-5)


def test_a_model_of_any_shape_may_want_large_clips(tmp_path):
    keras.Sequential(
        [
            keras.Input((None, None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.AveragePooling3D((1, 80, 80)),  # Nothing is left of 64 px.
            keras.layers.Conv3D(4, 1),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(3),
        ]
    ).save(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras")
    assert loaded.score_fn(tf.zeros((1, 4, 90, 90, 3))).shape == (1, 3)
    with pytest.raises(errors.UserError, match="A model must take clips of T x H x W = 4 x 32 x 32. Received: [^E]"):
        tf.function(loaded.score_fn, autograph=False).get_concrete_function(tf.TensorSpec((None, 4, 32, 32, 3)))


def test_a_model_of_several_inputs_is_refused(tmp_path):
    inputs = [keras.Input((4, 16, 16, 3), name="rgb"), keras.Input((4, 16, 16, 2), name="flow")]
    keras.Model(inputs, small()(inputs[0])).save(tmp_path / "net.keras")
    with pytest.raises(errors.UserError, match="clips and nothing else. Received: .* with rgb, flow"):
        load(tmp_path / "net.keras")


def test_grad_cam_has_the_axes_of_the_layers_where_a_model_permutes_its_clips(tmp_path):
    small(shape=(3, 4, 16, 16), axes="channels_first").save(tmp_path / "net.keras")
    loaded = load(tmp_path / "net.keras", endpoint="conv")
    _, activations = loaded.endpoint_fn(tf.cast(CLIPS, tf.float32))
    assert activations.shape == (2, 2, 8, 8, 4)


@pytest.mark.parametrize("shape", [(4, 16, 16, 1), (16, 16, 3)])
def test_what_takes_no_clips_is_refused(tmp_path, shape):
    keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(3)]).save(tmp_path / "a.keras")
    with pytest.raises(errors.UserError, match=re.escape(f"Received: {(None, *shape)}")):
        load(tmp_path / "a.keras", pixels="0..1")


def test_grad_cam_is_of_the_last_layer_of_clips_unless_another_is_asked_for(tmp_path):
    model = small()
    model.save(tmp_path / "net.keras")
    clips, targets = tf.cast(CLIPS, tf.float32), softmax_of(model, CLIPS).argmax(axis=1)
    for endpoint, layer, shape in (("", "dropout", (2, 2, 8, 8)), ("conv", "conv", (2, 2, 8, 8))):
        loaded = load(tmp_path / "net.keras", endpoint=endpoint)
        layer = next(own.name for own in model.layers if own.name.startswith(layer))
        maps = gradcam.gradcam(loaded.endpoint_fn, clips, targets, GradCamConfig())
        expected = gradcam.gradcam(gradcam.endpoint_fn(model, layer), clips, targets, GradCamConfig())
        assert maps.shape == shape and maps.max() > 0
        np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())


def test_after_a_softmax_the_logarithms_stand_for_logits(tmp_path):
    small(keras.layers.Softmax()).save(tmp_path / "net.keras")
    maps = gradcam.gradcam(
        load(tmp_path / "net.keras").endpoint_fn, tf.cast(CLIPS, tf.float32), [0, 1], GradCamConfig()
    )
    assert maps.shape == (2, 2, 8, 8) and np.isfinite(maps).all()


def test_a_saved_model_is_asked_by_its_signature(tmp_path):
    model = small(shape=(4, None, None, 3))
    model.export(tmp_path / "saved", verbose=False)
    loaded = load(tmp_path / "saved", "saved_model", "0..255")
    np.testing.assert_allclose(scores(loaded), softmax_of(model, CLIPS), atol=1e-6)
    assert loaded.clip_shape == (4, None, None) and loaded.endpoint_fn is None
    clips = tf.Variable(tf.cast(CLIPS, tf.float32))
    with tf.GradientTape() as tape:
        score = tf.reduce_sum(loaded.score_fn(clips)[:, 0])
    assert tape.gradient(score, clips).numpy().any()  # Masks can be learnt.
    with pytest.raises(errors.UserError, match="--pixels must say"):
        load(tmp_path / "saved", "saved_model")
    with pytest.raises(errors.UserError, match=r"which has masks and all methods but Grad-CAM .* Received: 'conv'"):
        load(tmp_path / "saved", "saved_model", "0..255", "conv")


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04broken")
    (tmp_path / "folder").mkdir()
    cases = [
        ("keras", "broken.keras", "must be a model of Keras"),
        ("keras", "none.keras", "must be a model of Keras"),
        ("keras", "net.h5", "a file that ends in .keras"),
        ("saved_model", "folder", "a folder with a signature serving_default"),
        ("saved_model", "none", "a folder with a signature serving_default"),
        ("transformers", "x", "must be given to a command of torch_impl"),
    ]
    for kind, name, message in cases:
        with pytest.raises(errors.UserError, match=message):
            load(tmp_path / name, kind)


def test_code_in_a_file_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((4, 16, 16, 3)), keras.layers.Lambda(lambda x: x[:, 0, 0, 0])])
    model.save(tmp_path / "net.keras")
    with pytest.raises(errors.UserError, match="must be a model of Keras. Received: .*ambda"):
        load(tmp_path / "net.keras")


def test_settings_that_a_file_has_itself_are_refused(tmp_path):
    with pytest.raises(errors.UserError, match="--precision must be float32 for keras:"):
        load(tmp_path / "net.keras", precision="bfloat16")
    with pytest.raises(errors.UserError, match="--weights must be left out for keras:"):
        foreign.load(Spec("keras", "net.keras", tmp_path / "w"))
    with pytest.raises(errors.UserError, match="--pixels must be left out for python:"):
        foreign.load(Spec("python", "a:b", pixels="0..1"))


def test_a_users_own_function_is_asked_as_it_is(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_tf_model.py").write_text(
        "import tensorflow as tf\nfrom common.models.foreign import ForeignModel\n\n\n"
        "def make():\n    return ForeignModel('mine', 'my own', score_fn, ('a', 'b', 'c'), (4, None, None))\n\n\n"
        "def score_fn(clips):\n    return tf.nn.softmax(tf.reduce_mean(clips, axis=(1, 2, 3)))\n"
    )
    model = foreign.load(Spec("python", "own_tf_model:make"))
    assert (model.name, model.kind, model.class_names) == ("mine", "my own", ("a", "b", "c"))
    np.testing.assert_allclose(scores(model).sum(axis=1), 1, atol=1e-6)
