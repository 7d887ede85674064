"""Evidence on explanations, beyond the paper: do the masked frames matter, and does the model?

- Deletion and insertion curves over frames (see `frame_curves`), in the order of the mask; beside them the same from
  the middle outwards, and in random order.
- Randomisation (Adebayo et al. 2018, arXiv:1810.03292): the explanations of the same clips and classes when the
  model's layers are drawn anew, from the last to the first. What stays the same did not come from what was learnt. Of
  runs alone: how a foreign model's layers are drawn is not known.
- Restarts: the masks that the search finds from other starts.

All of it starts from an explanations file, and works with any framework's explainer.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common import errors, files, progress, remote, tables
from common.explaining import (
    explanation_loop,
    explanations,
    frame_curves,
    mask_search,
    masks,
    methods_baselines,
    steps,
)
from common.explaining.evidence_file import KINDS, ORDERS
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models import architectures, foreign, initial_weights
from common.remote import Cache
from common.runs import subjects
from common.runs.subjects import Classifier, LoadToExplain, Trained
from common.tables import Column, Table

_LEVELS = (1 / 3, 2 / 3, 1.0)  # Share of the layers, from the last, that is drawn anew; before these the last alone.
_RANDOM_ORDERS = 2
_RESTARTS = 3


@dataclasses.dataclass(frozen=True)
class EvidenceSettings:
    """What to gather evidence about.

    Attributes:
      model: run directory, or a foreign model.
      explanations: file of that model, or None for explanations.h5 in `foreign.folder`.
      clips: folder or URL of the clip store, or None for the one that was explained.
      cache: where clips at a URL are kept.
      limit: number of clips for the curves and for Grad-CAM, spread over the classes; 0 for all.
      mask_limit: number of those for which masks are learnt again, 0 for none; each costs seven searches.
      seed: of random orders, weights and starts.
      out: file to write, or None for evidence.json beside the explanations.
    """

    model: foreign.Source
    explanations: pathlib.Path | None = None
    clips: files.Place | None = None
    limit: int = 12
    mask_limit: int = 4
    seed: int = 0
    out: pathlib.Path | None = None
    cache: Cache = remote.DEFAULT

    @property
    def explained(self) -> pathlib.Path:
        """The file of explanations."""
        return self.explanations or foreign.folder(self.model) / "explanations.h5"

    @property
    def path(self) -> pathlib.Path:
        """The file to write."""
        return self.out or self.explained.with_name("evidence.json")

    def __post_init__(self) -> None:
        if min(self.limit, self.mask_limit) < 0:
            raise errors.UserError(
                f"limit and mask_limit must be at least 0. Received: {self.limit}, {self.mask_limit}"
            )


def gather(
    settings: EvidenceSettings,
    make_explainer: explanation_loop.MakeExplainer,
    load: LoadToExplain = subjects.load_none,
) -> dict[str, Any]:
    """Computes the evidence; writes nothing.

    Args:
      settings: what to gather evidence about.
      make_explainer: builds the framework's explainer.
      load: loads a foreign model.

    Returns:
      What `evidence_file.write` takes: run, model, framework, clips (ids), curves (see `_curves`), randomization and
      restarts.

    Raises:
      errors.UserError: for explanations of another model.
    """
    path = settings.explained
    explained = explanations.read(path)
    header = explained.header
    clips = settings.clips or explanations.clips_folder(path, explained)
    mask_config, cam_config = MaskConfig(**header["mask"]), GradCamConfig(**(header["gradcam"] or {}))
    subject, store = subjects.open_subject(
        settings.model,
        clips,
        header["split"],
        lambda spec: load(spec, cam_config.endpoint, header["precision"]),
        settings.cache,
    )
    explanation_loop.check_weights(subject, header)
    some = explained.take(spread_over_classes(explained["label"], settings.limit))
    subject.tell(len(some), store)
    frames = store.read(store.places(some["video_id"]))

    def make(classifier: Classifier) -> explanation_loop.Explainer:
        return make_explainer(classifier, mask_config, cam_config, header["precision"], lambda clips: None)

    explainer = make(subject.classifier)
    few = spread_over_classes(some["label"], settings.mask_limit)[: settings.mask_limit]
    return {
        "run": header["run"],
        "model": subject.model,
        "framework": explainer.framework,
        "explanations": path.name,
        "video_ids": list(some["video_id"]),
        "curves": _curves(explainer.scorer(frames, some["target"]), some["mask"], settings.seed),
        "randomization": (
            _randomization(make, subject.classifier, frames, some, few, mask_config, settings.seed)
            if isinstance(subject.classifier, Trained)
            else []
        ),
        "restarts": _restarts(explainer, frames, some, few, mask_config, settings.seed),
    }


def table(gathered: dict[str, Any]) -> str:
    """Returns the evidence as text."""
    curves, restarts = gathered["curves"], gathered["restarts"]
    areas = Table(
        (
            Column(f"{gathered['run']}: area under the curve"),
            *(Column(what, ".3f") for what in ("deletion", "insertion")),
        ),
        [
            (
                f"  {kind}, frames in the order of {order}",
                *(_mean(curves[what][kind][order]["areas"]) for what in ("deletion", "insertion")),
            )
            for kind in KINDS
            for order in ORDERS
        ],
    )
    randomization = Table(
        (Column("layers drawn anew"), Column("Grad-CAM, rank correlation", ".3f"), Column("mask, IoU", ".3f")),
        [
            (f"  {row['layers']}, from {row['from']} on", _mean(row["gradcam"]), _mean(row["mask"]))
            for row in gathered["randomization"]
        ],
    )
    blocks = [tables.write_text(table) for table in (areas, randomization) if table.rows]
    if restarts["mask"]:
        blocks.append(
            f"masks from {restarts['starts']} random starts: IoU with the explained mask "
            f"{_mean(restarts['mask']):.3f}, loss over its loss {_mean(restarts['loss']):.3f}"
        )
    return "\n\n".join(blocks)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def spread(total: int, limit: int) -> np.ndarray:
    """Returns `limit` places evenly over 0…total - 1, or all."""
    return np.arange(total) if not limit or limit >= total else np.arange(limit) * total // limit


def spread_over_classes(labels: np.ndarray, limit: int) -> np.ndarray:
    """Returns the places of `limit` clips, ascending, or of all: each class has its n-th before one has its (n + 1)-th.

    Of the classes that have one more than others, where the limit ends in the middle of a turn, those are chosen that
    are spread evenly.

    Args:
      labels: int [N], classes of the clips.
      limit: number of clips; 0 for all.
    """
    if not limit or limit >= len(labels):
        return np.arange(len(labels))
    seen: collections.Counter[int] = collections.Counter()
    turns = np.empty(len(labels), int)
    for place, label in enumerate(labels.tolist()):
        turns[place] = seen[label]
        seen[label] += 1
    last = int(np.sort(turns)[limit - 1])
    taken, partly = np.flatnonzero(turns < last), np.flatnonzero(turns == last)
    return np.sort(np.concatenate([taken, partly[spread(len(partly), limit - len(taken))]]))


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


def _curves(scorer: mask_search.Scorer, soft_masks: np.ndarray, seed: int) -> dict[str, Any]:
    """Returns "deletion" and "insertion": kind -> order -> mean curve [T + 1] and each clip's area under its curve.

    Args:
      scorer: N clips.
      soft_masks: their learnt masks, float [N, T].
      seed: of the random orders.
    """
    by_clip_and_name = [frame_orders(mask.astype(np.float64), (seed, number)) for number, mask in enumerate(soft_masks)]
    names = np.array([name for name, variants in by_clip_and_name[0].items() for _ in variants])  # [O], one an order
    orders = np.array([[order for several in each.values() for order in several] for each in by_clip_and_name])
    curves: dict[str, Any] = {name: {kind: {} for kind in KINDS} for name in ("deletion", "insertion")}
    for kind in progress.bar(KINDS, desc="curves", unit="kind"):
        scores = frame_curves.curves(scorer, orders, kind)
        for name in ORDERS:
            by_clip = scores[:, names == name].mean(axis=1)  # [N, 2, T + 1]: several random orders count as one.
            for what, curve in zip(curves, by_clip.swapaxes(0, 1), strict=True):
                curves[what][kind][name] = {"mean": curve.mean(axis=0).tolist(), "areas": curve.mean(axis=1).tolist()}
    return curves


def _randomization(
    make: Callable[[Classifier], explanation_loop.Explainer],
    trained: Trained,
    frames: np.ndarray,
    some: Explanations,
    few: np.ndarray,
    mask_config: MaskConfig,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns one row for each level: number of "layers" drawn anew, "from" which on, and how similar explanations are.

    "gradcam": rank correlation of the coarse maps, "mask": IoU of the snapped masks; a value a clip, None where one
    map is constant.
    """
    layers = [layer for layer in architectures.layers(trained.config) if layer.weights]
    fresh = initial_weights.initial_weights(trained.config, seed + 1)
    counts = [1, *(max(1, round(share * len(layers))) for share in _LEVELS)]
    rows = []
    for count in progress.bar(counts, desc="randomisation", unit="level"):
        drawn = layers[len(layers) - count :]
        names = {name for layer in drawn for name in layer.weights}
        weights = {name: fresh[name] if name in names else array for name, array in trained.weights.items()}
        explainer = make(Trained(trained.config, weights))
        maps = explainer.gradcam(frames, some["target"])
        row = {
            "layers": count,
            "from": drawn[0].name,
            "gradcam": [_rank_correlation(*pair) for pair in zip(some["gradcam"], maps, strict=True)],
            "mask": [],
        }
        if len(few):
            learnt = mask_search.learn_masks(explainer.scorer(frames[few], some["target"][few]), mask_config)
            row["mask"] = _ious(some["mask_snapped"][few], masks.snap(learnt.masks))
        rows.append(row)
    return rows


