"""The benchmark of answers to "which frames?": every method's answer for the clips of a suite, by one model.

For a model and a suite it writes a folder, OUT/SUITE/MODEL-FRAMEWORK: `plan.json`, what decides every number, and one
attribution file a method (`attribution_file`), with areas of deletion and insertion and forwards spent. A method whose
file is there is done; so a killed command goes on where it stopped, and a new method costs only itself. The clips are
those that the model classifies correctly, and their label is what is explained. Frames that a mask names but that do
nothing (`when_entries.effective`) count as not named.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import numpy as np
from absl import logging

from common import errors, files, locks, progress
from common.clips import clip_store
from common.clips.clip_store import ClipStore
from common.explaining import (
    attribution_file,
    frame_curves,
    masks,
    methods,
    methods_baselines,
    scorer,
    spread,
    when_entries,
)
from common.explaining.attribution_file import Attributions
from common.explaining.explainer import ClipExplainer, MakeExplainer
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig, Subject
from common.runs import run_directory, subjects
from common.runs.run_directory import RunDirectory

SCHEMA_VERSION = 1
_RANDOM_ORDERS = 8  # Their mean area is what chance reaches.


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """What to ask.

    Attributes:
      suite: folder of a clip store with ground truth.
      out: folder for the results of all suites and models.
      split: of the suite.
      limit: clips to try, spread over the split; 0 for all. Those that the model gets wrong are left out.
      entries: names of `when_entries.ENTRIES`, that is of searches and methods.
      methods: how they answer.
      gradcam: how Grad-CAM is computed.
      batch_size: clips at a time.
    """

    suite: pathlib.Path
    out: pathlib.Path
    split: str = "test"
    limit: int = 60
    entries: tuple[str, ...] = tuple(when_entries.ENTRIES)
    methods: MethodConfig = MethodConfig()
    gradcam: GradCamConfig = GradCamConfig()
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in self.entries:
            errors.check_choice("methods", name, when_entries.ENTRIES)
        if self.limit < 0 or self.batch_size < 1:
            raise errors.UserError(
                f"limit must be at least 0, batch_size at least 1. Received: {self.limit}, {self.batch_size}"
            )


@dataclasses.dataclass(frozen=True)
class Asked:
    """A model that is asked.

    Attributes:
      name: of its results' folder: a run's.
      model: what it is: "i3d", "conv_lstm" or "observer".
      weights_sha256: of its weights' file; "" where it has none.
      make_explainer: makes what explains it, for a way to learn masks.
    """

    name: str
    model: str
    weights_sha256: str
    make_explainer: Callable[[MaskConfig], ClipExplainer]


def fits(run: pathlib.Path, suite: pathlib.Path) -> bool:
    """Returns whether a run's model takes the clips of a suite, and has their classes."""
    try:
        run_directory.check_data(RunDirectory(run).read_config(), clip_store.read_dataset_json(suite))
    except errors.UserError as error:
        logging.info("%s is not asked about %s: %s", run, suite, error)
        return False
    return True


def open_run(path: pathlib.Path, settings: BenchmarkSettings, make_explainer: MakeExplainer) -> Asked:
    """Returns the model of a run.

    Args:
      path: run directory, of either framework.
      settings: what to ask.
      make_explainer: builds the framework's explainer.

    Raises:
      errors.UserError: for a suite that does not fit the run.
    """
    run = RunDirectory(path)
    stored, weights, _ = run_directory.open_trained(run, settings.suite, settings.split)
    trained = subjects.Trained(stored.train.model, weights)

    def explainer_of(mask: MaskConfig) -> ClipExplainer:
        return make_explainer(trained, mask, settings.gradcam, "float32", lambda clips: None)

    return Asked(run.name, trained.config.model, files.sha256(run.weights), explainer_of)


def gather(settings: BenchmarkSettings, asked: Asked) -> pathlib.Path:
    """Writes the answers that are not there yet; returns their folder. A model that gets no clip right has none.

    Args:
      settings: what to ask.
      asked: the model.

    Raises:
      errors.UserError: for a folder of other settings.
    """
    store = ClipStore(settings.suite, settings.split)
    explainer = asked.make_explainer(settings.methods.mask)
    folder = settings.out / settings.suite.resolve().name / f"{asked.name}-{explainer.framework}"
    folder.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(folder):
        _keep_plan(folder, _plan(settings, asked, explainer.framework, store))
        missing = [name for name in settings.entries if not (folder / f"{name}.npz").exists()]
        places = _correct_clips(explainer, store, settings) if missing else np.array([], int)
        if len(places):
            clips = _Clips(asked, explainer, store, places, settings)
            for name in progress.bar(missing, desc=f"{asked.name} on {settings.suite.name}", unit="method"):
                attribution_file.write(folder / f"{name}.npz", clips.attributions(name))
    return folder


def _plan(settings: BenchmarkSettings, asked: Asked, framework: str, store: ClipStore) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run": asked.name,
        "weights_sha256": asked.weights_sha256,
        "model": asked.model,
        "framework": framework,
        "suite": str(settings.suite.resolve()),
        "dataset": store.info.dataset,
        "clips_digest": store.info.digest,
        "split": settings.split,
        "limit": settings.limit,
        "methods": dataclasses.asdict(settings.methods),
        "gradcam": dataclasses.asdict(settings.gradcam),
    }


