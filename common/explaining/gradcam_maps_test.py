"""Maps against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from common import errors
from common.explaining import gradcam_maps
from common.explaining.gradcam_maps import GradCamConfig
from common.models import configs

# One clip of 2 frames of 1 x 2 px and 2 channels.
ACTIVATIONS = np.array([[[[[1, 2], [3, 0]]], [[[0, 4], [2, 2]]]]], np.float64)
# Means over a frame: (-1, 1) and (-3, 3); over the clip: (-2, 2).
GRADIENTS = np.array([[[[[0, 2], [-2, 0]]], [[[-3, 1], [-3, 5]]]]], np.float64)


def _maps(frames, dtype=np.float32):
    """One clip's map [1, T, H, W]."""
    return np.array([frames], dtype)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("frame", [[[1, 0]], [[12, 0]]]),  # -1 + 2, -3 + 0; 0 + 12, -6 + 6
        ("clip", [[[2, 0]], [[8, 0]]]),  # -2 + 4, -6 + 0; 0 + 8, -4 + 4
    ],
)
def test_equation_2_by_hand(weights, expected):
    np.testing.assert_array_equal(gradcam_maps.combine(ACTIVATIONS, GRADIENTS, weights), [expected])


def test_clips_do_not_share_weights():
    two = gradcam_maps.combine(np.concatenate([ACTIVATIONS] * 2), np.concatenate([GRADIENTS, -GRADIENTS]), "clip")
    np.testing.assert_array_equal(two, [[[[2, 0]], [[8, 0]]], [[[0, 6]], [[0, 0]]]])


@pytest.mark.parametrize(
    ("given", "expected"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")]
)
def test_float64_stays_and_anything_else_is_float32(given, expected):
    assert gradcam_maps.combine(ACTIVATIONS.astype(given), GRADIENTS.astype(given)).dtype == expected


def test_up_sampling_in_space_lies_between_centres_and_repeats_borders():
    maps = gradcam_maps.upsample(_maps([[[0, 8]]]), (1, 2, 4))
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, _maps([[[0, 2, 6, 8]] * 2]))


@pytest.mark.parametrize(
    ("time", "coarse", "expected"),
    [
        ("repeat", [0, 8], [0, 0, 8, 8]),
        ("repeat", [1, 2], [1, 1, 1, 2, 2]),  # floor(2 t / 5) = 0 0 0 1 1
        ("repeat", [1, 2, 3, 4], [1, 3]),
        ("linear", [0, 8], [0, 2, 6, 8]),
        ("linear", [0, 10], [0, 1, 5, 9, 10]),  # Places -0.3, 0.1, 0.5, 0.9, 1.3.
        ("linear", [3], [3, 3]),
    ],
)
def test_up_sampling_in_time(time, coarse, expected):
    maps = gradcam_maps.upsample(_maps(np.reshape(coarse, (-1, 1, 1))), (len(expected), 1, 1), time)
    np.testing.assert_allclose(maps.ravel(), expected, rtol=1e-6)


def test_up_sampling_keeps_clips_apart():
    maps = gradcam_maps.upsample(np.arange(4, dtype=np.float64).reshape(2, 2, 1, 1), (2, 3, 5))
    assert maps.shape == (2, 2, 3, 5)
    np.testing.assert_array_equal(maps, np.broadcast_to(np.arange(4).reshape(2, 2, 1, 1), maps.shape))


