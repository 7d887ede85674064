"""A user's own model in PyTorch keeps the contract of both builds."""

from common.command_line.foreign_contract_for_tests import ForeignContract
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


def score_fn(clips):
    return logits(clips).softmax(dim=1)


def logits(clips):
    change = (clips[:, 1:] - clips[:, :-1]).abs().mean(dim=(1, 2, 3, 4)) / 16
    level = (clips.mean(dim=(2, 3, 4)) * torch.arange(8)).sum(dim=1) / 28 / 255
    return 4 * torch.stack([change, level, 1 - level], dim=1)
"""
