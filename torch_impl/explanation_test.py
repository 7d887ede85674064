"""Explanations in PyTorch keep the contract of both builds."""

import torch

from common.explaining.explanation_contract_for_tests import ExplanationContract
from torch_impl import explanation


class TestExplanation(ExplanationContract):
    explanation = explanation
    framework = "torch"
    library = torch
