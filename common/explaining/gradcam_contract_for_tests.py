"""What Grad-CAM does in either build. A build's test is a subclass that says how the build makes tensors and models."""

import collections
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from common import errors
from common.explaining import gradcam_maps, layer_axes
from common.explaining.gradcam_maps import GradCamConfig
from common.models import configs

I3D = configs.I3DConfig(5, (8, 33, 46), dropout=0.5, width=0.0625)
CONV_LSTM = configs.ConvLSTMConfig(5, (4, 40, 33), num_layers=2, filters=4, dropout=0.5)
MODELS = {"i3d": I3D, "conv_lstm": CONV_LSTM}

# One clip of 2 frames of 1 x 2 px and 2 channels; logits are Σ_t scale_t · mean over the frame · matrix [C, K] + bias.
CLIP = np.array([[[[[1, 2], [3, 0]]], [[[0, 4], [2, 2]]]]], np.float64)
SCALE, MATRIX = np.array([2.0, 6]), np.array([[1.0, -1], [-2, 1]])
BIAS = np.array([40.0, 0])  # Both logits are 10.


def random_clips(config, number=2):
    """Returns clips uint8 [N, T, H, W, 3] for a model."""
    return np.random.default_rng(0).integers(0, 256, (number, *config.input_shape, 3), dtype=np.uint8)


def own_clips():
    """Returns clips float64 [2, 4, 5, 6, 3], 0…1."""
    return np.random.default_rng(1).random((2, 4, 5, 6, 3))


class ModelOutput(collections.OrderedDict):
    """What models of Hugging Face return."""


Output = collections.namedtuple("Output", ["features", "logits"])
PATCH = (2, 2, 3)
KERNEL = np.random.default_rng(2).normal(size=(*PATCH, 3, 4))  # T, H, W, C, D
HEAD = np.random.default_rng(3).normal(size=(4, 5))
CLASS_TOKEN = 0.3


def token_clips():
    """Returns clips float64 [2, 4, 4, 6, 3], 0…1."""
    return np.random.default_rng(4).random((2, 4, 4, 6, 3))


def patches(clips):
    """Returns the tokens [N, T', H', W', D] of `token_clips`."""
    cut = clips.reshape(len(clips), 2, 2, 2, 2, 2, 3, 3)
    return np.einsum("natbhcwi,thwid->nabcd", cut, KERNEL)


