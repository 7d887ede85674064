"""Masks of whole time steps, for models that see several frames together (tubelets); they are searched as any others.

A model of tubelets cannot say which of a tubelet's frames it needs, and half a tubelet perturbed is a clip that it has
never seen. So its masks have one value a step, which all frames of the step share. Eq. 1 stays that of the frames: a
step costs `lambda_1` for each of them, and the total variation is the same, for it is 0 within a step.
"""

import dataclasses

import numpy as np

from common import errors
from common.explaining import descent
from common.explaining import scorer as scoring
from common.explaining.masks import MaskConfig
from common.explaining.scorer import Scorer


def whole_steps(scorer: Scorer, config: MaskConfig, frames_per_step: int) -> tuple[Scorer, MaskConfig]:
    """Returns what the functions of `mask_search` take to search masks of whole steps: `[N, T / frames_per_step]`.

    A mask of frames is `masks.repeat(frames_per_step, axis=1)` of what they find, an interval of frames its multiple.

    Args:
      scorer: of clips of T frames.
      config: how masks of frames are learnt.
      frames_per_step: frames of a step; with 1 both are returned as they are.

    Raises:
      errors.UserError: for frames or an area that are no whole steps, and for compat "released": which differences it
        counts twice (D13) depends on the frame, not the step.
    """
    if frames_per_step == 1:
        return scorer, config
    if config.compat != "paper":
        raise errors.UserError(
            f"compat must be 'paper' for a model of steps of {frames_per_step} frames. Received: {config.compat!r}"
        )
    for what, frames in (("Clips", scorer.time), ("area", config.area)):
        if frames % frames_per_step:
            raise errors.UserError(
                f"{what} must have whole steps of {frames_per_step} frames for this model. Received: {frames} frames"
            )
    stepped = dataclasses.replace(
        config, lambda_1=config.lambda_1 * frames_per_step, area=config.area // frames_per_step
    )
    return _Stepped(scorer, frames_per_step, config), stepped


class _Stepped(scoring.Remembering):
    """A scorer whose time are steps; it remembers by what is done to frames, for freezing step 0 is not nothing."""

    def __init__(self, scorer: Scorer, frames: int, config: MaskConfig) -> None:
        super().__init__(scorer)
        self.time, self._frames, self._config = scorer.time // frames, frames, config

    def scores(self, clip_indices: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        """Returns F_c of clips under masks of steps."""
        return super().scores(clip_indices, masks.repeat(self._frames, axis=1), kind)

    def gradient(self, clip_indices: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns Eq. 1 of masks of steps, and its gradient with respect to them: the sum of its frames'."""
        losses, gradients = super().gradient(clip_indices, masks.repeat(self._frames, axis=1))
        return losses, gradients.reshape(*masks.shape, self._frames).sum(axis=2)

    def descend(self, clip_indices: np.ndarray, start_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the steps of Adam; the scorer's own would let the frames of a step part."""
        state, losses = (start_logits, np.zeros(start_logits.shape), np.zeros(start_logits.shape)), []
        for step in range(self._config.iterations):
            masks = _sigmoid(state[0])
            loss, gradient = self.gradient(clip_indices, masks)
            slope = gradient * masks * (1 - masks)
            state = descent.adam_step(state, slope, descent.adam_corrections(step + 1), self._config.learning_rate)
            losses.append(loss)
        return _sigmoid(state[0]), np.stack(losses, axis=1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
