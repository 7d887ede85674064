"""Makes a clip store from a data set. Example: python data_prep/prepare.py --dataset=synthetic --out=/tmp/clips."""

import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import errors, launching
from common.clips import shards, suites
from common.command_line import commands, launch_flags
from data_prep import building, data_sets, plans, sampling, synthetic

flags.adopt_module_key_flags(launch_flags)  # So that --help lists them.

_DATASET = flags.DEFINE_enum(
    "dataset",
    None,
    tuple(data_sets.DATA_SETS),
    "planted, synthetic: videos that the command makes itself. something: Something-something-V2, ID.webm (any "
    "container) or folders of frames. kth: KTH actions. folder: your own videos or folders of frames, CLASS/clip or "
    "SPLIT/CLASS/clip, or clips alone, which have no class.",
    required=True,
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "Folder of the clip store; created if it does not exist. Default, with planted alone: data/ and the suite's name "
    "with its digest.",
)
_SOURCE = flags.DEFINE_string(
    "source", None, "Folder of the videos. planted, synthetic: folder to make the videos in. Default: OUT/source."
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "something: folder of labels.json and {train,validation,test}.json. kth: 00sequences.txt. Default: SOURCE.",
)
_FRAMES = flags.DEFINE_integer(
    "frames", None, "T, frames per clip. Default: 16; kth: 32 (section 4.1); planted: 24.", lower_bound=1
)
_HEIGHT = flags.DEFINE_integer(
    "height", None, "H, height in px. Default: 224; kth: 120; planted, synthetic: 32.", lower_bound=1
)
_WIDTH = flags.DEFINE_integer(
    "width", None, "W, width in px. Default: 224; kth: 160; planted, synthetic: 32.", lower_bound=1
)
_ENCODING = flags.DEFINE_enum(
    "encoding", "jpeg", shards.ENCODINGS, "How pixels are stored. jpeg: small. raw: exact, and faster to read."
)
_JPEG_QUALITY = flags.DEFINE_integer(
    "jpeg_quality", 95, "Quality of the frames with --encoding=jpeg.", lower_bound=1, upper_bound=100
)
_SUBSAMPLING = flags.DEFINE_enum(
    "subsampling",
    "linspace",
    sampling.SUBSAMPLINGS,
    "How frames are chosen. linspace: evenly from the first to the last. released: as in the released code.",
)
_RESIZE = flags.DEFINE_enum(
    "resize",
    "stretch",
    sampling.RESIZES,
    "How frames get their size. stretch: without keeping the aspect ratio. center_crop: by cutting off the sides.",
)
_CLIPS_PER_SHARD = flags.DEFINE_integer(
    "clips_per_shard", 256, "Maximum number of clips per shard file.", lower_bound=1
)
_MAX_FAILURES = flags.DEFINE_integer(
    "max_failures",
    0,
    "With more failed clips than this, the exit code is 1. The other clips are made in any case; OUT/failures.csv "
    "lists those that failed.",
    lower_bound=0,
)
_SPLITS = flags.DEFINE_list(
    "splits",
    None,
    f"Splits to make, from {','.join(plans.SPLITS)}. Default: all there are; with CLASS/video.ext, train "
    "(see --validation_share).",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Write nothing; print the number of clips per split and class, and which files are missing or left alone.",
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "planted, synthetic: seed for the videos (planted: but for those of the test split). Else: for dividing clips.",
    lower_bound=0,
)
_VALIDATION_SHARE = flags.DEFINE_float(
    "validation_share",
    0.0,
    "Part of each class that becomes validation, e.g. 0.2, where clips have no splits (CLASS/video.ext).",
)
_TEST_SHARE = flags.DEFINE_float("test_share", 0.0, "Part of each class that becomes test, in the same way.")
_GROUP_BY = flags.DEFINE_string(
    "group_by",
    "",
    "Regular expression with one group, searched in each clip's path below --source: clips from whose paths it takes "
    r"the same text, e.g. of one person with 'person(\d+)', go to one split.",
)
_CLIPS_PER_CLASS = flags.DEFINE_list(
    "clips_per_class",
    None,
    f"planted, synthetic: number of videos per class in {','.join(synthetic.DEFAULT_CLIPS_PER_CLASS)}. Default: "
    f"{','.join(map(str, synthetic.DEFAULT_CLIPS_PER_CLASS.values()))}; planted: 300,20,20, or 0,0,20 in suites that "
    "models of rare are asked about.",
)
_SUITE = flags.DEFINE_enum(
    "suite", None, suites.SUITES, f"planted: what the clips show. Default: {data_sets.DEFAULT_SUITE}."
)


def main(argv: list[str]) -> int:
    """Turns the flags into a config and makes the store; returns the exit code."""
    del argv  # Checked to hold nothing but the program's name.
    config = building.PrepareConfig(
        dataset=_DATASET.value,
        out=_out(),
        source=_path(_SOURCE.value),
        annotations=_path(_ANNOTATIONS.value),
        frames=_FRAMES.value,
        height=_HEIGHT.value,
        width=_WIDTH.value,
        encoding=_ENCODING.value,
        jpeg_quality=_JPEG_QUALITY.value,
        subsampling=_SUBSAMPLING.value,
        resize=_RESIZE.value,
        clips_per_shard=_CLIPS_PER_SHARD.value,
        launch=launch_flags.launch(launching.available()),
        max_failures=_MAX_FAILURES.value,
        splits=plans.check_splits(_SPLITS.value),
        dry_run=_DRY_RUN.value,
        seed=_SEED.value,
        clips_per_class=_clips_per_class(_CLIPS_PER_CLASS.value),
        suite=_SUITE.value,
        validation_share=_VALIDATION_SHARE.value,
        test_share=_TEST_SHARE.value,
        group_by=_GROUP_BY.value,
    )
    return building.prepare(config)


def _out() -> pathlib.Path:
    if _OUT.value is None and _DATASET.value == "planted":
        return suites.folder(_SUITE.value or data_sets.DEFAULT_SUITE)
    if not _OUT.value:
        raise errors.UserError(f"--out must be given with --dataset={_DATASET.value}. Received: none")
    return pathlib.Path(_OUT.value)


def _path(value: str | None) -> pathlib.Path | None:
    return None if value is None else pathlib.Path(value)


def _clips_per_class(values: list[str] | None) -> dict[str, int] | None:
    if values is None:
        return None
    if len(values) != len(plans.SPLITS) or not all(value.isascii() and value.isdigit() for value in values):
        raise errors.UserError(
            f"--clips_per_class must give three numbers, for {', '.join(plans.SPLITS)}. Received: {','.join(values)}"
        )
    return dict(zip(plans.SPLITS, map(int, values), strict=True))


def run() -> None:
    """Console script."""
    commands.run(main)


if __name__ == "__main__":
    run()