class GradCamContract:
    """The tests that both builds share.

    Attributes:
      gradcam: the build's module.
      tensor: array -> tensor.
      softmax: logits [N, K] -> probabilities.
      build_model: the build's `weights.build_model`.
      by_hand: an endpoint function, clips -> the logits that SCALE, MATRIX and BIAS give, and the clips as activations.
      gradient_by_hand: (model, clips, targets, endpoint) -> activations of one of our models and the gradient of the
        targets' logits in them, without Grad-CAM's own way of getting it.
      own_model: () -> a user's float64 model of 5 classes with the layers conv (of 4 channels), relu, norm (running
        variances 1, 2, 3, 4), pool, drop and fc.
      own_parts: (own model, clips) -> activations of conv, kernel [K, C] of fc, standard deviations [C] of norm.
      twice: () -> a model whose layer "twice" it calls twice: 3 · means over T, H, W of twice(2 · twice(clips)), and
        whose layer "never" it does not call.
      returning: pack -> a model with a layer conv that returns what `pack` makes of its logits, the means of conv.
      permuted: (clips_axes, activations_axes) -> a float64 model that takes clips in an order of axes, and has the
        layers conv, of 7 channels, and out, which returns the same in another order.
      frame_wise: () -> a model with a layer "frames" whose output is of single frames.
      tokens: (axes, class_tokens, pack) -> a float64 model that cuts clips [N, 4, 4, 6, 3] into patches of 2 x 2 x 3,
        times KERNEL, and lays them out by `axes` after class tokens, in a layer "tokens" that returns what `pack` makes
        of them; logits are the mean over tokens of their tanh, times HEAD.
      attentive: attentions, each [N, heads, L, L] -> a model whose layers "attention_0", … return (clips, attention).
      deep: () -> the own model within another one, which gives it no name that a user knows; that user's path to conv.
    """

    gradcam: ModuleType
    tensor: Callable
    softmax: Callable
    build_model: Callable
    by_hand: Callable
    gradient_by_hand: Callable
    own_model: Callable
    own_parts: Callable
    twice: Callable
    returning: Callable
    permuted: Callable
    frame_wise: Callable
    tokens: Callable
    attentive: Callable
    deep: Callable

    def maps(self, endpoint_fn, clips, targets, config: Any = GradCamConfig()):  # noqa: B008
        return self.gradcam.gradcam(endpoint_fn, self.tensor(clips), targets, config)

    @pytest.mark.parametrize(
        ("config", "target", "expected"),
        [
            # The gradient of logit k in frame t is scale_t / 2 · matrix[:, k]: (-1, 1) and (-3, 3) for class 1.
            (GradCamConfig(), 1, [[[1, 0]], [[12, 0]]]),
            (GradCamConfig(), 0, [[[0, 3]], [[0, 0]]]),
            (GradCamConfig(weights="clip"), 1, [[[2, 0]], [[8, 0]]]),
            # Probabilities are 0.5, so the gradient is 0.25 (that of logit 1 less that of 0): scale_t / 8 · (-2, 3).
            (GradCamConfig(score="probability"), 1, [[[1, 0]], [[9, 1.5]]]),
        ],
    )
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_linear_model_by_hand(self, config, target, expected, dtype):
        maps = self.maps(self.by_hand, CLIP.astype(dtype), [target], config)
        assert maps.dtype == dtype
        np.testing.assert_allclose(maps, [expected], atol=1e-5 if dtype == "float32" else 1e-12)

    def test_each_clip_has_its_target(self):
        maps = self.maps(self.by_hand, np.concatenate([CLIP] * 2), np.array([1, 0]))
        np.testing.assert_allclose(maps, [[[[1, 0]], [[12, 0]]], [[[0, 3]], [[0, 0]]]], atol=1e-12)

    def test_activations_of_zero_give_a_map_of_zero(self):
        np.testing.assert_array_equal(self.maps(self.by_hand, np.zeros(CLIP.shape), [1]), np.zeros((1, 2, 1, 2)))

    def check_endpoint(self, name, asked, endpoint):
        config, targets = MODELS[name], np.array([3, 1, 0, 2])
        model, clips = self.build_model(config, "float64"), random_clips(config, 4)
        received = self.maps(self.gradcam.endpoint_fn(model, asked), clips, targets)
        expected = gradcam_maps.combine(*self.gradient_by_hand(model, self.tensor(clips), targets, endpoint))
        assert expected.max() > 0
        assert received.dtype == np.float64
        np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9 * expected.max())

    @pytest.mark.parametrize(("name", "endpoint"), [("i3d", "Mixed_5c"), ("conv_lstm", "ConvLSTM_2")])
    def test_without_a_name_the_endpoint_is_the_papers(self, name, endpoint):
        self.check_endpoint(name, "", endpoint)

    @pytest.mark.parametrize("name", MODELS)
    def test_a_clip_does_not_see_its_batch(self, name):
        config, targets = MODELS[name], np.array([3, 1, 0])
        model, clips = self.build_model(config, "float64"), self.tensor(random_clips(config, 3))
        cam = self.gradcam.GradCam(self.gradcam.endpoint_fn(model), GradCamConfig(score="probability"))
        together = cam(clips, targets)
        alone = np.concatenate([cam(clips[i : i + 1], targets[i : i + 1]) for i in range(3)])
        assert together.max() > 0
        np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-9 * together.max())
        self.check_batches_of_all_sizes_were_cheap(cam)

    def check_batches_of_all_sizes_were_cheap(self, cam):
        pass

    def test_bfloat16_gives_float32_near_that_of_float32(self):
        models = [self.build_model(CONV_LSTM, precision) for precision in ("float32", "bfloat16")]
        maps = [self.maps(self.gradcam.endpoint_fn(model), random_clips(CONV_LSTM), [0, 1]) for model in models]
        assert maps[1].dtype == np.float32
        np.testing.assert_allclose(maps[1], maps[0], rtol=0, atol=0.05 * maps[0].max())

    def check_own_model(self, model, endpoint="conv"):
        clips, targets = own_clips(), np.array([4, 2])
        maps = self.maps(self.gradcam.endpoint_fn(model, endpoint), clips, targets)
        activations, kernel, deviations = self.own_parts(model, clips)
        gradients = (activations > 0) * (kernel[targets] / deviations)[:, None, None, None] / (4 * 5 * 6)
        expected = np.maximum((activations * gradients.mean((2, 3), keepdims=True)).sum(-1), 0)
        assert expected.max() > 0
        np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)

    def test_a_users_own_model(self):
        self.check_own_model(self.own_model())

    def test_of_several_calls_the_first_counts(self):
        clips = own_clips()
        maps = self.maps(self.gradcam.endpoint_fn(self.twice(), "twice"), clips, [0, 2])
        np.testing.assert_allclose(maps, np.stack([clips[0, ..., 0], clips[1, ..., 2]]) * 6 / 120, rtol=1e-12)

    def test_a_layer_that_is_not_called(self):
        with pytest.raises(errors.UserError, match="must call the endpoint. Received: no call of 'never'"):
            self.maps(self.gradcam.endpoint_fn(self.twice(), "never"), own_clips(), [0, 1])

    @pytest.mark.parametrize("axes", [("NTHWC", "NCTHW"), ("NCTHW", "NTHWC"), ("NTCHW", "NTCHW")])
    def test_axes_of_clips_and_of_activations_are_two_settings(self, axes):
        model, clips = self.permuted(*axes), own_clips()
        conv = self.maps(self.gradcam.endpoint_fn(model, "conv", clips_axes=axes[0]), clips, [0, 1])
        out = self.gradcam.endpoint_fn(model, "out", clips_axes=axes[0], activations_axes=axes[1])
        assert conv.shape == (2, 4, 5, 6) and conv.max() > 0
        np.testing.assert_allclose(self.maps(out, clips, [0, 1]), conv, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(
        ("made", "taken", "received"),
        [
            ("NCTHW", "NTHWC", r"\(2, 7, 4, 5, 6\)"),
            ("NTHWC", "NCTHW", r"\(2, 5, 6, 7, 4\)"),
            ("NTCHW", "NTHWC", r"\(2, 4, 7, 5, 6\)"),
        ],
    )
    def test_maps_larger_than_the_clip_are_refused(self, made, taken, received):
        received = received.replace("2", "(2|None)", 1)  # None: traced.
        fn = self.gradcam.endpoint_fn(self.permuted("NTHWC", made), "out", "NTHWC", taken)
        with pytest.raises(errors.UserError, match=rf"at most the clip's T, H, W .*activations_axes.*: {received} of"):
            self.maps(fn, own_clips(), [0, 1])

    def test_axes_that_contradict_the_layer_are_refused(self):
        wrong = {"NTHWC": "NCTHW", "NCTHW": "NTHWC"}[self.gradcam.LAYER_AXES]
        with pytest.raises(
            errors.UserError, match=rf"C where the layer has its channels, axis [14]. Received: '{wrong}'"
        ):
            self.gradcam.endpoint_fn(self.own_model(), "conv", activations_axes=wrong)

    @pytest.mark.parametrize("name", ["clips_axes", "activations_axes"])
    @pytest.mark.parametrize("axes", ["NTHW", "NTHWCC", "nthwc", "channels_last"])
    def test_axes_that_are_none_are_refused(self, name, axes):
        with pytest.raises(errors.UserError, match=f"must be the letters NTHWC in some order.* Received: '{axes}'"):
            self.gradcam.endpoint_fn(self.own_model(), "relu", **{name: axes})

    def test_unknown_endpoint_of_our_model(self):
        with pytest.raises(errors.UserError, match=r"one of ConvLSTM_1, .*, MaxPool_2. Received: 'Mixed_5c'"):
            self.gradcam.endpoint_fn(self.build_model(CONV_LSTM), "Mixed_5c")

    @pytest.mark.parametrize("name", ["", "conv3d"])
    def test_unknown_endpoint_of_a_users_model(self, name):
        with pytest.raises(errors.UserError, match=f"one of conv, relu, norm, pool.*, drop, fc. Received: '{name}'"):
            self.gradcam.endpoint_fn(self.own_model(), name)

    def test_a_layer_of_a_model_within_a_model_by_the_end_of_its_path(self):
        model, path = self.deep()
        for name in ("conv", path):
            self.check_own_model(model, name)

    @pytest.mark.parametrize(
        "pack",
        [
            lambda logits: (logits, logits[..., None]),
            lambda logits: [logits],
            lambda logits: {"features": logits - 1, "logits": logits},
            lambda logits: {"loss": logits[0, 0], "scores": logits},
            lambda logits: ModelOutput(logits=logits, hidden_states=(logits,)),
            lambda logits: Output(logits - 1, logits),
        ],
    )
    def test_logits_are_found_in_what_a_model_returns(self, pack):
        run = self.gradcam.endpoint_fn(self.returning(pack), "conv")
        logits, activations = (
            np.asarray(part.detach() if hasattr(part, "detach") else part) for part in run(self.tensor(own_clips()))
        )
        np.testing.assert_allclose(logits, activations.mean((1, 2, 3)), rtol=1e-12, atol=1e-14)  # Means near 0.

    @pytest.mark.parametrize(
        ("pack", "received"),
        [
            (lambda logits: (logits, logits), "tuple of tensor, tensor"),
            (lambda logits: {"a": logits, "b": logits}, "dict of a, b"),
            (lambda logits: {"logits": None}, "dict of logits"),
            (lambda logits: ModelOutput(hidden_states=(logits,)), "ModelOutput of hidden_states"),
            (lambda logits: ((logits,),), "tuple of tuple of tensor"),
            (lambda logits: None, "NoneType"),
        ],
    )
    def test_models_that_return_no_logits_are_refused(self, pack, received):
        fn = self.gradcam.endpoint_fn(self.returning(pack), "conv")
        with pytest.raises(errors.UserError, match=rf"must return logits \[N, K\]: .*Received: {received}$"):
            self.maps(fn, own_clips(), [0, 1])

    @pytest.mark.parametrize(
        ("axes", "class_tokens", "settings"),
        [
            ("N(THW)C", 0, {}),
            ("N(THW)C", 1, {}),
            ("N(THW)C", 1, {"grid": (2, 2, 2), "class_tokens": 1}),
            ("N(THW)C", 3, {"class_tokens": 3}),
            ("N(HWT)C", 1, {}),  # TimeSformer's order.
            ("(NT)(HW)C", 1, {}),  # Its attention in space,
            ("(NHW)TC", 0, {}),  # and in time.
            ("(NT)CHW", 0, {}),
        ],
    )
    @pytest.mark.parametrize("pack", [lambda x: x, lambda x: (x, None), lambda x: [x, x + 1]])
    def test_tokens_are_folded_to_their_grid(self, axes, class_tokens, settings, pack):
        clips, targets = token_clips(), np.array([4, 2])
        activations, layer = patches(clips), layer_axes.LayerAxes(axes)
        fn = self.gradcam.endpoint_fn(self.tokens(axes, class_tokens, pack), "tokens", "NTHWC", axes, **settings)
        maps = self.maps(fn, clips, targets)
        # The mean of tanh over the tokens that share the answer: those of the grid, and class tokens beside them.
        per_answer = [2 if letter in "THW" else 1 for group in layer.groups if "N" in group for letter in group]
        number = 8 + class_tokens * np.prod(per_answer)
        gradients = (1 - np.tanh(activations) ** 2) * (HEAD.T[targets] / number)[:, None, None, None]
        expected = gradcam_maps.combine(activations, gradients)
        assert expected.max() > 0
        np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)

    def test_class_tokens_keep_their_part_in_the_answer(self):
        model, clips = self.tokens("N(THW)C", 2, lambda x: x), self.tensor(token_clips())
        run = self.gradcam.endpoint_fn(model, "tokens", "NTHWC", "N(THW)C", class_tokens=2)
        tokens = np.tanh(patches(token_clips())).reshape(2, 8, 4).sum(1) + 2 * np.tanh(CLASS_TOKEN)
        logits = run(clips)[0]
        logits = logits.detach() if hasattr(logits, "detach") else logits
        np.testing.assert_allclose(np.asarray(logits), tokens / 10 @ HEAD, rtol=1e-9)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, r"after 0 or 1 class tokens \(grid, class_tokens\). Received: 11"),
            ({"class_tokens": 2}, "after 2 class tokens .* Received: 11"),
            ({"grid": (4, 2, 2)}, "grid, 4 x 2 x 2, after 0 or 1 class tokens .* Received: 11"),
        ],
    )
    def test_tokens_that_are_not_of_the_grid_are_refused(self, settings, message):
        model = self.tokens("N(THW)C", 3, lambda x: x)
        fn = self.gradcam.endpoint_fn(model, "tokens", "NTHWC", "N(THW)C", **settings)
        with pytest.raises(errors.UserError, match=message):
            self.maps(fn, token_clips(), [0, 1])

    def test_tokens_without_a_word_about_their_axes_are_refused(self):
        fn = self.gradcam.endpoint_fn(self.tokens("N(THW)C", 1, lambda x: x), "tokens", "NTHWC")
        with pytest.raises(
            errors.UserError, match=r"has the axes \w{5} \(activations_axes; .* Received: \((2|None), 9, 4\)"
        ):
            self.maps(fn, token_clips(), [0, 1])

    def test_attentions_for_rollout(self):
        rows = np.random.default_rng(5).random((3, 2, 4, 6, 6))
        rows /= rows.sum(-1, keepdims=True)
        names = ["attention_0", "attention_1", "attention_2"]
        received = self.gradcam.attentions(self.attentive([*rows]), names, self.tensor(own_clips()), "NTHWC")
        np.testing.assert_allclose(received, rows, rtol=1e-12)
        averaged = self.attentive([*rows.mean(2)])
        received = self.gradcam.attentions(averaged, names[1:], self.tensor(own_clips()), "NTHWC")
        np.testing.assert_allclose(received, rows[1:].mean(2, keepdims=True), rtol=1e-12)

    @pytest.mark.parametrize(
        ("shapes", "endpoints", "message"),
        [
            ([(2, 4, 6, 6)], ["attention_1"], "endpoint must be one of attention_0. Received: 'attention_1'"),
            ([(2, 4, 6, 5)], ["attention_0"], "that return their attention .* Received: tuple of tensor, tensor"),
            ([(2, 4, 6, 6), (2, 4, 7, 7)], ["attention_0", "attention_1"], "have one shape. Received: .*6.*, .*7"),
            ([(2, 4, 6, 6)], [], "at least one layer, and have one shape. Received: none"),
        ],
    )
    def test_attentions_that_cannot_be_had(self, shapes, endpoints, message):
        model = self.attentive([np.ones(shape) for shape in shapes])
        with pytest.raises(errors.UserError, match=message):
            self.gradcam.attentions(model, endpoints, self.tensor(own_clips()), "NTHWC")

    @pytest.mark.parametrize(
        ("pack", "received"),
        [
            (lambda logits, activations: logits, "tensor"),
            (lambda logits, activations: (logits, activations, activations), "tuple of tensor, tensor, tensor"),
            (lambda logits, activations: {"logits": logits, "map": activations}, "dict of logits, map"),
            (lambda logits, activations: (np.zeros((1, 2)), activations), "tuple of ndarray, tensor"),
        ],
    )
    def test_functions_that_do_not_return_two_tensors_are_refused(self, pack, received):
        with pytest.raises(errors.UserError, match=rf"must return two tensors, logits .* Received: {received}$"):
            self.maps(lambda clips: pack(*self.by_hand(clips)), CLIP, [1])

    def test_a_layer_whose_output_is_not_of_clips(self):
        fn = self.gradcam.endpoint_fn(self.frame_wise(), "frames")
        with pytest.raises(errors.UserError, match=r"whose output has the axes \w{5} .* Received: \((8|None), "):
            self.maps(fn, own_clips(), [0, 1])

    def test_activations_of_single_frames_are_refused(self):
        def frames(clips):
            logits, activations = self.by_hand(clips)
            return logits, activations[:, 0]

        with pytest.raises(errors.UserError, match="of a clip, not of single frames"):
            self.maps(frames, CLIP, [1])

    @pytest.mark.parametrize("score", ["logit", "probability"])
    def test_numbers_that_are_not_finite_are_refused(self, score):
        with pytest.raises(errors.UserError, match="must be finite. Received: NaN or infinity"):
            self.maps(self.by_hand, CLIP * np.nan, [1], GradCamConfig(score=score))

    def test_the_softmax_is_not_taken_of_a_softmax(self):
        def probabilities(clips):
            logits, activations = self.by_hand(clips)
            return self.softmax(logits), activations

        with pytest.raises(errors.UserError, match="must return logits, not probabilities"):
            self.maps(probabilities, CLIP, [1], GradCamConfig(score="probability"))
        # The gradient of a probability is what a probability's score wants.
        np.testing.assert_allclose(self.maps(probabilities, CLIP, [1]), [[[[1, 0]], [[9, 1.5]]]], atol=1e-12)

    def test_logits_that_do_not_depend_on_the_activations_are_refused(self):
        def elsewhere(clips):
            return self.by_hand(clips)[0], self.by_hand(clips)[1]

        with pytest.raises(errors.UserError, match="computed from the endpoint's activations. Received: no gradient"):
            self.maps(elsewhere, CLIP, [1])

    @pytest.mark.parametrize("targets", [[2], [-1], [0, 1], [0.0]])
    def test_targets_that_are_no_classes(self, targets):
        with pytest.raises(errors.UserError, match="targets must be 1 class numbers in 0…1"):
            self.maps(self.by_hand, CLIP, targets)
