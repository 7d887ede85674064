"""Perturbations against loops of the paper's words, and numbers worked out by hand."""

import csv
import pathlib

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import errors
from common.explaining import perturbations

PAPER_CLIPS = pathlib.Path(__file__).parents[3] / "shared/data/paper_clips"

KINDS = tuple(perturbations.KINDS)
# Values on both sides of the threshold of `reverse`, upon it, and those of a snapped mask.
VALUES = st.one_of(st.sampled_from([0.0, 0.05, 0.1, np.nextafter(0.1, 1), 0.15, 1.0]), st.floats(0, 1))
MASKS = st.lists(VALUES, min_size=1, max_size=20)


def perturbed(frames, mask, kind):
    """Perturbs one clip of numbers."""
    return perturbations.perturb(np.array([frames]), np.array([mask], float), kind)[0]


def freeze_by_loop(frames, mask):
    """The pseudocode of section 3.1, from frame 1 on: nothing is before frame 0."""
    out = np.array(frames, float)
    for i in range(1, len(out)):
        out[i] = (1 - mask[i]) * frames[i] + mask[i] * out[i - 1]
    return out


def reverse_by_loop(frames, mask):
    """Looks for each run, then swaps its frames in pairs from the outside to the middle."""
    out, start = np.array(frames, float), 0
    while start < len(out):
        stop = start
        while stop < len(out) and mask[stop] > 0.1:
            stop += 1
        for j in range((stop - start) // 2):
            first, second, m = start + j, stop - 1 - j, mask[start + j]
            out[first] = (1 - m) * frames[first] + m * frames[second]
            out[second] = (1 - m) * frames[second] + m * frames[first]
        start = max(stop, start + 1)
    return out


def test_the_kinds_are_the_papers_and_four_more():
    assert KINDS == ("freeze", "reverse", "shuffle", "blur", "mean", "blank")


@pytest.mark.parametrize("time", [1, 2, 5, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_zeros_changes_nothing(kind, time):
    np.testing.assert_array_equal(perturbations.matrix(np.zeros((2, time)), kind), np.stack([np.eye(time)] * 2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "blank"])
@settings(deadline=None)
@given(values=MASKS)
def test_a_perturbed_frame_is_a_weighted_mean_of_frames(kind, values):
    matrix = perturbations.matrix(np.array([values]), kind)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=2), 1, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(values=MASKS)
def test_rows_of_blank_lose_what_the_mask_takes(values):
    matrix = perturbations.matrix(np.array([values]), "blank")[0]
    np.testing.assert_array_equal(matrix, np.diag(1 - np.array(values)))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([0, 1, 1, 0], [10, 10, 10, 40]),
        ([1, 1, 0, 1], [10, 10, 30, 30]),
        ([1, 0.5, 0, 1], [10, 15, 30, 30]),
        ([0, 1, 1, 0.25], [10, 10, 10, 32.5]),
        ([0, 0.5, 0.5, 0.5], [10, 15, 22.5, 31.25]),
    ],
)
def test_freeze_by_hand(mask, expected):
    np.testing.assert_allclose(perturbed([10, 20, 30, 40], mask, "freeze"), expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(values=MASKS)
def test_freeze_is_the_loop_of_the_paper(values):
    frames = np.arange(1.0, len(values) + 1) ** 2
    np.testing.assert_allclose(perturbed(frames, values, "freeze"), freeze_by_loop(frames, values), atol=1e-9)


def test_reverse_gives_the_order_that_the_paper_prints():
    mask = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0]  # Printed with 15 values for 16 frames.
    order = [1, 2, 3, 8, 7, 6, 5, 4, 9, 10, 11, 12, 13, 15, 14, 16]
    np.testing.assert_array_equal(perturbed(np.arange(1, 17), mask, "reverse"), order)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([0, 1, 1, 1, 0, 0], [1, 4, 3, 2, 5, 6]),
        ([0, 1, 1, 1, 1, 0], [1, 5, 4, 3, 2, 6]),
        ([1, 1, 0, 1, 1, 1], [2, 1, 3, 6, 5, 4]),
        ([1, 1, 1, 1, 1, 1], [6, 5, 4, 3, 2, 1]),
        ([0, 1, 0, 1, 0, 1], [1, 2, 3, 4, 5, 6]),
        # 0.1 is off, so frames 2…4 are a run; the outer pair blends with 0.2, the mask of its first frame.
        ([0.1, 0.2, 0.9, 0.3, 0.05, 0], [1, 2.4, 3, 3.6, 5, 6]),
        # 0.11 is on: one run of five, with pairs (2, 6) at 0.5 and (3, 5) at 0.11.
        ([0, 0.5, 0.11, 1, 0.2, 1], [1, 4, 3.22, 4, 4.78, 4]),
    ],
)
def test_reverse_by_hand(mask, expected):
    np.testing.assert_allclose(perturbed([1, 2, 3, 4, 5, 6], mask, "reverse"), expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(values=MASKS)
def test_reverse_is_a_loop_over_runs(values):
    frames = np.arange(1.0, len(values) + 1) ** 2
    np.testing.assert_allclose(perturbed(frames, values, "reverse"), reverse_by_loop(frames, values), atol=1e-9)


def test_the_other_noise_types_by_hand():
    frames, mask = [0, 4, 8, 12], [0, 1, 0.5, 0]
    np.testing.assert_allclose(perturbed(frames, mask, "mean"), [0, 6, 7, 12])
    np.testing.assert_allclose(perturbed(frames, mask, "blank"), [0, 0, 4, 12])
    other = np.exp(-1 / 8) / (1 + np.exp(-1 / 8))  # One frame away, with a standard deviation of 2 frames.
    np.testing.assert_allclose(perturbed([0, 1], [1, 0.5], "blur"), [other, 0.5 + 0.5 * (1 - other)])


def test_blur_has_a_standard_deviation_of_two_frames():
    weights = perturbations.matrix(np.ones((1, 41)), "blur")[0, 20]
    np.testing.assert_allclose(weights @ (np.arange(41) - 20) ** 2, 4, rtol=1e-6)


@pytest.mark.parametrize("time", [1, 2, 3, 16, 32])
def test_shuffle_is_one_cycle_through_all_frames(time):
    source = perturbed(np.arange(time), np.ones(time), "shuffle").astype(int)
    frame, visited = 0, []
    for _ in range(time):
        frame = source[frame]
        visited.append(frame)
    assert sorted(visited) == list(range(time)) and frame == 0
    half = perturbed(np.arange(time), np.full(time, 0.5), "shuffle")
    np.testing.assert_array_equal(half, (np.arange(time) + source) / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_clips_of_any_shape_are_perturbed_each_by_its_own_mask(kind, dtype):
    stream = np.random.default_rng(0)
    clips = stream.integers(0, 256, (3, 5, 4, 2, 3), dtype=np.uint8)
    masks = stream.uniform(0, 1, (3, 5)).astype(dtype)
    together = perturbations.perturb(clips, masks, kind)
    assert together.shape == clips.shape and together.dtype == dtype
    for clip, mask, found in zip(clips, masks, together, strict=True):
        pixel = perturbed(clip[:, 1, 0, 2].astype(dtype), mask.astype(float), kind)
        np.testing.assert_allclose(found[:, 1, 0, 2], pixel, rtol=0, atol=1e-3 if dtype == np.float32 else 1e-9)


def test_a_registered_kind_is_found_by_its_name(monkeypatch):
    monkeypatch.setattr(perturbations, "KINDS", dict(perturbations.KINDS))

    @perturbations.register
    def first_frame(mask, ops):
        time = mask.shape[1]
        m = mask[:, :, None]
        return (1 - m) * ops.constant(np.eye(time), mask) + m * ops.constant(np.eye(time)[[0] * time], mask)

    assert perturbations.find("first_frame") is first_frame
    np.testing.assert_array_equal(perturbed([1, 2, 3], [0, 1, 0.5], "first_frame"), [1, 1, 2])


def test_an_unknown_kind_is_refused():
    message = "kind must be one of freeze, reverse, shuffle, blur, mean, blank. Received: 'melt'"
    with pytest.raises(errors.UserError, match=message):
        perturbations.matrix(np.zeros((1, 4)), "melt")


@pytest.mark.skipif(not PAPER_CLIPS.is_dir(), reason=f"{PAPER_CLIPS.name} are not here")
def test_freeze_is_what_the_authors_drew():
    with (PAPER_CLIPS / "clips.csv").open(newline="") as file:
        names = [row["clip"] for row in csv.DictReader(file)]
    assert len(names) == 16
    for name in names:
        with np.load(PAPER_CLIPS / f"{name}.npz") as clip:
            original, drawn, mask = clip["original"], clip["perturbed"], clip["mask"]
            above_the_bar = (original.shape[1] - int(clip["bar_height"])) // 2
        frozen = perturbations.perturb(original[None], mask[None].astype(np.float32), "freeze")[0]
        gap = np.abs(_halved(frozen) - _halved(drawn))[:, :above_the_bar].mean(axis=(1, 2, 3))
        assert gap.max() < 3, name  # Grey levels, worst frame: the GIFs of the paper dither. No mask at all: 95.


def _halved(frames):
    """Means of 2x2 px, [T, H / 2, W / 2, 3]."""
    time, height, width, channels = frames.shape
    return frames.reshape(time, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4), dtype=np.float32)


def test_the_test_run_checks_shapes_and_dtypes():
    for clips, mask in (((2, 4, 3), np.zeros((2, 5))), ((2, 4, 3), np.zeros((1, 4))), ((2, 4), np.zeros((2, 4), int))):
        with pytest.raises(jaxtyping.TypeCheckError):
            perturbations.perturb(np.zeros(clips), mask, "freeze")
