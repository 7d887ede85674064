"""Evidence on explanations, beyond the paper: do the masked frames matter, and does the model?

- Deletion and insertion curves over frames (see `frame_curves`), in the order of the mask; beside them the same from
  the middle outwards, and in random order.
- Randomisation (Adebayo et al. 2018, arXiv:1810.03292): the explanations of the same clips and classes when the
  model's layers are drawn anew, from the last to the first. What stays the same did not come from what was learnt. Of
  runs alone: how a foreign model's layers are drawn is not known.
- Restarts: the masks that the search finds from other starts.

All of it starts from an explanations file, and works with any framework's explainer. It is cut into parts that go
through all clips with one model (a kind of perturbation, a set of weights, a start), so that processes can share them.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import errors, launching, progress, tables
from common.clips.clip_store import ClipStore
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
from common.launching import HERE, Launch, Tick
from common.models import architectures, foreign, initial_weights
from common.runs import subjects
from common.runs.subjects import LoadToExplain, Subject, Trained
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
      clips: folder of the clip store, or None for the one that was explained.
      limit: number of clips for the curves and for Grad-CAM, spread over the classes; 0 for all.
      mask_limit: number of those for which masks are learnt again, 0 for none; each costs seven searches.
      seed: of random orders, weights and starts.
      out: file to write, or None for evidence.json beside the explanations.
    """

    model: foreign.Source
    explanations: pathlib.Path | None = None
    clips: pathlib.Path | None = None
    limit: int = 12
    mask_limit: int = 4
    seed: int = 0
    out: pathlib.Path | None = None

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
    launch: Launch = HERE,
) -> dict[str, Any]:
    """Computes the evidence; writes nothing.

    Args:
      settings: what to gather evidence about.
      make_explainer: builds the framework's explainer; picklable, as `load` is, for any but one process.
      load: loads a foreign model.
      launch: in which processes; they share the parts, and what is found does not depend on how many they are.

    Returns:
      What `evidence_file.write` takes: run, model, framework, clips (ids), curves (see `_Gatherer.curves`),
      randomization and restarts.

    Raises:
      errors.UserError: for explanations of another model, and for a task of an array job.
    """
    if launch.num_tasks:
        raise errors.UserError(
            "Evidence must be gathered in one call, which --workers or --ray may share. "
            f"Received: num_tasks {launch.num_tasks}"
        )
    gatherer = _Gatherer(settings, make_explainer, load)
    subject, some = gatherer.subject, gatherer.some
    subject.tell(len(some), gatherer.store)
    parts = gatherer.parts()
    with progress.bar(total=len(parts), unit="part", desc=f"evidence on {subject.name}") as bar:
        found = dict(launching.run(gatherer, parts, launch, bar.update))
    restarts = [found[part] for part in parts if part[0] == "restart"]
    return {
        "run": some.header["run"],
        "model": subject.model,
        "framework": gatherer.explainer.framework,
        "explanations": settings.explained.name,
        "video_ids": list(some["video_id"]),
        "curves": {
            what: {kind: found["curves", number][what] for number, kind in enumerate(KINDS)}
            for what in ("deletion", "insertion")
        },
        "randomization": [found[part] for part in parts if part[0] == "randomization"],
        "restarts": {
            "starts": _RESTARTS,
            **{name: [value for each in restarts for value in each[name]] for name in ("mask", "loss")},
        },
    }


_Part = tuple[str, int]  # What of the evidence, and which of these.


