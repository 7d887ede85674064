"""The adapters of docs/when.md, run where their tools are installed, on a model that sees how bright a frame is."""

import pathlib
import re

import numpy as np
import pytest
import torch
from torch import nn

_PAGE = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "when.md").read_text(encoding="utf-8")
_BLOCKS = [block for block in re.findall(r"^```python\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL) if "def " in block]


@pytest.fixture
def model():
    """Class 1 is likely where frames are brighter than 90."""
    model = nn.Sequential(nn.Conv3d(3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (1 / 300, -0.9, [[0.0], [4.0]], [0.0, 0.0]), strict=True):
            parameter.copy_(torch.tensor(value).expand_as(parameter))
    return model


@pytest.fixture
def clips():
    """Three clips, in which two of eight frames are bright."""
    clips = torch.rand(3, 8, 6, 6, 3, generator=torch.Generator().manual_seed(0)) * 40
    for number, clip in enumerate(clips):
        clip[2 + number : 4 + number] += 150
    return clips


def adapter(name, tool):
    """Returns a function of the page; skips where its tool is not installed."""
    pytest.importorskip(tool)
    (block,) = [block for block in _BLOCKS if f"def {name}(" in block]
    names = {}
    exec(block, names)
    return names[name]


def assert_bright_frames_count(values, clips):
    assert values.shape == (3, 8)
    bright = clips.mean(dim=(2, 3, 4)).numpy() > 90
    assert bright.sum() == 6
    assert values[bright].min() > 10 * np.abs(values[~bright]).max() and values[bright].min() > 0.01


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "tool"), [("captum_answer", "captum"), ("time_interpret_answer", "tint.attr")])
def test_what_takes_a_function(name, tool, model, clips):
    def score_fn(clips):
        return model(clips.permute(0, 4, 1, 2, 3)).softmax(dim=1)

    with torch.no_grad():
        values = adapter(name, tool)(score_fn, clips, torch.ones(3, dtype=torch.long))
    assert_bright_frames_count(values, clips)


@pytest.mark.filterwarnings("ignore")
def test_grad_cam(model, clips):
    values = adapter("grad_cam_answer", "pytorch_grad_cam")(model, model[1], clips, [1, 1, 1])
    assert_bright_frames_count(values, clips)


def test_adapters_are_short():
    assert len(_BLOCKS) == 3
    assert max(block.count("\n") for block in _BLOCKS) <= 20