class _Plan(TypedDict):
    schema_version: int
    run: files.Text
    weights_sha256: files.Text
    model: files.Text
    framework: files.Text
    suite: str
    dataset: files.Text
    clips_digest: files.Text
    split: files.Text
    limit: files.Count
    methods: MethodConfig
    gradcam: GradCamConfig


def read_plan(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what decided the numbers of a folder: the fields of its `plan.json`."""
    path, what = folder / "plan.json", "A benchmark's plan"
    plan = files.read_json(path, what, SCHEMA_VERSION)
    files.convert(plan, _Plan, what, path)
    return plan


def _keep_plan(folder: pathlib.Path, plan: dict[str, Any]) -> None:
    """Writes the plan of a new folder; refuses a folder of another."""
    if not (folder / "plan.json").exists():
        files.write_json(folder / "plan.json", plan)
    found = read_plan(folder)
    different = sorted(name for name in plan if name != "suite" and plan[name] != found.get(name))
    if different:
        raise errors.UserError(
            f"--out must hold results of the same settings, or none. Received: {folder}, which differs in "
            f"{', '.join(different)}"
        )


def _correct_clips(explainer: ClipExplainer, store: ClipStore, settings: BenchmarkSettings) -> np.ndarray:
    """Returns the places of the clips, of those tried, that a model gets right, int [n]."""
    places = spread.evenly(len(store), settings.limit)
    batches = scorer.batches(len(places), settings.batch_size)
    guesses = np.concatenate([explainer.probabilities(store.read(places[some])).argmax(axis=1) for some in batches])
    right = places[guesses == store.labels[places]]
    logging.info("%d of %d clips of %s are classified correctly.", len(right), len(places), settings.suite)
    return right


class _Clips:
    """The clips that a model is asked about, a batch at a time."""

    def __init__(
        self,
        asked: Asked,
        explainer: ClipExplainer,
        store: ClipStore,
        places: np.ndarray,
        settings: BenchmarkSettings,
    ) -> None:
        self._asked, self._settings = asked, settings
        self._explainers = {_equation(settings.methods.mask): explainer}
        self._video_ids = tuple(store.video_ids[place] for place in places)
        self._frames, self._targets = store.read(places), store.labels[places].astype(np.int64)
        self._batches = scorer.batches(len(places), settings.batch_size)

    def attributions(self, name: str) -> Attributions:
        """Returns what an entry answers, how its frames delete and insert, and what it cost."""
        entry = when_entries.ENTRIES[name]
        config = entry.changed(self._settings.methods)
        answers = [methods.answer(entry.method, subject, config) for subject in self._subjects(config.mask)]
        values = np.concatenate([answer.values for answer in answers])
        selected = None
        if name in when_entries.SEARCHES:
            selected = masks.snap(values) != 0
            perturbed = masks.perturbed_part(selected.astype(np.float64), config.mask.game)
            idle = selected & ~when_entries.effective(self._frames, perturbed, config.mask.kind)
            values, selected = np.where(idle, 0.0, values), selected & ~idle
        areas = self._areas(frame_curves.order(values)[:, None])
        random = self._random_areas
        return Attributions(
            self._video_ids,
            values,
            selected,
            np.concatenate([answer.forwards for answer in answers]).astype(np.float64),
            {
                **{area: areas[:, place] for place, area in enumerate(attribution_file.AREAS)},
                **{f"{area}_random": random[:, place] for place, area in enumerate(attribution_file.AREAS)},
            },
        )

    @functools.cached_property
    def _random_areas(self) -> np.ndarray:
        """Mean areas of random orders, [N, 2]."""
        # Other seeds than that of the method `random`.
        seeds = self._settings.methods.seed + 1 + np.arange(_RANDOM_ORDERS)
        values = [methods_baselines.random_answers(self._frames, int(seed)) for seed in seeds]
        return self._areas(frame_curves.order(np.stack(values, axis=1)))

    def _areas(self, orders: np.ndarray) -> np.ndarray:
        """Returns the mean areas of deletion and insertion of orders [N, O, T]: [N, 2]."""
        mask = self._settings.methods.mask
        pairs = zip(self._subjects(mask), self._batches, strict=True)
        curves = [frame_curves.curves(subject.scorer, orders[batch], mask.kind) for subject, batch in pairs]
        return np.concatenate(curves).mean(axis=(1, 3))

    def _subjects(self, mask: MaskConfig) -> Iterator[Subject]:
        if _equation(mask) not in self._explainers:
            self._explainers[_equation(mask)] = self._asked.make_explainer(mask)
        explainer = self._explainers[_equation(mask)]
        for batch in self._batches:  # One at a time: a scorer may hold much.
            frames, targets = self._frames[batch], self._targets[batch]
            maps = functools.partial(explainer.gradcam, frames, targets)
            yield Subject(explainer.scorer(frames, targets), frames, maps)


def _equation(mask: MaskConfig) -> tuple[str, str]:
    """Returns what a scorer's gradient knows of the entry that it serves: Eq. 1 differs between entries in these."""
    return mask.game, mask.ends
