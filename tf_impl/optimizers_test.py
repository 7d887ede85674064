"""Optimisers in TensorFlow keep the contract of both builds."""

from common.runs.optimizers_contract_for_tests import OptimizersContract
from tf_impl import optimizers

# isort: split
import keras
import tensorflow as tf


def _optimizer(name, start, config):
    parameter = keras.Variable(start, dtype="float64")
    return parameter, optimizers.Optimizer({name: parameter}, config)


def _step(parameter, optimizer, gradient, rate):
    del parameter
    optimizer.step([tf.constant(gradient)], rate)


class TestOptimizers(OptimizersContract):
    optimizer = staticmethod(_optimizer)
    step = staticmethod(_step)
    value = staticmethod(lambda parameter: parameter.value.numpy())
