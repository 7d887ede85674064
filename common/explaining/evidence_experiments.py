"""The experiments of `evidence`, each for itself: curves of one kind, randomisation of some layers, one restart."""

from collections.abc import Callable
from typing import Any

import numpy as np

from common.explaining import frame_curves, mask_search, masks, methods_baselines, scorer, steps
from common.explaining.evidence_file import ORDERS
from common.explaining.explainer import Explainer
from common.explaining.explanations import Explanations
from common.explaining.masks import MaskConfig
from common.models import architectures, configs, initial_weights
from common.runs.subjects import Classifier, Trained

RESTARTS = 3
_SHARES_DRAWN_ANEW = (1 / 3, 2 / 3, 1.0)  # Of the layers, from the last; before these the last alone.
_RANDOM_ORDERS = 2
_CLIPS_AT_A_TIME = 12  # As many as there are by default (`EvidenceSettings.limit`), so more take no more memory.


def frame_orders(mask: np.ndarray, seed: tuple[int, ...]) -> dict[str, list[np.ndarray]]:
    """Returns the orders in which frames are perturbed: name -> orders, each int [T].

    Args:
      mask: soft mask [T]; equals stay in the order of time.
      seed: of the random orders.
    """
    time = len(mask)
    stream = np.random.default_rng(seed)
    outwards = frame_curves.order(methods_baselines.closeness_to_middle(time))
    return {
        "mask": [frame_curves.order(mask)],
        "centred": [outwards],
        "random": [stream.permutation(time) for _ in range(_RANDOM_ORDERS)],
    }


def curves(explainer: Explainer, frames: np.ndarray, explained: Explanations, kind: str, seed: int) -> dict[str, Any]:
    """Returns "deletion" and "insertion": order -> mean curve [T + 1] and each clip's area under its curve.

    Args:
      explainer: of the model.
      frames: uint8 [N, T, H, W, 3].
      explained: their explanations.
      kind: perturbation.
      seed: of the random orders.
    """
    soft_masks = explained["mask"].astype(np.float64)
    by_clip_and_name = [frame_orders(mask, (seed, number)) for number, mask in enumerate(soft_masks)]
    names = np.array([name for name, variants in by_clip_and_name[0].items() for _ in variants])  # [O], one an order
    orders = np.array([[order for several in each.values() for order in several] for each in by_clip_and_name])
    scores = np.concatenate(
        [
            frame_curves.curves(explainer.scorer(frames[some], explained["target"][some]), orders[some], kind)
            for some in scorer.batches(len(frames), _CLIPS_AT_A_TIME)
        ]
    )
    found: dict[str, Any] = {"deletion": {}, "insertion": {}}
    for name in ORDERS:
        by_clip = scores[:, names == name].mean(axis=1)  # [N, 2, T + 1]: several random orders count as one.
        for what, curve in zip(found, by_clip.swapaxes(0, 1), strict=True):
            found[what][name] = {"mean": curve.mean(axis=0).tolist(), "areas": curve.mean(axis=1).tolist()}
    return found


def levels(config: configs.ModelConfig) -> list[int]:
    """Returns how many of a model's layers, from the last, are drawn anew: the last alone, then ever more."""
    layers = _layers_with_weights(config)
    return sorted({1, *(max(1, round(share * len(layers))) for share in _SHARES_DRAWN_ANEW)})


def _layers_with_weights(config: configs.ModelConfig) -> list[architectures.Layer]:
    return [layer for layer in architectures.layers(config) if layer.weights]


