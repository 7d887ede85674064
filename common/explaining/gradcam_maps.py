"""Grad-CAM after the gradient (section 3.2): Eq. 2, up-sampling to the clip, normalisation, and blobs of a map.

L_ijt = ReLU(Σ_k w_k A_ijt^k), where w_k is the mean over i, j of the class score's gradient in A^k (Selvaraju et al.
2017, arXiv:1610.02391, frame by frame). The printed equation has no ReLU; the text under it asks for one. A framework
brings activations and gradients; all the rest is here, in NumPy. The sizes T', H', W' of activations and coarse maps
are t, h, w in types, where T, H, W are those of the clip.
"""

import dataclasses
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import Float, Float32, Float64, Int64

from common import errors
from common.models import architectures, configs

WEIGHTS = ("frame", "clip")
SCORES = ("logit", "probability")
TIMES = ("repeat", "linear")
NORMALIZATIONS = ("clip", "frame")
BLOB_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class GradCamConfig:
    """How Grad-CAM maps are made; the defaults are the paper's.

    Attributes:
      endpoint: whose activations are used; "" is the paper's (see `default_endpoint`).
      weights: "frame" (Eq. 2 as printed: the gradient's mean over height and width of each frame) or "clip" (over time
        too; D18). Where the head sees the last frame alone (ConvLSTM on KTH), only that frame of the last layer has a
        gradient: "frame" leaves the other frames' maps zero, "clip" does not.
      score: F_c, the target's "logit" or its softmax "probability".
      time: how coarse time becomes the clip's T frames, "repeat" or "linear" (see `upsample`).
    """

    endpoint: str = ""
    weights: str = "frame"
    score: str = "logit"
    time: str = "repeat"

    def __post_init__(self) -> None:
        for name, choices in (("weights", WEIGHTS), ("score", SCORES), ("time", TIMES)):
            errors.check_choice(name, getattr(self, name), choices)


def default_endpoint(model_config: configs.ModelConfig) -> str:
    """Returns the paper's endpoint: the last Inception block, or the last ConvLSTM layer before its batch norm."""
    return "Mixed_5c" if isinstance(model_config, configs.I3DConfig) else f"ConvLSTM_{model_config.num_layers}"


def find_endpoint(model_config: configs.ModelConfig, endpoint: str) -> str:
    """Returns the endpoint of a name, for "" the paper's; refuses names of no endpoint [T', H', W', C] of the model."""
    names = [layer.name for layer in architectures.layers(model_config) if len(layer.output_shape) == 4]
    if not endpoint:
        return default_endpoint(model_config)
    errors.check_choice("endpoint", endpoint, names)
    return endpoint


def check_shapes(
    clips: tuple[int | None, ...], activations: tuple[int | None, ...], logits: tuple[int | None, ...]
) -> None:
    """Refuses shapes that are not [N, T, H, W, C], [N, T', H', W', C'] and [N, K]; None is a size not known yet.

    A layer whose output is larger than the clip in T, H or W was taken for one with another order of axes.
    """
    if len(activations) != 5 or len(logits) != 2 or activations[0] != logits[0] or logits[1] is None:
        raise errors.UserError(
            "Grad-CAM must be given activations [N, T', H', W', C'] of a clip, not of single frames, and "
            f"logits [N, K]. Received: {activations} and {logits}"
        )
    sizes = zip(activations[1:4], clips[1:4], strict=True)
    if any(size is not None and limit is not None and not 1 <= size <= limit for size, limit in sizes):
        raise errors.UserError(
            "Grad-CAM must be given activations [N, T', H', W', C'], T', H', W' at most the clip's T, H, W "
            f"(activations_axes says which axis is which). Received: {activations} of clips {clips}"
        )


def check_logits(logits: Float[np.ndarray, "N K"], score: str) -> None:
    """Refuses probabilities where the softmax of logits is to be explained: it would be taken twice."""
    sums = logits.sum(axis=1, dtype=np.float64)
    if score == "probability" and logits.shape[1] > 1 and logits.min() >= 0 and np.abs(sums - 1).max() < 1e-3:
        raise errors.UserError(
            "A model must return logits, not probabilities, where the score is a probability (their softmax). "
            "Received: numbers of 0…1, whose sum is 1 for each clip"
        )


def check_targets(targets: Any, num_clips: int, num_classes: int) -> Int64[np.ndarray, " {num_clips}"]:
    """Returns target classes as an array; refuses what is not one class, 0…K-1, for each clip."""
    array = np.asarray(targets)
    if array.shape != (num_clips,) or array.dtype.kind not in "iu" or not np.all((array >= 0) & (array < num_classes)):
        raise errors.UserError(
            f"targets must be {num_clips} class numbers in 0…{num_classes - 1}. Received: {array.tolist()}"
        )
    return array.astype(np.int64)


