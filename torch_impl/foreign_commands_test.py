"""A user's own model in PyTorch keeps the contract of both builds."""

import numpy as np
import torch
from torch import nn

from common.clips import clip_store, tiny_store_for_tests
from common.command_line.foreign_contract_for_tests import ForeignContract
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models.foreign import ForeignModel
from torch_impl import evaluation, explanation, foreign


class TestForeign(ForeignContract):
    evaluation = evaluation
    explanation = explanation
    foreign = foreign
    framework = "torch"
    source = """
import torch

from common.models.foreign import ForeignModel


def make():
    known = {"versions": {"own": "1.0"}, "licence": "CC0", "source": "made for a test"}
    return ForeignModel("own", "mine", score_fn, frames_per_step=2, **known)


def wrong():
    return logits


def unsteady():
    return lambda clips: torch.softmax(score_fn(clips) + torch.rand(len(clips), 3), dim=1)


def several():
    return lambda clips: (score_fn(clips), clips)


def score_fn(clips):
    return logits(clips).softmax(dim=1)


def logits(clips):
    change = (clips[:, 1:] - clips[:, :-1]).abs().mean(dim=(1, 2, 3, 4)) / 16
    level = (clips.mean(dim=(2, 3, 4)) * torch.arange(8)).sum(dim=1) / 28 / 255
    return 4 * torch.stack([change, level, 1 - level], dim=1)
"""


def test_a_compiled_model_that_writes_into_its_clips_is_explained_as_it_was_written(tmp_path):
    store = tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 2})
    dense = nn.Linear(3, len(store.class_names)).train()
    compiled = torch.compile(dense, backend="eager")

    def score_fn(clips):
        return compiled(clips.div_(255).mean(dim=(1, 2, 3))).softmax(dim=1)

    frames = clip_store.ClipStore(tmp_path / "clips", "validation").read([0, 1])
    model = ForeignModel("mine", "mine", score_fn, digest="0" * 64)
    explainer = explanation.Explainer(model, MaskConfig(), GradCamConfig(), device="cpu")
    assert explainer.bytes_per_clip(frames[:1]) > 0
    expected = dense(torch.from_numpy(frames).float().mean(dim=(1, 2, 3)) / 255).softmax(dim=1)
    np.testing.assert_allclose(explainer.probabilities(frames), expected.detach(), atol=1e-6)
    assert dense.training and dense.weight.requires_grad