def _restarts(
    explainer: explanation_loop.Explainer,
    frames: np.ndarray,
    some: Explanations,
    few: np.ndarray,
    mask_config: MaskConfig,
    seed: int,
) -> dict[str, Any]:
    """Returns how like the masks are that the search finds from random windows: "mask" (IoU) and "loss" (ratio)."""
    result: dict[str, Any] = {"starts": _RESTARTS, "mask": [], "loss": []}
    if not len(few):
        return result
    step, stream = some.header.get("frames_per_step", 1), np.random.default_rng(seed)
    scorer, config = steps.whole_steps(explainer.scorer(frames[few], some["target"][few]), mask_config, step)
    places = [place for place in masks.intervals(scorer.time) if config.area in (0, place[1] - place[0])]
    windows = np.stack([masks.interval_mask(*place, scorer.time) for place in places])
    for _ in progress.bar(range(_RESTARTS), desc="restarts", unit="start"):
        start_masks = windows[stream.integers(0, len(windows), len(few))]
        learnt = mask_search.learn_masks(scorer, config, start_masks=start_masks)
        result["mask"] += _ious(some["mask_snapped"][few], masks.snap(learnt.masks.repeat(step, axis=1)))
        result["loss"] += (learnt.final_loss / some["final_loss"][few]).tolist()
    return result


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
