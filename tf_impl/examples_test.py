"""The TensorFlow examples of docs/your_own_model.md keep the contract of both builds'."""

from common.explaining.examples_contract_for_tests import ExamplesContract


class TestExamples(ExamplesContract):
    build = "tf"
