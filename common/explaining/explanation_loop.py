"""The explanation loop, once for both frameworks: which clips, what is computed of them, resumed where it stopped.

The clips are cut into parts (`explanation_parts`), which are the units (`units`) that processes and machines share:
each is a pure function of model, clips and settings that ends in one finished file. A killed command keeps the parts it
finished; the next one makes the rest, and the last to finish joins them to the file that one run would have written.
What a framework adds is an `Explainer` (`explainer`).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from common import errors, files, progress, remote, text, units
from common.clips.clip_store import ClipStore
from common.explaining import (
    batch_size,
    binary_masks,
    explanation_parts,
    explanations,
    mask_search,
    masks,
    methods,
    steps,
)
from common.explaining import scorer as scoring
from common.explaining.explainer import Explainer, MakeExplainer
from common.explaining.explanation_parts import Part, Parts
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig
from common.launching import HERE, Launch, Tick
from common.models import foreign
from common.remote import Cache
from common.runs import subjects
from common.runs.subjects import LoadToExplain, Subject

TARGETS = ("guess", "label")
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} clips [{elapsed}<{remaining}, {rate_fmt}]"


@dataclasses.dataclass(frozen=True)
class ExplainSettings:
    """What to explain, and how.

    Attributes:
      model: run directory, of either framework, or a foreign model.
      clips: folder or URL of the clip store, or None for the one a run was trained on.
      split: of the clips.
      limit: number of clips at most, the first of those chosen by what follows; 0 for all.
      limit_per_class: number of clips of each class at most, the first ones; 0 for all.
      video_ids: only these clips, or () for all.
      classes: only clips of these classes (names, or numbers as text), or () for all.
      target: class whose score is explained: "guess" (the model's, on the clean clip) or "label".
      mask: how masks are learnt.
      gradcam: how Grad-CAM is computed.
      methods: names of `methods.METHODS` whose answers are wanted too.
      evaluations: see `methods.MethodConfig`.
      precision: of the model's computation; mask, Adam and Eq. 1 stay float32 in bfloat16.
      batch_size: clips at a time, 0 for what fits the memory.
      out: file to write, or None for explanations.h5 in `foreign.folder`.
      overwrite: replace an `out` of other clips or settings, and its parts.
      cache: where clips at a URL are kept.
    """

    model: foreign.Source
    clips: files.Place | None = None
    split: str = "validation"
    limit: int = 0
    limit_per_class: int = 0
    video_ids: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    target: str = "guess"
    mask: MaskConfig = MaskConfig()
    gradcam: GradCamConfig = GradCamConfig()
    methods: tuple[str, ...] = ()
    evaluations: int = MethodConfig.evaluations
    precision: str = "float32"
    batch_size: int = 0
    out: pathlib.Path | None = None
    overwrite: bool = False
    cache: Cache = remote.DEFAULT

    @property
    def method_config(self) -> MethodConfig:
        """How methods answer."""
        return MethodConfig(self.mask, self.evaluations, cam_time=self.gradcam.time)

    @property
    def path(self) -> pathlib.Path:
        """The file to write."""
        return self.out or foreign.folder(self.model) / "explanations.h5"

    def __post_init__(self) -> None:
        errors.check_choice("target", self.target, TARGETS)
        for name in self.methods:
            errors.check_choice("methods", name, methods.METHODS)
        if min(self.limit, self.limit_per_class, self.batch_size) < 0:
            raise errors.UserError(
                "limit, limit_per_class and batch_size must be at least 0. "
                f"Received: {self.limit}, {self.limit_per_class}, {self.batch_size}"
            )


def explain(
    settings: ExplainSettings,
    make_explainer: MakeExplainer,
    load: LoadToExplain = subjects.load_none,
    launch: Launch = HERE,
) -> tuple[Explanations, ClipStore]:
    """Explains clips and writes `explanations.h5`; goes on where an earlier, killed call stopped.

    Args:
      settings: what to explain, and how.
      make_explainer: builds the framework's explainer; picklable, as `load` is, for any but one process.
      load: loads a foreign model.
      launch: which parts to make, and in which processes.

    Returns:
      The explanations, and the clips they are of.

    Raises:
      errors.UserError: for clips that do not fit the model, an empty choice, or an `out` of other settings.
      units.UnfinishedError: where this is a task of an array job, and others still have parts to make.
      OSError: where something cannot be written; finished parts are kept.
    """
    maker = _PartMaker(settings, make_explainer, load)
    store, header, out = maker.store, maker.header, settings.path
    chosen = choose_clips(store, settings)
    maker.subject.tell(len(chosen), store)
    if not explanations.has_maps(header):
        logging.info("%s has no layer for Grad-CAM: masks and scores alone, no maps.", maker.subject.name)
    parts = Parts(out, header, store, chosen)
    if settings.overwrite:
        parts.discard_others()
    if parts.are_joined():
        return parts.read_whole(), store
    parts.make_place()
    with parts.locked():
        if not out.exists():
            size = settings.batch_size
            parts.plan(size or batch_size.that_fits(maker.subject.classifier, maker.explainer, store, chosen[:1]))
    share = units.share(parts.all, launch)
    name = f"explaining {maker.subject.name}"
    with progress.bar(**units.amounts(share), unit="clip", desc=name, bar_format=_BAR) as bar:
        try:
            made = units.make(share, maker, out, launch, bar.update)
        except errors.UserError:
            parts.withdraw()
            raise
    num_steps = header["clip_shape"][0] // header.get("frames_per_step", 1)
    _tell_coarse([coarse for coarse in made.values() if coarse is not None], num_steps)
    with parts.locked():
        return parts.join(), store


def choose_clips(store: ClipStore, settings: ExplainSettings) -> np.ndarray:
    """Returns the indices of the chosen clips in the store's order; refuses unknown names and an empty choice."""
    keep = np.ones(len(store), bool)
    if settings.video_ids:
        unknown = sorted(set(settings.video_ids) - set(store.video_ids))
        if unknown:
            raise errors.UserError(f"video_ids must be of clips in {store.split}. Received: {', '.join(unknown)}")
        keep &= np.isin(np.array(store.video_ids), settings.video_ids)
    if settings.classes:
        keep &= np.isin(store.labels, [_class_index(name, store.info.class_names) for name in settings.classes])
    if settings.limit_per_class:
        for label in np.unique(store.labels):
            keep[np.flatnonzero(keep & (store.labels == label))[settings.limit_per_class :]] = False
    chosen = np.flatnonzero(keep)
    chosen = chosen[: settings.limit] if settings.limit else chosen
    if not len(chosen):
        raise errors.UserError(f"At least one clip must be chosen. Received: none of {len(store)} in {store.split}")
    if settings.target == "label" and store.labels[chosen].min() < 0:
        raise errors.UserError("With target=label all clips must be labelled. Received: one that is not")
    return chosen


def _class_index(name: str, class_names: tuple[str, ...]) -> int:
    if name in class_names:
        return class_names.index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    raise errors.UserError(f"classes must be names, or numbers below {len(class_names)}. Received: {name!r}")


class _PartMaker:
    """Makes parts; opens model and clips once in a process, when they are first asked for.

    Args:
      settings: what to explain, and how.
      make_explainer: builds the framework's explainer.
      load: loads a foreign model.
    """

    def __init__(self, settings: ExplainSettings, make_explainer: MakeExplainer, load: LoadToExplain) -> None:
        self._settings, self._make_explainer, self._load = settings, make_explainer, load
        self._tick: Tick = lambda clips: None

    def __reduce__(self) -> Any:  # Another process opens for itself what this one has open.
        return _PartMaker, (self._settings, self._make_explainer, self._load)

    @property
    def subject(self) -> Subject:
        return self._opened[0]

    @functools.cached_property
    def store(self) -> ClipStore:
        subject, store = self._opened
        if subject.foreign is None or subject.foreign.class_names or not len(store):
            return store
        scores = self.explainer.probabilities(store.read([0]))
        foreign.check_probabilities(scores, 1)
        return subjects.numbered(store, subject.foreign, scores.shape[1])

    @functools.cached_property
    def _opened(self) -> tuple[Subject, ClipStore]:
        settings = self._settings
        return subjects.open_subject(
            settings.model,
            settings.clips,
            settings.split,
            lambda spec: self._load(spec, settings.gradcam.endpoint, settings.precision),
            settings.cache,
        )

    @functools.cached_property
    def explainer(self) -> Explainer:
        settings = self._settings
        steps_per_clip = settings.mask.iterations * (2 if settings.mask.start == "multi" else 1)
        return self._make_explainer(
            self.subject.classifier,
            settings.mask,
            settings.gradcam,
            settings.precision,
            lambda clips: self._tick(clips / steps_per_clip),
        )

    @functools.cached_property
    def header(self) -> dict[str, Any]:
        return _header(self._settings, self.subject, self.store, self.explainer)

    def __call__(self, part: Part, tick: Tick) -> np.ndarray | None:
        """Makes a part; refuses one that was planned with other settings, or on a machine with other versions.

        Returns:
          What `_tell_coarse` takes, where it is known.
        """
        explanation_parts.check_same_settings(part.file.parent, self.header, part.header)
        self._tick = tick
        columns, coarse = _explain_part(self.explainer, self.store, part.indices, self._settings, part.header)
        explanations.write(part.file, Explanations(part.header, columns))
        return coarse


def _explain_part(
    explainer: Explainer,
    store: ClipStore,
    indices: np.ndarray,
    settings: ExplainSettings,
    header: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Explains clips together: searches their masks, asks the oracle, Grad-CAM and other methods.

    Args:
      explainer: of the model.
      store: of the clips.
      indices: of the clips in it, int [n].
      settings: how to explain them.
      header: of the file, which says its columns.

    Returns:
      The columns of `explanations.columns_of`, by name, n rows each, and what `_tell_coarse` takes, where it is known.
    """
    frames, labels = store.read(indices), store.labels[indices].astype(np.int64)
    probabilities = explainer.probabilities(frames)
    foreign.check_probabilities(probabilities, len(frames))
    subjects.check_classes(probabilities, store.info)
    predictions = probabilities.argmax(axis=1)
    targets = predictions if settings.target == "guess" else labels
    scorer = scoring.remembering(explainer.scorer(frames, targets))  # What the oracle scored the search knows.
    step = header.get("frames_per_step", 1)
    searched, config = steps.whole_steps(scorer, settings.mask, step)
    oracle = mask_search.best_intervals(searched, config)
    coarse = None
    if config.oracle == "full" and not config.area:
        coarse = np.stack(binary_masks.coarse_share(oracle, searched.time, config), axis=1)
    learnt = mask_search.learn_masks(searched, config, oracle)
    learnt_masks = learnt.masks.repeat(step, axis=1)
    maps = explainer.gradcam(frames, targets) if explanations.has_maps(header) else None
    subject = methods.Subject(scorer, frames, lambda: explainer.gradcam(frames, targets) if maps is None else maps)
    is_wrong = (labels >= 0) & (labels != predictions)
    columns: dict[str, Any] = {
        "video_id": np.array([store.video_ids[index] for index in indices], dtype=object),
        "label": labels,
        "prediction": predictions,
        "target": targets,
        "probabilities": probabilities,
        "mask": learnt_masks,
        "mask_snapped": masks.snap(learnt_masks),
        "loss": learnt.losses,
        "final_loss": learnt.final_loss,
        **learnt.scores,
        "CS": np.where(is_wrong, probabilities[np.arange(len(labels)), labels], np.nan),
        "oracle_interval": oracle.intervals * step,
        "oracle_loss": oracle.losses,
        "gradcam": maps,
    }
    for name in explanations.methods_of(header):
        columns[explanations.attribution(name)] = methods.METHODS[name](subject, settings.method_config)
    table = explanations.columns_of(header)
    return {name: np.asarray(columns[name], column.dtype) for name, column in table.items()}, coarse


def _tell_coarse(coarse: Sequence[np.ndarray], time: int) -> None:
    """Says how good the coarse oracle would have been, where the full one has been asked.

    Args:
      coarse: of some clips each, int [n, 2]: whether it finds the best interval, and how many it tries.
      time: frames, or steps, of a clip.
    """
    if coarse:
        exact, tried = np.concatenate(coarse).T
        logging.info(
            "--oracle=coarse would find the best interval of %d of %s, trying %.0f of %d on average.",
            *(exact.sum(), text.counted(len(exact), "clip"), tried.mean(), len(masks.intervals(time))),
        )


def _header(settings: ExplainSettings, subject: Subject, store: ClipStore, explainer: Explainer) -> dict[str, Any]:
    """Returns what decides every number in the file, and what a report needs to know."""
    foreign_model = subject.foreign
    has_maps = foreign_model is None or foreign_model.endpoint_fn is not None
    header: dict[str, Any] = {
        "schema_version": explanations.SCHEMA_VERSION,
        "run": subject.name,
        "weights_sha256": subject.digest,
        "model": subject.model,
        "dataset": store.info.dataset,
        "clips": files.stored_path(store.directory, settings.path.parent),
        "clips_digest": store.info.digest,
        "split": settings.split,
        "class_names": list(store.info.class_names),
        "clip_shape": list(store.info.layout.clip_shape[:3]),
        "target": settings.target,
        "mask": dataclasses.asdict(settings.mask),
        "gradcam": dataclasses.asdict(settings.gradcam) if has_maps else None,
        "precision": settings.precision,
        "framework": explainer.framework,
        "versions": explainer.versions(),
    }
    header |= {"source": subject.source} if subject.source else {}
    if settings.methods:
        config = settings.method_config
        numbers = {"evaluations": config.evaluations, "steps": config.steps, "seed": config.seed}
        header["methods"] = {"names": sorted(set(settings.methods)), **numbers}
        if "gradcam" in settings.methods and not has_maps:
            raise errors.UserError("methods must be without gradcam for a model without an endpoint. Received: gradcam")
    if foreign_model is not None:
        header["versions"] |= foreign_model.versions
        header |= {"licence": foreign_model.licence} if foreign_model.licence else {}
        header |= {"frames_per_step": foreign_model.frames_per_step} if foreign_model.frames_per_step > 1 else {}
    return header