@pytest.mark.parametrize(
    ("per", "expected"), [("clip", [[[0.25, 0.5]], [[0, 1]], [[0, 0]]]), ("frame", [[[0.5, 1]], [[0, 1]], [[0, 0]]])]
)
def test_normalization_per_clip_and_per_frame(per, expected):
    maps = np.array([[[[1, 2]], [[0, 4]], [[0, 0]]], np.zeros((3, 1, 2))], np.float32)
    normalized = gradcam_maps.normalize(maps, per)
    assert normalized.dtype == np.float32
    np.testing.assert_array_equal(normalized, [expected, np.zeros((3, 1, 2))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalization_of_subnormal_and_huge_maps(dtype):
    numbers = np.finfo(dtype)
    maps = np.array([[[[0, numbers.smallest_subnormal]]], [[[0, numbers.max]]]], dtype)
    np.testing.assert_array_equal(gradcam_maps.normalize(maps), [[[[0, 1]]], [[[0, 1]]]])


def test_blobs_by_hand():
    frames = [
        # Two touch at a corner and are one blob; 0.5 is not above 0.5.
        [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 0, 0.9]],
        np.full((3, 4), 0.2),
        np.zeros((3, 4)),
    ]
    found = gradcam_maps.blobs(np.array(frames, np.float32))
    np.testing.assert_array_equal(found.counts, [2, 0, 0])
    np.testing.assert_array_equal(np.sort(found.areas), [1 / 12, 2 / 12])


def test_blobs_above_another_threshold():
    found = gradcam_maps.blobs(np.array([[[0.3, 0.1, 0.3]], [[0.1, 0, 0]]], np.float32), threshold=0.2)
    np.testing.assert_array_equal(found.counts, [2, 0])
    np.testing.assert_array_equal(found.areas, [1 / 3, 1 / 3])


def test_centre_of_mass_by_hand():
    # 6 x 8 px: half the diagonal is 5 px, the centre lies at row 2.5 and column 3.5.
    frames = np.zeros((5, 6, 8), np.float32)
    frames[0, 0, 3:5] = 1  # 2.5 px above the centre.
    frames[1, 2:4, 0] = 1, 1  # 3.5 px to its left.
    frames[2, 5, 7] = 0.25  # (2.5, 3.5) px off, in the corner.
    frames[3] = 0.5  # Everywhere.
    distances = gradcam_maps.blobs(frames).distances
    np.testing.assert_allclose(distances, [0.5, 0.7, np.hypot(2.5, 3.5) / 5, 0, np.nan], atol=1e-12)


def test_centre_of_mass_weighs_by_the_map():
    # 1 x 3 px of values 1, 0, 3: centre of mass at column 1.5, centre at 1, half the diagonal √10 / 2.
    found = gradcam_maps.blobs(np.array([[[0.25, 0, 0.75]]]))
    assert found.distances[0] == pytest.approx(0.5 / (np.sqrt(10) / 2))


def test_the_papers_endpoints():
    assert gradcam_maps.default_endpoint(configs.I3DConfig(5)) == "Mixed_5c"
    assert gradcam_maps.default_endpoint(configs.ConvLSTMConfig(5, num_layers=3)) == "ConvLSTM_3"
    assert gradcam_maps.default_endpoint(configs.ConvLSTMConfig(5, num_layers=2)) == "ConvLSTM_2"


def test_find_endpoint():
    config = configs.ConvLSTMConfig(5, num_layers=1)
    assert gradcam_maps.find_endpoint(config, "") == "ConvLSTM_1"
    assert gradcam_maps.find_endpoint(config, "MaxPool_1") == "MaxPool_1"


@pytest.mark.parametrize("name", ["Mixed_5c", "Logits"])
def test_find_endpoint_lists_what_the_model_has(name):
    listed = f"endpoint must be one of ConvLSTM_1, BatchNorm_1, MaxPool_1. Received: '{name}'"
    with pytest.raises(errors.UserError, match=listed):
        gradcam_maps.find_endpoint(configs.ConvLSTMConfig(5, num_layers=1), name)


def test_targets():
    targets = gradcam_maps.check_targets([0, 4], 2, 5)
    assert targets.dtype == np.int64
    assert targets.tolist() == [0, 4]


@pytest.mark.parametrize("targets", [[0, 5], [-1, 0], [0], [[0, 1]], 0, [0.0, 1.0], ["0", "1"]])
def test_wrong_targets(targets):
    with pytest.raises(errors.UserError, match=r"targets must be 2 class numbers in 0…4. Received: "):
        gradcam_maps.check_targets(targets, 2, 5)


@pytest.mark.parametrize(
    ("activations", "logits"),
    [((8, 3, 3, 4), (2, 5)), ((8, 1, 3, 3, 4), (2, 5)), ((2, 4, 3, 3, 4), (2,)), ((None, 4, 3, 3, 4), (None, None))],
)
def test_wrong_shapes(activations, logits):
    with pytest.raises(errors.UserError, match="of a clip, not of single frames, and logits"):
        gradcam_maps.check_shapes((2, 4, 3, 3, 3), activations, logits)


def test_shapes_may_leave_the_number_of_clips_open():
    gradcam_maps.check_shapes((None, 4, 3, 3, 3), (None, 4, 3, 3, 4), (None, 5))


@pytest.mark.parametrize("size", [(8, 6, 5), (1, 1, 1), (None, None, 5)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maps_are_not_larger_than_the_clip(size, axis):
    clips = (2, 8, 6, 5, 3)
    gradcam_maps.check_shapes(clips, (2, *size, 99), (2, 5))
    larger = [*size]
    larger[axis] = clips[axis + 1] + 1
    with pytest.raises(
        errors.UserError, match=r"at most the clip's T, H, W \(activations_axes says .* of clips \(2, 8"
    ):
        gradcam_maps.check_shapes(clips, (2, *larger, 99), (2, 5))


def test_a_gradient_of_zero_everywhere_is_reported(caplog):
    gradcam_maps.combine(ACTIVATIONS, GRADIENTS)
    assert not caplog.messages
    assert not gradcam_maps.combine(ACTIVATIONS, 0 * GRADIENTS).any()
    assert "maps are zero everywhere" in caplog.text


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    for arrays in ((np.full_like(ACTIVATIONS, bad), GRADIENTS), (ACTIVATIONS, np.full_like(GRADIENTS, bad))):
        with pytest.raises(errors.UserError, match="must be finite"), np.errstate(invalid="ignore"):
            gradcam_maps.combine(*arrays)


def test_probabilities_are_not_logits_where_their_softmax_is_taken():
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]])
    with pytest.raises(errors.UserError, match="must return logits, not probabilities"):
        gradcam_maps.check_logits(probabilities, "probability")
    gradcam_maps.check_logits(probabilities, "logit")
    for logits in (probabilities + [[0, 0], [0, 1]], probabilities * 2, -probabilities, np.ones((2, 1))):
        gradcam_maps.check_logits(logits, "probability")


@pytest.mark.parametrize("field", ["weights", "score", "time"])
def test_config_refuses_unknown_choices(field):
    with pytest.raises(errors.UserError, match=f"{field} must be one of .*. Received: 'other'"):
        GradCamConfig(**{field: "other"})


def test_functions_refuse_unknown_choices():
    maps = np.zeros((1, 1, 1, 1), np.float32)
    for call in (
        lambda: gradcam_maps.combine(ACTIVATIONS, GRADIENTS, "pixel"),
        lambda: gradcam_maps.upsample(maps, (1, 1, 1), "cubic"),
        lambda: gradcam_maps.normalize(maps, "batch"),
    ):
        with pytest.raises(errors.UserError, match="must be one of"):
            call()


def test_config_is_the_papers_and_becomes_json():
    expected = {"endpoint": "", "weights": "frame", "score": "logit", "time": "repeat"}
    assert dataclasses.asdict(GradCamConfig()) == expected