def randomization(
    make: Callable[[Classifier], Explainer],
    trained: Trained,
    frames: np.ndarray,
    explained: Explanations,
    relearnt: np.ndarray,
    mask_config: MaskConfig,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Returns how similar explanations stay when the last `count` layers are drawn anew.

    Args:
      make: makes an explainer of a classifier.
      trained: the model.
      frames: uint8 [N, T, H, W, 3].
      explained: their explanations.
      relearnt: places, int [n], of the clips among these whose masks are learnt again.
      mask_config: how masks are learnt.
      count: one of `levels`.
      seed: of the weights.

    Returns:
      Number of "layers" drawn anew, "from" which on; "gradcam", rank correlations of the coarse maps, and "mask", IoUs
      of the snapped masks: a value a clip, None where one map is constant.
    """
    fresh = initial_weights.initial_weights(trained.config, seed + 1)
    drawn = _layers_with_weights(trained.config)[-count:]
    names = {name for layer in drawn for name in layer.weights}
    weights = {name: fresh[name] if name in names else array for name, array in trained.weights.items()}
    explainer = make(Trained(trained.config, weights))
    maps = np.concatenate(
        [
            explainer.gradcam(frames[some], explained["target"][some])
            for some in scorer.batches(len(frames), _CLIPS_AT_A_TIME)
        ]
    )
    found: dict[str, Any] = {
        "layers": count,
        "from": drawn[0].name,
        "gradcam": [_rank_correlation(*pair) for pair in zip(explained["gradcam"], maps, strict=True)],
        "mask": [],
    }
    if len(relearnt):
        again, _ = _learn_again(explainer, frames[relearnt], explained["target"][relearnt], mask_config)
        found["mask"] = _ious(explained["mask_snapped"][relearnt], masks.snap(again))
    return found


def restart(
    explainer: Explainer,
    frames: np.ndarray,
    explained: Explanations,
    mask_config: MaskConfig,
    number: int,
    seed: int,
) -> dict[str, Any]:
    """Returns how like the masks are that the search finds from random windows: "mask" (IoU) and "loss" (ratio).

    The ratio is None where the explained mask's loss is 0, which it can be where masks cost nothing (lambda_1 = 0).

    Args:
      explainer: of the model.
      frames: uint8 [N, T, H, W, 3].
      explained: their explanations.
      mask_config: how masks of frames are learnt.
      number: 0…RESTARTS - 1.
      seed: of all starts.
    """
    step, stream = explained.header.get("frames_per_step", 1), np.random.default_rng(seed)
    time, area = frames.shape[1] // step, mask_config.area // step
    places = [place for place in masks.intervals(time) if area in (0, place[1] - place[0])]
    windows = masks.interval_masks(places, time)
    drawn = [stream.integers(0, len(windows), len(explained)) for _ in range(RESTARTS)]
    again, losses = _learn_again(
        explainer, frames, explained["target"], mask_config, step, start_masks=windows[drawn[number]]
    )
    return {
        "mask": _ious(explained["mask_snapped"], masks.snap(again)),
        "loss": [
            float(ours / theirs) if theirs else None
            for ours, theirs in zip(losses, explained["final_loss"].astype(np.float64), strict=True)
        ],
    }


def _learn_again(
    explainer: Explainer,
    frames: np.ndarray,
    targets: np.ndarray,
    mask_config: MaskConfig,
    step: int = 1,
    start_masks: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Learns masks, a batch of clips at a time.

    Args:
      explainer: of the model.
      frames: uint8 [N, T, H, W, 3].
      targets: classes, int [N].
      mask_config: how masks of frames are learnt.
      step: frames that the model sees together.
      start_masks: see `mask_search.learn_masks`, of steps [N, T / step].

    Returns:
      Masks of frames, float64 [N, T], and their Eq. 1, float64 [N].
    """
    found = []
    for some in scorer.batches(len(frames), _CLIPS_AT_A_TIME):
        searched, config = steps.whole_steps(explainer.scorer(frames[some], targets[some]), mask_config, step)
        starts = None if start_masks is None else start_masks[some]
        found.append(mask_search.learn_masks(searched, config, start_masks=starts))
    learnt = np.concatenate([one.masks for one in found])
    return learnt.repeat(step, axis=1), np.concatenate([one.final_loss for one in found])


def _ious(first: np.ndarray, second: np.ndarray) -> list[float]:
    """Returns the IoU of snapped masks [N, T]; two empty ones are the same."""
    shared, either = (first & second).sum(axis=1), (first | second).sum(axis=1)
    return np.where(either > 0, shared / np.maximum(either, 1), 1.0).tolist()


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Returns Spearman's rank correlation of two maps, equals sharing a rank; None where one is constant."""
    ours, theirs = _ranks(first.ravel()), _ranks(second.ravel())
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(ours, theirs)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
