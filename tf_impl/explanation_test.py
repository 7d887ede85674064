"""Explanations in TensorFlow keep the contract of both builds."""

from common.explaining.explanation_contract_for_tests import ExplanationContract
from tf_impl import explanation

# isort: split
import tensorflow as tf


class TestExplanation(ExplanationContract):
    explanation = explanation
    framework = "tf"
    library = tf
