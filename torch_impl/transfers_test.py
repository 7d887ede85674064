import numpy as np
import torch

from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from torch_impl import gradcam, temporal_mask, transfers


class OnGpu(torch.Tensor):
    """A tensor that refuses to become an array until it is asked to the CPU, as those of a GPU do."""

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_arrays_go_there_and_back_as_they_are():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    tensor = transfers.to_device(array, torch.device("cpu"))
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(np.asarray(transfers.to_host(tensor)), array)


def test_targets_may_lie_on_a_gpu():
    clips, targets = torch.rand(2, 4, 2, 2, 3), torch.tensor([1, 0])
    head = torch.rand(4, 3)

    def probabilities(clips):
        return torch.softmax(clips.mean((2, 3, 4)) @ head, dim=1)

    def endpoint(clips):
        activations = clips.clone().requires_grad_()
        return activations.mean((2, 3, 4)) @ head, activations

    found = []
    for labels in (targets, targets.as_subclass(OnGpu)):
        learnt = temporal_mask.learn_masks(probabilities, clips, labels, MaskConfig(iterations=2))
        found.append((learnt.masks, gradcam.gradcam(endpoint, clips, labels, GradCamConfig())))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
