"""What is evaluated and explained: a classifier of clips, a run of this project or a foreign model.

Loops know a `Subject`: what files say of it, and a `Classifier` that each build can ask. Which of the two kinds it is
matters where it is opened, here, and where a build makes it compute.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from absl import logging

from common import errors, files, remote, text
from common.clips.clip_store import ClipStore, DatasetInfo
from common.models import configs, foreign
from common.models.foreign import ForeignModel
from common.remote import Cache
from common.runs import importing, run_directory
from common.runs.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Trained:
    """An I3D or a ConvLSTM of this project, which a build has yet to build.

    Attributes:
      config: the model.
      weights: canonical name -> array.
    """

    config: configs.ModelConfig
    weights: dict[str, np.ndarray]


Classifier = Trained | ForeignModel
LoadForeign = Callable[[foreign.Spec], ForeignModel]  # A build's adapters.
LoadToExplain = Callable[[foreign.Spec, str, str], ForeignModel]  # The same, given endpoint and precision.


def load_none(spec: foreign.Spec, *_: str) -> ForeignModel:
    """Refuses every foreign model: the adapters of what has none."""
    raise errors.UserError(f"A model must be a run. Received: {spec.kind}:{spec.rest}")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A classifier of clips, and what files say of it.

    Attributes:
      name: of its row in tables; a run's is its folder's.
      model: what it is: "i3d", "conv_lstm", or a foreign model's kind.
      digest: SHA-256, in hex, of its weights.
      trained_with: framework that trained it; of a foreign model, its kind.
      classifier: what a build makes compute.
      source: where its weights come from, as far as it is known; "" for a run that was trained here.
    """

    name: str
    model: str
    digest: str
    trained_with: str
    classifier: Classifier
    source: str = ""

    @property
    def foreign(self) -> ForeignModel | None:
        """The foreign model, or None for a run's."""
        return self.classifier if isinstance(self.classifier, ForeignModel) else None

    def tell(self, num_clips: int, store: ClipStore) -> None:
        """Says what is about to be asked about which clips."""
        clips = text.counted(num_clips, "clip")
        where = store.directory if isinstance(store.directory, str) else os.path.normpath(store.directory)
        logging.info("%s (%s): %s, %s of %s", self.name, self.model, clips, store.split, where)


def open_subject(
    source: foreign.Source,
    clips: files.Place | None,
    split: str,
    load: LoadForeign,
    cache: Cache = remote.DEFAULT,
) -> tuple[Subject, ClipStore]:
    """Opens a run or a foreign model to use it on clips; whatever does not fit together is refused.

    Args:
      source: run directory, or foreign model.
      clips: folder or URL of the clip store; None for the one that a run was trained on.
      split: of it.
      load: loads a foreign model.
      cache: where clips at a URL are kept.

    Returns:
      The subject, and the clips as it knows them (see `ClipStore.known_to`).
    """
    if isinstance(source, foreign.Spec):
        if clips is None:
            raise errors.UserError(
                "--clips must name a clip store for a model that was not trained here. Received: none"
            )
        store = ClipStore(clips, split, cache)
        model = load(source)
        check_clips(model, store.info)
        return of_foreign(model), store.known_to(model.class_names) if model.class_names else store
    run = RunDirectory(source)
    stored, weights, store = run_directory.open_trained(run, clips, split, cache)
    return of_run(run, stored.framework, Trained(stored.train.model, weights)), store


def of_run(run: RunDirectory, framework: str, trained: Trained) -> Subject:
    """Returns the subject of a run.

    Args:
      run: with weights.
      framework: that trained it.
      trained: its model.
    """
    return Subject(
        run.name, trained.config.model, files.sha256(run.weights), framework, trained, importing.source_of(run)
    )


def of_foreign(model: ForeignModel) -> Subject:
    """Returns the subject of a foreign model."""
    return Subject(model.name, model.kind, model.digest, model.kind, model, model.source)


def numbered(store: ClipStore, model: ForeignModel, num_classes: int) -> ClipStore:
    """Returns clips as a model sees them that knows its classes by their numbers alone.

    Args:
      store: of clips of any classes, or of none.
      model: without `class_names`.
      num_classes: K, of its scores.

    Returns:
      The store itself where it has K classes, which then are the model's, in their order. Otherwise the model's classes
      are called "0", "1", …, and a clip has a label if its class is called so.
    """
    if len(store.info.class_names) == num_classes:
        return store
    logging.info("%s has no names for its %d classes: they are called by their numbers.", model.name, num_classes)
    return store.known_to(tuple(map(str, range(num_classes))))


def check_classes(scores: np.ndarray, info: DatasetInfo) -> None:
    """Refuses scores [N, K] of more or fewer classes than there are names, of a model or else of the clips."""
    if scores.shape[1] != len(info.class_names):
        raise errors.UserError(
            f"A model must return a score for each of the {len(info.class_names)} classes, its own if named, or "
            f"those of the clips. Received: {scores.shape[1]} scores"
        )


def check_clips(model: ForeignModel, info: DatasetInfo) -> None:
    """Refuses clips of another shape than a foreign model takes."""
    shape = info.layout.clip_shape[:3]
    if any(wanted not in (None, size) for wanted, size in zip(model.clip_shape, shape, strict=True)):
        raise errors.UserError(
            f"Clips must have the shape T x H x W that {model.name} takes, {foreign.shape_text(model.clip_shape)}. "
            f"Received: {foreign.shape_text(shape)}"
        )
