import pytest

from common import errors
from tf_impl import devices, layers  # noqa: F401

# isort: split
import tensorflow as tf


def test_cpu_is_found_and_tf32_is_off():
    assert devices.find_device("cpu") == "/CPU:0"
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_unknown_device_is_refused():
    with pytest.raises(errors.UserError, match="device must be one of auto, cpu, gpu. Received: 'tpu'"):
        devices.find_device("tpu")


def test_gpu_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(
        errors.UserError, match="With device=gpu there must be a GPU that TensorFlow sees. Received: none"
    ):
        devices.find_device("gpu")
    assert devices.find_device("auto") == "/CPU:0"
