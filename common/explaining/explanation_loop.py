"""The explanation loop, once for both frameworks: which clips, in which parts, resumed where it stopped.

The clips are cut into parts, which are the units (`units`) that processes and machines share: each is a pure function
of model, clips and settings that ends in one finished file under `OUT.parts/`. A killed command keeps the parts it
finished; the next one makes the rest, and whoever is the last joins them to the file that one run would have written.
What a framework adds is an `Explainer`.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypedDict

import numpy as np
from absl import logging

from common import errors, files, locks, progress, remote, text, units
from common.clips.clip_store import ClipStore
from common.explaining import binary_masks, explanations, mask_search, masks, methods, steps
from common.explaining import scorer as scoring
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig
from common.launching import HERE, Launch, Tick
from common.models import architectures, configs, foreign
from common.remote import Cache
from common.runs import subjects
from common.runs.subjects import Classifier, LoadToExplain, Subject, Trained

TARGETS = ("guess", "label")
_PART = re.compile(r"\d{6}\.h5|\.\d{6}\.h5\.lock")  # Or its claim.
# An activation is kept for the backward pass, with its gradient and a copy that some layer makes of either.
_BYTES_PER_ACTIVATION = 4 * 4
_BYTES_PER_PREPARED = 4 * 2  # And as much again while it is brought into order.
_SHARE_OF_MEMORY = 0.5
# More at a time gains nothing: two cores leave their caches, a GPU is busy (docs/performance.md).
_MOST_BYTES_ON_CPU = 192 << 20
_MOST_CLIPS = 64


class Explainer(Protocol):
    """A classifier and what explains it, implemented by each framework. Frames are uint8 [n, T, H, W, 3]."""

    framework: str

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries in use, by name."""

    def free_memory(self) -> tuple[int, bool]:
        """Returns the bytes that are free where it computes, and whether that is a GPU."""

    def bytes_per_clip(self, frames: np.ndarray) -> int:
        """Returns how many bytes the gradient in the mask needs for the clip [1, T, H, W, 3], by trying."""

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Returns the softmax, float64 [n, K]."""

    def scorer(self, frames: np.ndarray, targets: np.ndarray) -> scoring.Scorer:
        """Returns a `scorer.Scorer` for clips and their target classes, int [n]."""

    def gradcam(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Returns coarse maps [n, T', H', W']."""


# (classifier, how masks are learnt, how Grad-CAM is computed, precision, what to call after each step of a search with
# its number of clips).
MakeExplainer = Callable[[Classifier, MaskConfig, GradCamConfig, str, Callable[[int], object]], Explainer]


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
    parts = _Parts(out)
    if settings.overwrite:
        parts.discard_others(header, store, chosen)
    if out.exists() and not parts.leave_traces():
        return _finished(out, header, store, chosen), store
    parts.make_place()
    with locks.exclusive(out.parent, parts.lock, wait=True):
        if not out.exists():
            size = settings.batch_size or _batch_size(maker.subject.classifier, maker.explainer, store, chosen[:1])
            parts.plan(header, store, chosen, size)
    share = units.share(parts.all, launch)
    name = f"explaining {maker.subject.name}"
    with progress.bar(**units.amounts(share), unit="clip", desc=name, bar_format=_BAR) as bar:
        units.make(share, maker, out, launch, bar.update)
    with locks.exclusive(out.parent, parts.lock, wait=True):
        if out.exists():  # Joined by another call, or by one that was killed before it had cleared away the parts.
            whole = _finished(out, header, store, chosen)
        else:
            units.check_all_there(parts.all, out)
            whole = parts.join()
        parts.remove(whole.header)
    return whole, store


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} clips [{elapsed}<{remaining}, {rate_fmt}]"


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


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """One unit: clips that are explained together.

    Attributes:
      file: to make.
      indices: of the clips in their store, [n].
      header: of the file.
    """

    file: pathlib.Path
    indices: np.ndarray
    header: dict[str, Any]

    @property
    def size(self) -> int:
        """Number of clips."""
        return len(self.indices)


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

    @property
    def store(self) -> ClipStore:
        return self._opened[1]

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
        steps = settings.mask.iterations * (2 if settings.mask.start == "multi" else 1)
        return self._make_explainer(
            self.subject.classifier,
            settings.mask,
            settings.gradcam,
            settings.precision,
            lambda clips: self._tick(clips / steps),
        )

    @functools.cached_property
    def header(self) -> dict[str, Any]:
        return _header(self._settings, self.subject, self.store, self.explainer)

    def __call__(self, part: _Part, tick: Tick) -> None:
        """Makes a part; refuses one that another version of anything, on another machine, has planned."""
        _check_same(part.file.parent, self.header, part.header)
        self._tick = tick
        columns = _explain_part(self.explainer, self.store, part.indices, self._settings, part.header)
        explanations.write(part.file, Explanations(part.header, columns))


