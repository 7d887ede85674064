"""Explain a 2-D CNN that sees single frames, in PyTorch: it needs some frames, and cannot know their order."""

import pathlib
import sys
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

import numpy as np
import torch
from torch import nn

from common.explaining import gradcam_maps, masks, perturbations
from torch_impl import gradcam, temporal_mask

CLASSES = ("red", "green", "none")


@perturbations.register
def dim(mask: Any, ops: perturbations.Ops) -> Any:
    """Darkens a frame to a tenth of its brightness: p_t = (1 - 0.9 m_t) x_t."""
    return (1 - 0.9 * mask)[:, :, None] * ops.constant(np.eye(mask.shape[1]), mask)


def make_clips(number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns clips uint8 [N, 16, 8, 16, 3], classes [N], and the event, bool [N, 16]: where a square is lit."""
    stream = np.random.default_rng(seed)
    clips = stream.integers(0, 60, (number, 16, 8, 16, 3), dtype=np.uint8)
    labels, events = np.arange(number) % 3, np.zeros((number, 16), bool)
    for clip, label, event in zip(clips, labels, events, strict=True):
        start, length, top, left = stream.integers((2, 4, 0, 0), (8, 8, 5, 13))
        event[start : start + length] = True
        if label < 2:
            clip[event, top : top + 4, left : left + 4, label] = 255
    return clips, labels, events


def endpoint_fn(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [N, T, H, W, C], 0…255 -> logits [N, K], the mean over time, and activations [N, T, H', W', C']."""
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2) / 255
    activations = features(frames).unflatten(0, clips.shape[:2]).permute(0, 1, 3, 4, 2)
    return classify(activations.mean(dim=(2, 3))).mean(dim=1), activations


def score_fn(clips: torch.Tensor) -> torch.Tensor:
    """Float clips [N, T, H, W, C], 0…255 as they were given -> probabilities [N, K]."""
    return endpoint_fn(clips)[0].softmax(dim=1)


torch.manual_seed(0)
features = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()
)
classify = nn.Linear(16, 3)
clips, labels, _ = make_clips(240, seed=0)
inputs, classes = torch.as_tensor(clips), torch.as_tensor(labels)
optimizer = torch.optim.Adam([*features.parameters(), *classify.parameters()], lr=1e-2)
for step in range(60):
    batch = slice(step % 10 * 24, (step % 10 + 1) * 24)
    optimizer.zero_grad()
    nn.functional.cross_entropy(endpoint_fn(inputs[batch])[0], classes[batch]).backward()
    optimizer.step()

clips, labels, events = (array[np.arange(9) % 3 < 2] for array in make_clips(9, seed=1))  # "none" has no event.
clips = torch.as_tensor(clips)
learnt = temporal_mask.learn_masks(score_fn, clips, labels, masks.MaskConfig(kind="freeze"))
maps = gradcam.gradcam(endpoint_fn, clips, labels, gradcam_maps.GradCamConfig())
maps = gradcam_maps.upsample(maps, clips.shape[1:4])

sys.stdout.write("class  event             mask              OS          FS_snapped  RS_snapped  Grad-CAM's peak\n")
for i, label in enumerate(labels):
    frames = "  ".join("".join(map(str, row.astype(int))) for row in (events[i], masks.snap(learnt.masks[i])))
    scores = "  ".join(f"{learnt.scores[name][i]:<10.3f}" for name in ("OS", "FS_snapped", "RS_snapped"))
    time, row, column = np.unravel_index(maps[i].argmax(), maps[i].shape)
    sys.stdout.write(f"{CLASSES[label]:5}  {frames}  {scores}  frame {time}, row {row}, column {column}\n")
sys.stdout.write("\nHow much perturbing the event changes the logit of the class, least and most:\n")
for kind in ("freeze", "reverse", "blank", "dim"):
    with torch.no_grad():
        perturbed = temporal_mask.perturb(clips, torch.as_tensor(events, dtype=torch.float32), kind)
        change = (endpoint_fn(perturbed)[0] - endpoint_fn(clips)[0])[range(len(clips)), labels].abs()
    sys.stdout.write(f"{kind:7}  {change.min():.6f}  {change.max():.6f}\n")
