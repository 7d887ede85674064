"""Explain a 3-D CNN of your own in PyTorch: which frames tell it whether a square goes left or right?"""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import numpy as np
import torch
from torch import nn

from common.explaining import gradcam_maps, masks
from torch_impl import gradcam, temporal_mask

CLASSES = ("left", "right", "still")


def make_clips(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns clips uint8 [N, 16, 8, 16, 3], classes [N], and the event, bool [N, 16]: where the square moves."""
    stream = np.random.default_rng(seed)
    clips = stream.integers(0, 60, (number, 16, 8, 16, 3), dtype=np.uint8)
    labels, events = np.arange(number) % 3, np.zeros((number, 16), bool)
    for clip, label, event in zip(clips, labels, events, strict=True):
        start, length, top, left = stream.integers((2, 4, 0, 0), (8, 8, 5, 16))
        event[start : start + length] = True
        steps = (-2, 2, 0)[label] * event
        for frame, place in zip(clip, left + np.cumsum(steps), strict=True):
            frame[top : top + 4, (place + np.arange(4)) % 16] = 255  # Out on one side is in on the other.
    return clips, labels, events


def score_fn(clips: torch.Tensor) -> torch.Tensor:
    """Float clips [N, T, H, W, C], 0…255 as they were given -> probabilities [N, K]."""
    return model(clips.permute(0, 4, 1, 2, 3) / 255).softmax(dim=1)


torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv3d(3, 8, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool3d((1, 2, 2)),
    nn.Conv3d(8, 16, 3, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool3d(1),
    nn.Flatten(),
    nn.Linear(16, 3),
)
clips, labels, _ = make_clips(480, seed=0)
inputs, classes = torch.as_tensor(clips).permute(0, 4, 1, 2, 3) / 255, torch.as_tensor(labels)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(200):
    batch = slice(step % 20 * 24, (step % 20 + 1) * 24)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs[batch]), classes[batch]).backward()
    optimizer.step()

clips, labels, events = (array[np.arange(9) % 3 < 2] for array in make_clips(9, seed=1))  # "still" has no event.
config, clips = masks.MaskConfig(kind="freeze"), torch.as_tensor(clips)
learnt = temporal_mask.learn_masks(score_fn, clips, labels, config)
best = temporal_mask.best_interval(score_fn, clips, labels, config)
activations_of = gradcam.endpoint_fn(model, "4")  # The second ReLU.
maps = gradcam.gradcam(activations_of, clips / 255, labels, gradcam_maps.GradCamConfig())
maps = gradcam_maps.upsample(maps, clips.shape[1:4])

sys.stdout.write("class  event             mask              best interval     OS     FS     RS     Grad-CAM's peak\n")
for i, label in enumerate(labels):
    rows = (events[i], masks.snap(learnt.masks[i]), best.masks(16)[i])
    frames = "  ".join("".join(map(str, row.astype(int))) for row in rows)
    scores = "  ".join(f"{learnt.scores[name][i]:.3f}" for name in ("OS", "FS", "RS"))
    time, row, column = np.unravel_index(maps[i].argmax(), maps[i].shape)
    sys.stdout.write(f"{CLASSES[label]:5}  {frames}  {scores}  frame {time}, row {row}, column {column}\n")
