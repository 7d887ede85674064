import re

import pytest

from common import errors, text
from common.command_line import commands
from common.models import convolution_check
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


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(errors.UserError, match="With precision=tf32 the device must be a GPU .* Received: the CPU"):
        devices.find_device("cpu", "tf32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_check_asks_of_a_gpu_a_cpu_answers_rightly(precision):
    cases = (
        convolution_check.Case((1, 8, 12, 12, 3), (7, 7, 7, 3, 4), (1, 2, 2)),
        convolution_check.Case((2, 3, 5, 5, 2), (1, 1, 1, 2, 3), (1, 1, 1)),
    )

    def convolve(*arguments):
        return devices._convolve("/CPU:0", *arguments)

    convolution_check.check(convolve, precision, None, cases)


def test_too_little_memory_is_known_as_that():
    # TensorFlow waits for ten seconds before it says so itself.
    assert commands.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor"))
    assert not commands.is_out_of_memory(tf.errors.InvalidArgumentError(None, None, "Shapes differ."))


def test_the_device_is_named_once(caplog):
    text.tell_once.cache_clear()
    with caplog.at_level("INFO", logger="absl"):
        for _ in range(2):
            devices.find_device("cpu", "bfloat16")
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"TensorFlow [\d.+\w]+ in bfloat16 on the CPU, \d+ threads?", line)


def test_the_threads_that_are_named_are_those_of_the_environment(caplog, monkeypatch):
    text.tell_once.cache_clear()
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)  # Not set by a program.
    with caplog.at_level("INFO", logger="absl"):
        devices.find_device("cpu", "float32")
    assert caplog.messages[0].endswith("on the CPU, 1 thread")
