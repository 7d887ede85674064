"""Weights in TensorFlow keep the contract of both builds."""

import numpy as np

from common.models.weights_contract_for_tests import WeightsContract
from tf_impl import weights


class TestWeights(WeightsContract):
    weights = weights
    parameters = staticmethod(lambda model: model.trainable_variables)
    array = staticmethod(lambda weight: weight.value.numpy())
    random_states = staticmethod(lambda: (np.random.get_state()[1],))
