import numpy as np
import pytest

from common import errors
from common.explaining import mask_search, masks, perturbations, steps
from common.explaining.masks import MaskConfig

CLIP = np.array([3.0, 9.0, 1.0, 4.0, 2.0, 2.0])  # One pixel a frame.
WEIGHTS = np.array([0.05, 0.1, 0.15, 0.02, 0.03, 0.01])


class Scorer:
    """Scores one clip of six frames of one pixel: 0.9 less the weighted change of each frame; linear in the matrix."""

    num_clips, time = 1, 6

    def __init__(self, config):
        self.config, self.asked = config, []

    def scores(self, clip_indices, masks, kind):
        self.asked += masks.tolist()
        return self._score(masks, kind)

    def _score(self, masks, kind):
        return 0.9 - np.abs(perturbations.matrix(masks, kind) @ CLIP - CLIP) @ WEIGHTS

    def gradient(self, clip_indices, values):
        def loss(mask):
            return masks.mask_loss(self._score(mask, "freeze"), mask, self.config)

        steps_ = 1e-6 * np.eye(6)
        slopes = [(loss(values + step) - loss(values - step)) / 2e-6 for step in steps_]
        return loss(values), np.stack(slopes, axis=1)

    def descend(self, clip_indices, start_logits):
        raise AssertionError("Frames of a step would part.")


def test_with_one_frame_a_step_nothing_changes():
    scorer, config = Scorer(MaskConfig()), MaskConfig()
    assert steps.whole_steps(scorer, config, 1) == (scorer, config)


def test_a_mask_of_steps_costs_what_its_frames_cost():
    config = MaskConfig()
    scorer, stepped = steps.whole_steps(Scorer(config), config, 2)
    mask = np.array([[0.2, 0.9, 0.4]])
    frames = mask.repeat(2, axis=1)
    losses, gradients = scorer.gradient(np.array([0]), mask)
    score = scorer.scores(np.array([0]), mask, "freeze")
    np.testing.assert_allclose(masks.mask_loss(score, mask, stepped), masks.mask_loss(score, frames, config))
    np.testing.assert_allclose(losses, masks.mask_loss(score, frames, config))
    np.testing.assert_allclose(gradients, Scorer(config).gradient([0], frames)[1].reshape(1, 3, 2).sum(axis=2))


def test_freezing_the_first_step_is_something():
    scorer, _ = steps.whole_steps(Scorer(MaskConfig()), MaskConfig(), 2)
    scores = scorer.scores(np.array([0, 0]), np.array([[0.0, 0, 0], [1.0, 0, 0]]), "freeze")
    np.testing.assert_allclose(scores, [0.9, 0.9 - 0.1 * 6])  # Frame 1 is 3 instead of 9.


@pytest.mark.parametrize("settings", [{}, {"stop": "converged"}, {"form": "hard"}, {"start": "multi"}])
def test_every_search_finds_masks_of_whole_steps(settings):
    config = MaskConfig(iterations=60, **settings)
    inner = Scorer(config)
    scorer, stepped = steps.whole_steps(inner, config, 2)
    oracle = mask_search.best_intervals(scorer, stepped)
    assert oracle.intervals.tolist() == [[1, 3]] and oracle.scores.shape == (1, 6)
    learnt = mask_search.learn_masks(scorer, stepped, oracle)
    assert learnt.masks.shape == (1, 3)
    assert masks.snap(learnt.masks).tolist() == [[0, 1, 1]]
    assert all(mask[0::2] == mask[1::2] for mask in inner.asked)
    frames = learnt.masks.repeat(2, axis=1)
    np.testing.assert_allclose(learnt.final_loss, masks.mask_loss(learnt.scores["S"], frames, config), rtol=1e-9)


def test_what_is_no_whole_step_is_refused():
    with pytest.raises(errors.UserError, match="Clips must have whole steps of 4 frames for this model. Received: 6"):
        steps.whole_steps(Scorer(MaskConfig()), MaskConfig(), 4)
    with pytest.raises(errors.UserError, match="area must have whole steps of 2 frames for this model. Received: 3"):
        steps.whole_steps(Scorer(MaskConfig()), MaskConfig(form="hard", area=3), 2)
    with pytest.raises(errors.UserError, match="compat must be 'paper' for a model of steps of 2 frames. Received: 'r"):
        steps.whole_steps(Scorer(MaskConfig()), MaskConfig(compat="released"), 2)
    _, stepped = steps.whole_steps(Scorer(MaskConfig()), MaskConfig(form="hard", area=4), 2)
    assert stepped.area == 2