class _Gatherer:
    """Gathers parts; opens model, clips and explanations once in a process, when they are first asked for.

    Args:
      settings: what to gather evidence about.
      make_explainer: builds the framework's explainer.
      load: loads a foreign model.
    """

    def __init__(
        self, settings: EvidenceSettings, make_explainer: explanation_loop.MakeExplainer, load: LoadToExplain
    ) -> None:
        self._settings, self._make_explainer, self._load = settings, make_explainer, load

    def __reduce__(self) -> Any:  # Another process opens for itself what this one has open.
        return _Gatherer, (self._settings, self._make_explainer, self._load)

    def parts(self) -> list[_Part]:
        """Returns all parts; those that take longest, since they learn masks, come first."""
        trained = isinstance(self.subject.classifier, Trained)
        return [
            *(("randomization", number) for number in range(len(_LEVELS) + 1 if trained else 0)),
            *(("restart", number) for number in range(_RESTARTS if len(self._few) else 0)),
            *(("curves", number) for number in range(len(KINDS))),
        ]

    def __call__(self, part: _Part, tick: Tick) -> tuple[_Part, dict[str, Any]]:
        """Gathers a part, and returns its name with it."""
        what, number = part
        found = {"randomization": self._randomization, "restart": self._restart, "curves": self._curves}[what](number)
        tick(1)
        return part, found

    @property
    def some(self) -> Explanations:
        """The explanations that it is about."""
        return self._opened[0]

    @property
    def subject(self) -> Subject:
        return self._opened[1]

    @property
    def store(self) -> ClipStore:
        return self._opened[2]

    @functools.cached_property
    def _opened(self) -> tuple[Explanations, Subject, ClipStore]:
        settings = self._settings
        explained = explanations.read(settings.explained)
        header = explained.header
        clips = settings.clips or explanations.clips_folder(settings.explained, explained)
        endpoint = GradCamConfig(**(header["gradcam"] or {})).endpoint
        subject, store = subjects.open_subject(
            settings.model, clips, header["split"], lambda spec: self._load(spec, endpoint, header["precision"])
        )
        explanation_loop.check_weights(subject, header)
        return explained.take(spread_over_classes(explained["label"], settings.limit)), subject, store

    @functools.cached_property
    def _frames(self) -> np.ndarray:
        return self.store.read(self.store.places(self.some["video_id"]))

    @functools.cached_property
    def _few(self) -> np.ndarray:
        """The places, among `some`, of the clips whose masks are learnt again."""
        limit = self._settings.mask_limit
        return spread_over_classes(self.some["label"], limit)[:limit]

    @functools.cached_property
    def _mask_config(self) -> MaskConfig:
        return MaskConfig(**self.some.header["mask"])

    @functools.cached_property
    def explainer(self) -> explanation_loop.Explainer:
        return self._explainer_of(self.subject.classifier)

    def _explainer_of(self, classifier: subjects.Classifier) -> explanation_loop.Explainer:
        header = self.some.header
        cam_config = GradCamConfig(**(header["gradcam"] or {}))
        return self._make_explainer(classifier, self._mask_config, cam_config, header["precision"], lambda clips: None)

    def _curves(self, number: int) -> dict[str, Any]:
        """Returns of a kind "deletion" and "insertion": order -> mean curve [T + 1] and each clip's area under its."""
        soft_masks = self.some["mask"]
        scorer = self.explainer.scorer(self._frames, self.some["target"])
        by_clip_and_name = [
            frame_orders(mask.astype(np.float64), (self._settings.seed, place)) for place, mask in enumerate(soft_masks)
        ]
        names = np.array([name for name, variants in by_clip_and_name[0].items() for _ in variants])  # [O], an order's
        orders = np.array([[order for several in each.values() for order in several] for each in by_clip_and_name])
        scores = frame_curves.curves(scorer, orders, KINDS[number])
        curves: dict[str, Any] = {"deletion": {}, "insertion": {}}
        for name in ORDERS:
            by_clip = scores[:, names == name].mean(axis=1)  # [N, 2, T + 1]: several random orders count as one.
            for what, curve in zip(curves, by_clip.swapaxes(0, 1), strict=True):
                curves[what][name] = {"mean": curve.mean(axis=0).tolist(), "areas": curve.mean(axis=1).tolist()}
        return curves

    def _randomization(self, number: int) -> dict[str, Any]:
        """Returns of a level how many "layers" are drawn anew, "from" which on, and how similar explanations are.

        "gradcam": rank correlation of the coarse maps, "mask": IoU of the snapped masks; a value a clip, None where
        one map is constant.
        """
        trained, some, few = self.subject.classifier, self.some, self._few
        assert isinstance(trained, Trained)  # See `parts`.
        layers = [layer for layer in architectures.layers(trained.config) if layer.weights]
        fresh = initial_weights.initial_weights(trained.config, self._settings.seed + 1)
        count = max(1, round(_LEVELS[number - 1] * len(layers))) if number else 1
        drawn = layers[len(layers) - count :]
        names = {name for layer in drawn for name in layer.weights}
        weights = {name: fresh[name] if name in names else array for name, array in trained.weights.items()}
        explainer = self._explainer_of(Trained(trained.config, weights))
        maps = explainer.gradcam(self._frames, some["target"])
        row = {
            "layers": count,
            "from": drawn[0].name,
            "gradcam": [_rank_correlation(*pair) for pair in zip(some["gradcam"], maps, strict=True)],
            "mask": [],
        }
        if len(few):
            learnt = mask_search.learn_masks(
                explainer.scorer(self._frames[few], some["target"][few]), self._mask_config
            )
            row["mask"] = _ious(some["mask_snapped"][few], masks.snap(learnt.masks))
        return row

    def _restart(self, number: int) -> dict[str, Any]:
        """Returns how like the masks are that the search finds from random windows: "mask" (IoU) and "loss" (ratio)."""
        some, few = self.some, self._few
        step = some.header.get("frames_per_step", 1)
        scorer = self.explainer.scorer(self._frames[few], some["target"][few])
        scorer, config = steps.whole_steps(scorer, self._mask_config, step)
        places = [place for place in masks.intervals(scorer.time) if config.area in (0, place[1] - place[0])]
        windows = np.stack([masks.interval_mask(*place, scorer.time) for place in places])
        drawn = np.random.default_rng(self._settings.seed).integers(0, len(windows), (_RESTARTS, len(few)))
        learnt = mask_search.learn_masks(scorer, config, start_masks=windows[drawn[number]])
        return {
            "mask": _ious(some["mask_snapped"][few], masks.snap(learnt.masks.repeat(step, axis=1))),
            "loss": (learnt.final_loss / some["final_loss"][few]).tolist(),
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