def combine(
    activations: Float[np.ndarray, "N t h w C"], gradients: Float[np.ndarray, "N t h w C"], weights: str = "frame"
) -> Float[np.ndarray, "N t h w"]:
    """Returns Eq. 2, ReLU(Σ_k w_k A_k), coarse maps, at least 0.

    Args:
      activations: A.
      gradients: of the class score in A.
      weights: "frame" or "clip" (see `GradCamConfig`).

    Returns:
      float64 where the activations are, else float32.

    Raises:
      UserError: for NaN or infinity.
    """
    errors.check_choice("weights", weights, WEIGHTS)
    dtype = np.float64 if activations.dtype == np.float64 else np.float32
    axes = (2, 3) if weights == "frame" else (1, 2, 3)
    channel_weights = gradients.mean(axis=axes, dtype=np.float64, keepdims=True).astype(dtype)  # [N, T' or 1, 1, 1, C]
    maps = activations.astype(dtype, copy=False) @ channel_weights.swapaxes(3, 4)
    if not gradients.any():
        logging.warning("No score depends on the endpoint in any place: Grad-CAM's maps are zero everywhere.")
    if not np.isfinite(maps).all():
        raise errors.UserError("Activations and their gradients must be finite. Received: NaN or infinity")
    return np.maximum(maps[..., 0], 0)


def upsample(
    maps: Float[np.ndarray, "N t h w"], shape: tuple[int, int, int], time: str = "repeat"
) -> Float32[np.ndarray, "N T H W"]:
    """Brings coarse maps to the size of the clip.

    Space is bilinear between centres of pixels, and beyond the outermost ones constant.

    Args:
      maps: coarse maps.
      shape: T, H, W of the clip.
      time: "repeat" (frame t is coarse frame floor(t T' / T)) or "linear" (between centres, as in space).
    """
    errors.check_choice("time", time, TIMES)
    num_frames, height, width = shape
    coarse = maps.shape[1]
    frames = maps.reshape(-1, *maps.shape[2:]).astype(np.float32)
    resized = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames]
    spatial = np.array(resized, np.float32).reshape(len(maps), coarse, height, width)
    if time == "repeat":
        return spatial[:, np.arange(num_frames) * coarse // num_frames]
    places = np.clip((np.arange(num_frames) + 0.5) * coarse / num_frames - 0.5, 0, coarse - 1)
    before = places.astype(int)
    after = np.minimum(before + 1, coarse - 1)
    share = (places - before).astype(np.float32)[:, None, None]
    return spatial[:, before] * (1 - share) + spatial[:, after] * share


def normalize(maps: Float[np.ndarray, "N T H W"], per: str = "clip") -> Float[np.ndarray, "N T H W"]:
    """Returns maps divided by the largest value of each clip or frame: 0…1.

    A map that is zero everywhere stays so (D17).

    Args:
      maps: finite and at least 0.
      per: "clip" (frames of a clip can be compared) or "frame".
    """
    errors.check_choice("per", per, NORMALIZATIONS)
    largest = maps.max(axis=(1, 2, 3) if per == "clip" else (2, 3), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


@dataclasses.dataclass(frozen=True)
class Blobs:
    """What the map of one clip looks like.

    Attributes:
      counts: blobs of each frame: 8-connected regions above the threshold.
      areas: share of the frame that each blob covers, 0…1, frame after frame; B is the sum of the counts.
      distances: of the map's centre of mass from the image centre, in units of half the image diagonal;
        NaN where the frame's map is zero everywhere.
    """

    counts: Int64[np.ndarray, " T"]
    areas: Float64[np.ndarray, " B"]
    distances: Float64[np.ndarray, " T"]


def blobs(map01: Float[np.ndarray, "T H W"], threshold: float = BLOB_THRESHOLD) -> Blobs:
    """Returns the blobs of a normalised map, 0…1, and how far from the centre its mass lies."""
    areas = [_areas(frame) for frame in (map01 > threshold).astype(np.uint8)]
    return Blobs(np.array([len(frame) for frame in areas], np.int64), np.concatenate(areas), _distances(map01))


def _areas(frame: np.ndarray) -> np.ndarray:
    """Returns the share of the frame [H, W] of 0 and 1 that each of its blobs covers."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(frame, connectivity=8)
    return stats[1:, cv2.CC_STAT_AREA] / frame.size  # Row 0 is the background.


def _distances(map01: np.ndarray) -> np.ndarray:
    """Returns `Blobs.distances` [T] of a map [T, H, W]."""
    _, height, width = map01.shape
    total = map01.sum(axis=(1, 2), dtype=np.float64)
    squares = np.zeros_like(total)
    for axis, size in ((1, height), (2, width)):
        offsets = np.arange(size) - (size - 1) / 2
        moment = map01.sum(axis=3 - axis, dtype=np.float64) @ offsets
        squares += np.divide(moment, total, out=np.full_like(total, np.nan), where=total > 0) ** 2
    return np.sqrt(squares) / (np.hypot(height, width) / 2)
