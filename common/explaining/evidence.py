"""Evidence on explanations, beyond the paper: do the masked frames matter, and does the model?

- Deletion and insertion curves over frames (see `frame_curves`), in the order of the mask; beside them the same from
  the middle outwards, and in random order.
- Randomisation (Adebayo et al. 2018, arXiv:1810.03292): the explanations of the same clips and classes when the
  model's layers are drawn anew, from the last to the first. What stays the same did not come from what was learnt. Of
  runs alone: how a foreign model's layers are drawn is not known.
- Restarts: the masks that the search finds from other starts.

All of it starts from an explanations file, and works with any framework's explainer.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import errors, files, launching, locks, progress, remote, tables, units
from common.clips.clip_store import ClipStore
from common.explaining import evidence_experiments, evidence_file, explanations, spread
from common.explaining.evidence_file import KINDS, ORDERS
from common.explaining.explainer import Explainer, MakeExplainer
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.launching import HERE, Launch, Tick
from common.models import foreign
from common.remote import Cache
from common.runs import subjects
from common.runs.subjects import Classifier, LoadToExplain, Subject, Trained
from common.tables import Column, Table


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
    make_explainer: MakeExplainer,
    load: LoadToExplain = subjects.load_none,
    launch: Launch = HERE,
) -> dict[str, Any]:
    """Computes the evidence; writes nothing, unless this is a task of an array job, whose parts are files.

    Args:
      settings: what to gather evidence about.
      make_explainer: builds the framework's explainer; picklable, as `load` is, for any but one process.
      load: loads a foreign model.
      launch: which parts to make, and in which processes.

    Returns:
      What `evidence_file.write` takes.

    Raises:
      errors.UserError: for explanations of another model; in an array job, for an `out` of other settings.
      units.UnfinishedError: where this is a task of an array job, and others still have parts to make.
    """
    maker = _PartMaker(settings, make_explainer, load)
    maker.subject.tell(len(maker.chosen), maker.store)
    if launch.num_tasks:
        return _gather_as_task(maker, settings.path, launch)
    with progress.bar(total=len(maker.parts), desc=_DESCRIPTION, unit="part") as bar:
        return maker.whole(dict(launching.run(maker, maker.parts, launch, bar.update)))


_DESCRIPTION = "gathering evidence"


def _gather_as_task(maker: "_PartMaker", out: pathlib.Path, launch: Launch) -> dict[str, Any]:
    """Makes the parts of a task as files; the last task to finish writes the whole and removes them."""
    folder, lock = maker.folder, f".{out.name}.lock"
    files.refuse_link(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(out.parent, lock, wait=True):
        if out.exists():
            _finished(out, maker.made_from)
        else:
            folder.mkdir(exist_ok=True)
    share = units.share(maker.parts, launch)
    with progress.bar(**units.amounts(share), desc=_DESCRIPTION, unit="part") as bar:
        try:
            units.make(share, maker.write, out, launch, bar.update)
        except errors.UserError:
            with contextlib.suppress(OSError):  # Of a folder that holds something.
                folder.rmdir()
            raise
    with locks.exclusive(out.parent, lock, wait=True):
        if out.exists():  # Put together by another task, or by one that was killed before it had cleared away.
            whole = _finished(out, maker.made_from)
        else:
            units.check_all_there(maker.parts, out)
            found = {part.name: evidence_file.read_part(part.file, part.what) for part in maker.parts}
            whole = evidence_file.write(out, maker.whole(found))
        if folder.exists():
            files.remove_leftovers(folder)
            units.remove_claims(maker.parts)
            for part in maker.parts:
                part.file.unlink(missing_ok=True)
            if not any(folder.iterdir()):  # Else tasks of other settings have their parts there.
                folder.rmdir()
    return whole


def _finished(out: pathlib.Path, made_from: str) -> dict[str, Any]:
    """Returns the file that is there already, if it is what was asked for."""
    found = evidence_file.read(out)
    if found.get("made_from") != made_from:
        raise errors.UserError(
            "With --num_tasks, --out must be a new file, or one of the same explanations, settings and versions. "
            f"Received: {out}, which is of others"
        )
    return found


@dataclasses.dataclass(frozen=True)
class _Part:
    """One unit: one of the `evidence_experiments`.

    Attributes:
      what: "curves", "randomization" or "restarts".
      which: curves of this kind of perturbation, randomisation of this number of layers, restart of this number.
      folder: of its file, if it becomes one.
      made_from: of the whole (see `_PartMaker`): parts of other settings have other names.
      size: amount of work, for the bar.
    """

    what: str
    which: str | int
    folder: pathlib.Path
    made_from: str
    size: int = 1

    @property
    def name(self) -> str:
        return f"{self.what}-{self.which}"

    @property
    def file(self) -> pathlib.Path:
        return self.folder / f"{self.name}-{self.made_from[:16]}.json"


class _PartMaker:
    """Makes parts; opens explanations, model and clips once in a process, when they are first asked for.

    Args:
      settings: what to gather evidence about.
      make_explainer: builds the framework's explainer.
      load: loads a foreign model.
    """

    def __init__(self, settings: EvidenceSettings, make_explainer: MakeExplainer, load: LoadToExplain) -> None:
        self._settings, self._make_explainer, self._load = settings, make_explainer, load
        self.folder = settings.path.with_name(f"{settings.path.name}.parts")

    def __reduce__(self) -> Any:  # Another process opens for itself what this one has open.
        return _PartMaker, (self._settings, self._make_explainer, self._load)

    @functools.cached_property
    def _explained(self) -> Explanations:
        return explanations.read(self._settings.explained)

    @functools.cached_property
    def _mask_config(self) -> MaskConfig:
        return MaskConfig(**self._explained.header["mask"])

    @functools.cached_property
    def _cam_config(self) -> GradCamConfig:
        return GradCamConfig(**(self._explained.header["gradcam"] or {}))

    @functools.cached_property
    def _opened(self) -> tuple[Subject, ClipStore]:
        settings, header = self._settings, self._explained.header
        subject, store = subjects.open_subject(
            settings.model,
            settings.clips or explanations.clips_folder(settings.explained, self._explained),
            header["split"],
            lambda spec: self._load(spec, self._cam_config.endpoint, header["precision"]),
            settings.cache,
        )
        if subject.digest != header["weights_sha256"]:
            raise errors.UserError(
                f"Explanations must be of the model's own weights. Received: explanations of {header['run']!r}, "
                f"made with other weights than those of {subject.name!r}"
            )
        return subject, store

    @property
    def subject(self) -> Subject:
        return self._opened[0]

    @property
    def store(self) -> ClipStore:
        return self._opened[1]

    @functools.cached_property
    def chosen(self) -> Explanations:
        """The explanations of the clips for curves and Grad-CAM."""
        return self._explained.take(spread.over_classes(self._explained["label"], self._settings.limit))

    @functools.cached_property
    def _relearnt(self) -> np.ndarray:
        """Places, among these, of the clips whose masks are learnt again."""
        limit = self._settings.mask_limit
        return spread.over_classes(self.chosen["label"], limit)[:limit]

    @functools.cached_property
    def _frames(self) -> np.ndarray:
        return self.store.read(self.store.places(self.chosen["video_id"]))

    def _make(self, classifier: Classifier) -> Explainer:
        precision = self._explained.header["precision"]
        return self._make_explainer(classifier, self._mask_config, self._cam_config, precision, lambda clips: None)

    @functools.cached_property
    def _explainer(self) -> Explainer:
        return self._make(self.subject.classifier)

    @functools.cached_property
    def made_from(self) -> str:
        """SHA-256, in hex, of all that decides what is found."""
        settings = self._settings
        values = {
            "explanations": files.sha256(settings.explained),
            "clips": self.store.info.digest,
            "numbers": [settings.limit, settings.mask_limit, settings.seed],
            "framework": self._explainer.framework,
            "versions": self._explainer.versions(),
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def parts(self) -> list[_Part]:
        """All parts, in the order in which they stand in the whole."""
        trained = self.subject.classifier
        which: dict[str, Sequence[str | int]] = {
            "curves": KINDS,
            "randomization": evidence_experiments.levels(trained.config) if isinstance(trained, Trained) else (),
            "restarts": range(evidence_experiments.RESTARTS if len(self._relearnt) else 0),
        }
        return [_Part(what, one, self.folder, self.made_from) for what, several in which.items() for one in several]

    def __call__(self, part: _Part, tick: Tick) -> tuple[str, dict[str, Any]]:
        """Makes a part; returns its name and what was found."""
        found = self._find(part)
        tick(part.size)
        return part.name, found

    def write(self, part: _Part, tick: Tick) -> None:
        """Makes a part's file."""
        evidence_file.write_part(part.file, self._find(part))

    def _find(self, part: _Part) -> dict[str, Any]:
        chosen, relearnt, seed = self.chosen, self._relearnt, self._settings.seed
        if part.what == "curves":
            return evidence_experiments.curves(self._explainer, self._frames, chosen, str(part.which), seed)
        if part.what == "randomization":
            trained, count = self.subject.classifier, int(part.which)
            assert isinstance(trained, Trained)
            return evidence_experiments.randomization(
                self._make, trained, self._frames, chosen, relearnt, self._mask_config, count, seed
            )
        frames, explained = self._frames[relearnt], chosen.take(relearnt)
        return evidence_experiments.restart(
            self._explainer, frames, explained, self._mask_config, int(part.which), seed
        )

    def whole(self, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Returns what `evidence_file.write` takes.

        Args:
          found: name of each part -> what was found.
        """
        by_what: dict[str, list[dict[str, Any]]] = {"curves": [], "randomization": [], "restarts": []}
        for part in self.parts:
            by_what[part.what].append(found[part.name])
        curves, restarts = by_what["curves"], by_what["restarts"]
        return {
            "run": self._explained.header["run"],
            "model": self.subject.model,
            "framework": self._explainer.framework,
            "explanations": self._settings.explained.name,
            "made_from": self.made_from,
            "video_ids": list(self.chosen["video_id"]),
            "curves": {
                what: {kind: one[what] for kind, one in zip(KINDS, curves, strict=True)}
                for what in ("deletion", "insertion")
            },
            "randomization": by_what["randomization"],
            "restarts": {
                "starts": evidence_experiments.RESTARTS,
                **{name: [value for one in restarts for value in one[name]] for name in ("mask", "loss")},
            },
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
