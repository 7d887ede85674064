import numpy as np
import torch

from torch_impl import transfers


def test_arrays_go_there_and_back_as_they_are():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    tensor = transfers.to_device(array, torch.device("cpu"))
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(np.asarray(transfers.to_host(tensor)), array)
