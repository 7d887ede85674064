import re

import pytest
import torch

from common import errors, text
from common.command_line import commands
from common.models import convolution_check
from torch_impl import devices

_CASES = (
    convolution_check.Case((1, 8, 12, 12, 3), (7, 7, 7, 3, 4), (1, 2, 2)),
    convolution_check.Case((2, 3, 5, 5, 2), (1, 1, 1, 2, 3), (1, 1, 1)),
)


@pytest.fixture
def deterministic():
    """Turns the switch back, which is the process's."""
    yield
    torch.use_deterministic_algorithms(False)


def test_cpu_is_found_and_tf32_is_off():
    assert devices.find_device("cpu", "bfloat16") == torch.device("cpu")
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(errors.UserError, match="With precision=tf32 the device must be a GPU .* Received: the CPU"):
        devices.find_device("cpu", "tf32")


def test_unknown_device_is_refused():
    with pytest.raises(errors.UserError, match="device must be one of auto, cpu, gpu. Received: 'tpu'"):
        devices.find_device("tpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_check_asks_of_a_gpu_a_cpu_answers_rightly(precision):
    def convolve(*arguments):
        return devices._convolve(torch.device("cpu"), *arguments)

    convolution_check.check(convolve, precision, None, _CASES)


def test_too_little_memory_is_known_as_that():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 50)
    assert commands.is_out_of_memory(refused.value)
    assert commands.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not commands.is_out_of_memory(RuntimeError("Shapes differ."))


def test_a_process_becomes_deterministic(deterministic, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    devices.make_deterministic()
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark


def test_the_device_is_named_once(caplog):
    text.tell_once.cache_clear()
    with caplog.at_level("INFO", logger="absl"):
        for _ in range(2):
            devices.find_device("cpu", "bfloat16")
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"PyTorch [\d.+\w]+ in bfloat16 on the CPU, \d+ threads?", line)
