"""The data sets that clip stores are made from: one table, and what a line of it says."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping

from common import errors
from common.clips import suites
from data_prep import folder, kth, plans, planted, planted_scenes, something, synthetic, synthetic_scenes

Splits = tuple[str, ...] | None  # None: all there are.
ClipsPerClass = Mapping[str, int] | None  # Split -> videos of each class; None: the data set's default.
DEFAULT_SUITE = "rare"


@dataclasses.dataclass(frozen=True)
class Maker:
    """How a data set makes its videos itself.

    Attributes:
      make: takes the source folder, a seed, the number of videos and of worker processes; makes what is missing there.
      count: takes the number of videos and the splits; returns what would be planned, without making a video: the
        items have neither id nor path.
      version: takes the seed; returns what the videos depend on.
      name: takes the number of videos and the splits; returns the data set's name for `dataset.json`.
    """

    make: Callable[[pathlib.Path, int, ClipsPerClass, int], None]
    count: Callable[[ClipsPerClass, Splits], plans.Plan]
    version: Callable[[int], str]
    name: Callable[[ClipsPerClass, Splits], str]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What differs from one data set to another.

    Attributes:
      preset: whose clip size is the default, a key of `configs.PRESETS`.
      plan: takes the source folder, the annotations (None: none were named), the splits, and the folder of the clip
        store, which holds no videos even if it lies in the source.
      videos: folder of the videos in the source folder; "" is the source folder itself.
      maker: makes the source; None where users bring it.
      ground_truth: file in the source folder that says when and where the evidence is, see `ground_truth`; ""
        where it is not known.
      mask_shape: (h, w) of its object masks; None without ground truth.
      sufficient_sets: sets of frames that suffice, of each clip; 0 where they are not known.
    """

    preset: str
    plan: Callable[[pathlib.Path, pathlib.Path | None, Splits, pathlib.Path], plans.Plan]
    videos: str = ""
    maker: Maker | None = None
    ground_truth: str = ""
    mask_shape: tuple[int, int] | None = None
    sufficient_sets: int = 0


def _plan_folder(
    source: pathlib.Path, annotations: pathlib.Path | None, splits: Splits, out: pathlib.Path
) -> plans.Plan:
    if annotations is not None:
        raise errors.UserError(
            f"--annotations must not be given with --dataset=folder, whose folders are the annotations. "
            f"Received: {annotations}"
        )
    return folder.plan(source, splits, out)


def _count_synthetic(clips_per_class: ClipsPerClass, splits: Splits) -> plans.Plan:
    counts = clips_per_class or synthetic.DEFAULT_CLIPS_PER_CLASS
    names = tuple(synthetic.CLASSES)
    items = {
        split: tuple(plans.Item("", "", -1 if split == "test" else label) for label in range(len(names))) * count
        for split, count in counts.items()
        if count and split in (splits or plans.SPLITS)
    }
    return plans.Plan(names, items, {})


def _planted(suite: str) -> DataSet:
    return DataSet(
        "i3d_planted",
        lambda source, annotations, splits, out: planted.plan(suite, source, splits),
        videos="videos",
        maker=Maker(
            functools.partial(planted.make, suite),
            functools.partial(planted.count, suite),
            lambda seed: f"{planted.VERSION}, {suite}, seed {seed}",
            functools.partial(planted.name, suite),
        ),
        ground_truth="ground_truth.h5",
        mask_shape=(planted_scenes.MASK_SIZE, planted_scenes.MASK_SIZE),
        sufficient_sets=planted.NUM_SETS,
    )


_SUITES = {suite: _planted(suite) for suite in suites.SUITES}

DATA_SETS = {
    "planted": _SUITES[DEFAULT_SUITE],
    "synthetic": DataSet(
        "i3d_synthetic",
        lambda source, annotations, splits, out: something.plan(source / "videos", source, splits),
        videos="videos",
        maker=Maker(
            synthetic.make_synthetic,
            _count_synthetic,
            lambda seed: f"{synthetic.VERSION}, seed {seed}",
            lambda clips_per_class, splits: "synthetic",
        ),
        ground_truth="ground_truth.h5",
        mask_shape=(synthetic_scenes.MASK_SIZE, synthetic_scenes.MASK_SIZE),
    ),
    "something": DataSet(
        "i3d_something",
        lambda source, annotations, splits, out: something.plan(source, annotations or source, splits),
    ),
    "kth": DataSet("i3d_kth", lambda source, annotations, splits, out: kth.plan(source, annotations or source, splits)),
    "folder": DataSet("i3d_something", _plan_folder),
}


def find(dataset: str, suite: str | None = None) -> DataSet:
    """Returns a line of the table.

    Args:
      dataset: a key of `DATA_SETS`.
      suite: of planted events, one of `suites.SUITES`; None takes "rare".
    """
    errors.check_choice("dataset", dataset, tuple(DATA_SETS))
    if suite is None:
        return DATA_SETS[dataset]
    if dataset != "planted":
        raise errors.UserError(f"suite must be given with dataset planted alone. Received: {suite!r} with {dataset}")
    errors.check_choice("suite", suite, suites.SUITES)
    return _SUITES[suite]