def _explain_part(
    explainer: Explainer,
    store: ClipStore,
    indices: np.ndarray,
    settings: ExplainSettings,
    header: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Returns the columns of the clips at `indices`."""
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
    if config.oracle == "full" and not config.area:
        exact, tried = binary_masks.coarse_share(oracle, searched.time, config)
        logging.info(
            "--oracle=coarse would find the best interval of %d of %s, trying %.0f of %d on average.",
            *(exact.sum(), text.counted(len(exact), "clip"), tried.mean(), oracle.scores.shape[1]),
        )
    learnt = mask_search.learn_masks(searched, config, oracle)
    learnt_masks = learnt.masks.repeat(step, axis=1)
    maps = explainer.gradcam(frames, targets) if explanations.has_maps(header) else None
    subject = methods.Subject(scorer, frames, lambda: explainer.gradcam(frames, targets) if maps is None else maps)
    rows = np.arange(len(indices))
    wrong = (labels >= 0) & (labels != predictions)
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
        "CS": np.where(wrong, probabilities[rows, labels], np.nan),
        "oracle_interval": oracle.intervals * step,
        "oracle_loss": oracle.losses,
        "gradcam": maps,
    }
    for name in explanations.methods_of(header):
        columns[explanations.attribution(name)] = methods.METHODS[name](subject, settings.method_config)
    table = explanations.columns_of(header)
    return {name: np.asarray(columns[name], column.dtype) for name, column in table.items()}


def check_weights(subject: Subject, header: dict[str, Any]) -> None:
    """Refuses explanations of other weights than the subject's."""
    if subject.digest != header["weights_sha256"]:
        raise errors.UserError(
            f"Explanations must be of the model's own weights. Received: explanations of {header['run']!r}, "
            f"made with other weights than those of {subject.name!r}"
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


def _finished(out: pathlib.Path, header: dict[str, Any], store: ClipStore, chosen: np.ndarray) -> Explanations:
    """Returns the file that is there already, if it is what was asked for."""
    found = explanations.read(out)
    _check_same(out, header, found.header)
    if list(found["video_id"]) != [store.video_ids[index] for index in chosen]:
        raise errors.UserError(f"--out must be a new file, or one of the same clips. Received: {out} with other clips")
    logging.info("%s is there already, with these settings.", out)
    return found


def _check_same(out: pathlib.Path, header: dict[str, Any], found: dict[str, Any]) -> None:
    # Clips are the same wherever they lie; files of earlier versions say only where. Settings that those did not have
    # yet were what is the default now.
    known = "clips_digest" in header and "clips_digest" in found
    header, found = (
        {
            **{name: value for name, value in values.items() if name not in ("clips_digest", "schema_version")},
            "mask": {**dataclasses.asdict(MaskConfig()), **values["mask"]},
            "clips": values["clips_digest"] if known else _resolved(files.found_path(values["clips"], out.parent)),
        }
        for values in (header, found)
    )
    different = sorted(name for name in header.keys() | found.keys() if header.get(name) != found.get(name))
    if different:
        raise errors.UserError(
            f"--out must be a new file, or one of the same settings. Received: {out}, which differs in "
            f"{', '.join(different)}; give another --out, or --overwrite"
        )


def _resolved(place: files.Place) -> files.Place:
    return place if isinstance(place, str) else place.resolve()


def _accepts(check: Callable[..., object], *arguments: Any) -> bool:
    """Returns whether a check refuses nothing."""
    try:
        check(*arguments)
    except errors.UserError:
        return False
    return True


class _Plan(TypedDict):
    """`plan.json`; the fields of `header` are read by `explanations`."""

    header: dict[str, Any]
    video_ids: list[files.Text]
    batch_size: files.Positive


def read_plan(path: pathlib.Path) -> dict[str, Any]:
    """Returns what `plan.json` holds: header (see `explanations`), video_ids and batch_size."""
    what = "The plan of parts"
    plan = files.read_json(path, what)
    files.convert(plan, _Plan, what, path)
    return {**plan, "header": explanations.read_header(plan["header"], path)}


class _Parts:
    """The finished parts of one explanations file, and the plan that says which clips each holds."""

    def __init__(self, out: pathlib.Path) -> None:
        self._out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.lock = f".{out.name}.lock"
        self.all: list[_Part] = []
        self._plan = self.folder / "plan.json"

    def leave_traces(self) -> bool:
        """Returns whether there is more than the file: a call is at work, or was killed."""
        return self.folder.exists() or (self._out.parent / self.lock).exists()

    def discard_others(self, header: dict[str, Any], store: ClipStore, chosen: np.ndarray) -> None:
        """Removes file and parts that are not of these clips and settings, or cannot be read."""
        if not (self._out.exists() or self.folder.exists()):
            return
        files.refuse_link(self.folder)
        with locks.exclusive(self._out.parent, self.lock, wait=True):
            if self._out.exists() and not _accepts(_finished, self._out, header, store, chosen):
                logging.info("%s is of other clips or settings, and is replaced.", self._out)
                self._out.unlink()
            if self._plan.exists() and not _accepts(self.check_plan, header, store, chosen):
                for claim in self.folder.glob(".*.lock"):
                    with locks.exclusive(self.folder, claim.name):  # Refuses where somebody makes one of them now.
                        pass
                logging.info("%s holds parts of other clips or settings, which go.", self.folder)
                self._clear()

    def make_place(self) -> None:
        """Makes the folder that file and parts are to lie in, and refuses a link in the place of the parts."""
        files.refuse_link(self.folder)
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(f"--out must be a file that can be made. Received: {self._out}: {error}") from None

    def plan(self, header: dict[str, Any], store: ClipStore, chosen: np.ndarray, batch_size: int) -> None:
        """Plans the parts, or takes the plan that is there, if it is of the same clips and settings."""
        plan: dict[str, Any] = {
            "header": header,
            "video_ids": [store.video_ids[index] for index in chosen],
            "batch_size": batch_size,
        }
        if self._plan.exists():
            # Free memory may differ now; what is computed together stays together, so that every bit stays.
            plan = self.check_plan(header, store, chosen)
        else:
            self.folder.mkdir(exist_ok=True)
            files.write_json(self._plan, plan)
        starts = range(0, len(chosen), plan["batch_size"])
        self.all = [
            _Part(self.folder / f"{number:06d}.h5", chosen[start : start + plan["batch_size"]], plan["header"])
            for number, start in enumerate(starts)
        ]

    def check_plan(self, header: dict[str, Any], store: ClipStore, chosen: np.ndarray) -> dict[str, Any]:
        """Returns the plan that is there; refuses one of other clips or settings."""
        found = read_plan(self._plan)
        ours = {**header, "video_ids": [store.video_ids[index] for index in chosen]}
        _check_same(self.folder, ours, {**found["header"], "video_ids": found["video_ids"]})
        return found

    def join(self) -> Explanations:
        """Writes the whole file from its parts."""
        whole = explanations.concatenate([explanations.read(part.file) for part in self.all])
        explanations.write(self._out, whole, durable=True)  # The parts are about to go.
        return whole

    def remove(self, header: dict[str, Any]) -> None:
        """Removes the parts of the file that has this header, which is whole; others, and what is no part, stay."""
        if not self.folder.exists():
            return
        if self._plan.exists() and read_plan(self._plan)["header"] != header:
            return
        self._clear()

    def _clear(self) -> None:
        files.remove_leftovers(self.folder)
        for path in self.folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink()
        self._plan.unlink(missing_ok=True)  # After the parts: it says which clips each holds.
        if any(self.folder.iterdir()):
            logging.warning("%s holds files that are no parts, and stays.", self.folder)
        else:
            self.folder.rmdir()


def _batch_size(classifier: Classifier, explainer: Explainer, store: ClipStore, first: np.ndarray) -> int:
    """Returns how many clips to learn masks for at a time; `first` [1] is one to try where nothing else tells."""
    if isinstance(classifier, Trained):
        bytes_per_clip = _bytes_per_clip(classifier.config)
    else:
        bytes_per_clip = max(explainer.bytes_per_clip(store.read(first)), 1)  # A linear model keeps nothing.
    free, is_gpu = explainer.free_memory()
    most = free * _SHARE_OF_MEMORY if is_gpu else min(free * _SHARE_OF_MEMORY, _MOST_BYTES_ON_CPU)
    size = int(min(max(most // bytes_per_clip, 1), _MOST_CLIPS))
    logging.info("%s at a time (--batch).", text.counted(size, "clip"))
    return size


def _bytes_per_clip(model: configs.ModelConfig) -> int:
    """Returns how many bytes the gradient in the mask needs for a clip."""
    layers = architectures.layers(model)
    activations = sum(int(np.prod(layer.output_shape)) for layer in layers)
    # What the first convolution makes of each frame, once for a tap in time (I3D, 7) or a gate (ConvLSTM, 4).
    parts = 7 if isinstance(model, configs.I3DConfig) else 4
    prepared = parts * (model.input_shape[0] + 1) * int(np.prod(layers[0].output_shape[1:]))
    return _BYTES_PER_ACTIVATION * activations + _BYTES_PER_PREPARED * prepared
