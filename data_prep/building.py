"""Makes a clip store from a data set: plans it, makes the shards, then writes `dataset.json`.

    OUT/SPLIT-00000-of-00004.h5  the shards (`common/clips/shards.py`)
    OUT/SPLIT.index              labels and ids of a split's clips (`common/clips/split_index.py`)
    OUT/dataset.json             written last: a folder that has it is finished
    OUT/failures.csv             video_id, path, reason: clips that could not be made
    OUT/notes.csv                video_id, path, note: clips that were made, from videos with something wrong
    OUT/source/                  the videos that a data set makes itself, where --source names no place for them

The shards are the units (`common/units.py`) that processes and machines share. Interrupted at any moment and started
again with the same settings, it makes those that are missing; the result is byte for byte that of an uninterrupted run
of one process. Other settings in the same folder are refused.
A shard that does not have the SHA-256 which `dataset.json` gives it is damaged, and is made again.
"""

import collections
import concurrent.futures
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

from absl import logging

from common import errors, files, launching, locks, progress, tables, text, units
from common.clips import clip_store, shards
from common.launching import Launch, Tick
from common.models import configs
from data_prep import data_sets, decoded, decoders, division, plans, sampling, shard_jobs, videos

TOOL = {"name": "data_prep", "version": "2"}  # Raise it with any change of the bytes that the same videos give.


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """How to make a clip store.

    Attributes:
      dataset: a key of `data_sets.DATA_SETS`.
      out: folder of the store; created if it does not exist.
      source: folder of the videos. A data set that makes its own videos makes them there; None is OUT/source.
      annotations: something: folder of the JSON files; kth: 00sequences.txt or its folder. None is the source folder.
      frames: T; None takes the preset's value: 16, kth 32, planted 24.
      height: H in px; None takes the preset's value: 224, kth 120, planted and synthetic 32.
      width: W in px; None takes the preset's value: 224, kth 160, planted and synthetic 32.
      encoding: "jpeg" or "raw".
      jpeg_quality: 1…100; used by "jpeg" alone.
      subsampling: "linspace" or "released", see `sampling.subsample`.
      resize: "stretch" or "center_crop", see `sampling.resize`.
      clips_per_shard: maximum number of clips per shard; a single video with more clips gets a shard of its own.
      launch: which shards to make, and where; None takes one process per processor.
      max_failures: with more failed clips than this, the command ends with exit code 1; the store is made in any case.
      splits: the splits to make; None makes all there are.
      dry_run: print what would be made, what is missing and what is left out, and write nothing.
      seed: for the videos that the data set makes itself, and for dividing clips.
      clips_per_class: split -> number of such videos of each class; None takes the data set's default.
      suite: of planted events, one of `suites.SUITES`; None takes "rare".
      validation_share: part of clips without splits that becomes validation, in [0, 1); see `division`.
      test_share: part of them that becomes test, in [0, 1).
      group_by: regular expression with one group that says which of them stay together; "": none.
    """

    dataset: str
    out: pathlib.Path
    source: pathlib.Path | None = None
    annotations: pathlib.Path | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    encoding: str = "jpeg"
    jpeg_quality: int = 95
    subsampling: str = "linspace"
    resize: str = "stretch"
    clips_per_shard: int = 256
    launch: Launch | None = None
    max_failures: int = 0
    splits: tuple[str, ...] | None = None
    dry_run: bool = False
    seed: int = 0
    clips_per_class: Mapping[str, int] | None = None
    suite: str | None = None
    validation_share: float = 0.0
    test_share: float = 0.0
    group_by: str = ""

    def __post_init__(self) -> None:
        for name, choices in (
            ("subsampling", sampling.SUBSAMPLINGS),
            ("resize", sampling.RESIZES),
        ):
            errors.check_choice(name, getattr(self, name), choices)
        for name, least in (("clips_per_shard", 1), ("max_failures", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise errors.UserError(f"{name} must be at least {least}. Received: {getattr(self, name)}")
        plans.check_splits(self.splits)
        self.layout()
        if self.division and (self.splits or self.data_set.maker):
            raise errors.UserError(
                "validation_share, test_share and group_by must be given without splits, for videos that you bring. "
                f"Received: dataset {self.dataset}, splits {','.join(self.splits or ()) or None}"
            )

    @property
    def division(self) -> clip_store.Division | None:
        """How clips are divided into splits; None where their source does that."""
        if not (self.validation_share or self.test_share or self.group_by):
            return None
        return clip_store.Division(self.validation_share, self.test_share, self.seed, self.group_by)

    @property
    def data_set(self) -> data_sets.DataSet:
        """What is particular to the data set."""
        return data_sets.find(self.dataset, self.suite)

    def layout(self) -> shards.Layout:
        """Returns shape and encoding of the clips, with the preset's numbers where none are given."""
        preset = configs.PRESETS[self.data_set.preset].model.input_shape
        given = (self.frames, self.height, self.width)
        frames, height, width = (default if size is None else size for size, default in zip(given, preset, strict=True))
        truth = self.data_set.mask_shape, self.data_set.sufficient_sets
        return shards.Layout(frames, height, width, self.encoding, self.jpeg_quality, *truth)

    def source_folder(self) -> pathlib.Path:
        """Returns where the videos are."""
        if self.source is not None:
            return self.source
        if self.data_set.maker is None:
            raise errors.UserError(
                f"--source must name the folder of the videos for --dataset={self.dataset}. Received: none"
            )
        return self.out / "source"


def prepare(config: PrepareConfig) -> int:
    """Makes a clip store, or prints what it would make.

    Returns:
      The exit code: 0, or 1 where more clips failed than `max_failures`, or a worker died. A task of an array job that
      leaves shards to others writes no `dataset.json`, and returns 0.

    Raises:
      errors.UserError: for input that cannot be used at all, and where a disk is full or gone; finished shards are
        kept.
    """
    try:
        if config.out.exists() and not config.out.is_dir():
            raise errors.UserError(f"--out must be a folder. Received: the file {config.out}")
        plan = _plan(config) if config.dry_run or config.data_set.maker is None else None
        if config.dry_run and plan is not None:
            sys.stdout.write(_describe(plan))
            return 0
        config.out.mkdir(parents=True, exist_ok=True)
        return _build(config, plan)
    except decoded.ReadingStoppedError as error:
        raise errors.UserError(
            f"--source must stay readable to the end. Received: {error} (start again: finished shards are kept)"
        ) from None
    except OSError as error:
        raise errors.UserError(f"--source must be readable and --out writable. Received: {error}") from None
    except RecursionError:
        raise errors.UserError(f"JSON files must not be nested so deeply. Received: one in {config.out}") from None
    except MemoryError:
        raise errors.UserError("Clips must fit into memory. Received: too little of it (try fewer --workers)") from None
    except units.UnfinishedError as left:
        logging.info("%s", left)
        return 0
    except launching.WorkerDiedError as error:
        logging.error("%s; finished shards are kept: start again, with fewer --workers if memory ran out", error)
        return 1


def _plan(config: PrepareConfig) -> plans.Plan:
    """Returns what is to be made; a data set that makes its videos makes those that are missing, but in a dry run."""
    source, maker = config.source_folder(), config.data_set.maker
    if maker is not None and config.dry_run:
        return maker.count(config.clips_per_class, config.splits)
    if maker is not None:
        maker.make(source, config.seed, config.clips_per_class, _launch(config).workers)
    plan = config.data_set.plan(source, config.annotations, config.splits, config.out)
    if config.division:
        plan = division.divide(plan, config.division)
    if not config.dry_run and not any(plan.items.values()):
        raise errors.UserError(
            f"--source must hold videos that the annotations name. Received: {source} with none of "
            f"{sum(map(len, plan.missing.values()))}"
        )
    return plan


def _build(config: PrepareConfig, plan: plans.Plan | None) -> int:
    with locks.exclusive(config.out, wait=True):
        plan = plan or _plan(config)
        settings = _settings(config, plan)
        jobs = _jobs(config, plan, settings)
        digests = _check_shards(config, settings, jobs)
    made = _make(config, jobs)
    with locks.exclusive(config.out, wait=True):
        units.check_all_there(jobs, config.out)
        results = _results(config, jobs, made, digests)
        units.remove_claims(jobs)
        failures = [remark for split in plan.items for remark in plan.missing.get(split, ())]
        failures += [remark for result in results for remark in result.failures]
        _write_remarks(config.out / "failures.csv", "reason", failures)
        _write_remarks(config.out / "notes.csv", "note", [remark for result in results for remark in result.notes])
        info = clip_store.write_indexes(config.out, _info(config, settings, results))
        clip_store.write_dataset_json(config.out, info)
    return _tell(config, plan, results, len(failures))


def _settings(config: PrepareConfig, plan: plans.Plan) -> shard_jobs.Settings:
    versions = {**videos.decoder_versions(), "tool": TOOL["version"], "schema": str(shards.SCHEMA_VERSION)}
    maker = config.data_set.maker
    if maker is not None:
        versions["videos"] = maker.version(config.seed)
    name = maker.name(config.clips_per_class, config.splits) if maker else config.dataset
    return shard_jobs.Settings(name, plan.class_names, config.layout(), config.subsampling, config.resize, versions)


def _jobs(config: PrepareConfig, plan: plans.Plan, settings: shard_jobs.Settings) -> list[shard_jobs.Job]:
    source, data_set = config.source_folder(), config.data_set
    videos_folder = source / data_set.videos
    truth = source / data_set.ground_truth if data_set.ground_truth else None
    return [
        job
        for split, items in plan.items.items()
        for job in shard_jobs.split_into_jobs(
            config.out, split, items, config.clips_per_shard, settings, videos_folder, truth
        )
    ]


def _check_shards(
    config: PrepareConfig, settings: shard_jobs.Settings, jobs: Sequence[shard_jobs.Job]
) -> dict[str, str]:
    """Refuses a folder with shards of another job; deletes damaged shards, which are then made again.

    A folder with unfinished shards is no finished store: it loses its `dataset.json`, but not before the shards that
    this file knows to be damaged are gone. Nothing else would know it.

    Returns:
      File name -> SHA-256 of the shards that `dataset.json` knows and that are as it says.
    """
    by_file = {job.file: job for job in jobs}
    present = sorted(config.out.glob("*.h5"))
    for path in (config.out / "dataset.json", *present):
        plans.check_file(path)
    info = clip_store.read_dataset_json(config.out) if (config.out / "dataset.json").exists() else None
    known = {shard.file: shard.sha256 for shard in info.shards} if info else {}
    listed = [path for path in present if path.name in known and path in by_file]
    with concurrent.futures.ThreadPoolExecutor(launching.available()) as pool:
        digests = dict(zip((path.name for path in listed), pool.map(files.sha256, listed), strict=True))
    damaged = [path for path in listed if digests[path.name] != known[path.name]]
    if damaged and (info is None or _differ(info, _info(config, settings, []))):
        raise _of_another_job(damaged[0])  # Damaged ones are not opened: what they say of their job may be wrong.
    _refuse_others(config, jobs, [path for path in present if path not in damaged])
    for path in damaged:
        logging.warning("%s is damaged (its SHA-256 is not the one in dataset.json) and is made again", path)
        path.unlink()
    if any(not job.file.exists() for job in jobs):
        (config.out / "dataset.json").unlink(missing_ok=True)
    return {name: digest for name, digest in digests.items() if digest == known[name]}


def _refuse_others(config: PrepareConfig, jobs: Sequence[shard_jobs.Job], present: Sequence[pathlib.Path]) -> None:
    """Refuses shards of another job."""
    by_file = {job.file: job for job in jobs}
    for path in present:
        if path not in by_file or shard_jobs.read_fingerprint(path) != by_file[path].fingerprint:
            raise _of_another_job(path)


def _of_another_job(path: pathlib.Path) -> errors.UserError:
    return errors.UserError(
        "--out must be empty or hold shards of the same videos, settings and versions. "
        f"Received: {path} of another job (delete the folder or choose another)"
    )


def _differ(info: clip_store.DatasetInfo, other: clip_store.DatasetInfo) -> bool:
    """Returns whether two stores were made in different ways, whatever shards they have."""
    bare, other_bare = (dataclasses.replace(one, shards=(), counts={}, indexes={}) for one in (info, other))
    return bare != other_bare


def _make(config: PrepareConfig, jobs: Sequence[shard_jobs.Job]) -> dict[pathlib.Path, shard_jobs.Result]:
    """Makes the shards that are missing, and returns what those hold that this call made."""
    launch = _launch(config)
    share = units.share(jobs, launch)
    with progress.bar(**units.amounts(share), unit="clip", desc="making clips") as bar:
        return units.make(share, _make_shard, config.out / "dataset.json", launch, lambda clips: bar.update(int(clips)))


def _make_shard(job: shard_jobs.Job, tick: Tick) -> shard_jobs.Result:
    with decoders.one_thread():
        return shard_jobs.make_shard(job, lambda: tick(1))


def _results(
    config: PrepareConfig,
    jobs: Sequence[shard_jobs.Job],
    made: Mapping[pathlib.Path, shard_jobs.Result],
    digests: Mapping[str, str],
) -> list[shard_jobs.Result]:
    """Returns what all shards hold, in the order of the jobs; others may have made some, which are read."""
    others = [job for job in jobs if job.file not in made]
    _refuse_others(config, jobs, [job.file for job in others])
    with concurrent.futures.ThreadPoolExecutor(launching.available()) as pool:
        found = pool.map(lambda job: shard_jobs.read_result(job, digests.get(job.file.name)), others)
        results = {**made, **dict(zip((job.file for job in others), found, strict=True))}
    return [results[job.file] for job in jobs]


def _launch(config: PrepareConfig) -> Launch:
    return config.launch or Launch(launching.available())


def _write_remarks(path: pathlib.Path, heading: str, remarks: Sequence[plans.Remark]) -> None:
    columns = [tables.Column(title) for title in ("video_id", "path", heading)]
    rows = [tuple(map(_printable, dataclasses.astuple(remark))) for remark in remarks]
    files.write_text(path, tables.write_csv(tables.Table(columns, rows)))


def _printable(name: str) -> str:
    """Returns text in which bytes of a name that are no UTF-8 are spelt out."""
    return name.encode(errors="backslashreplace").decode()


def _info(
    config: PrepareConfig, settings: shard_jobs.Settings, results: Sequence[shard_jobs.Result]
) -> clip_store.DatasetInfo:
    """Returns what `dataset.json` says of a store with these shards."""
    counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for result in results:
        counts[result.shard.split].update(result.labels)
    return clip_store.DatasetInfo(
        dataset=settings.dataset,
        class_names=settings.class_names,
        layout=settings.layout,
        resize=settings.resize,
        subsampling=settings.subsampling,
        counts={
            split: {name: labels[label] for label, name in enumerate(settings.class_names)}
            for split, labels in counts.items()
        },
        tool=TOOL,
        decoder=videos.decoder_versions(),
        shards=tuple(result.shard for result in results),
        division=config.division,
    )


def _tell(config: PrepareConfig, plan: plans.Plan, results: Sequence[shard_jobs.Result], num_failures: int) -> int:
    for line in plan.skipped:
        logging.info("%s", text.printable(line))
    for split in plan.items:
        clips = sum(result.shard.clips for result in results if result.shard.split == split)
        logging.info("%s: %s", split, text.counted(clips, "clip"))
    num_notes = sum(len(result.notes) for result in results)
    if num_notes:
        logging.info("Notes on %s: see %s", text.counted(num_notes, "clip"), config.out / "notes.csv")
    tell = logging.error if num_failures > config.max_failures else logging.info
    tell(
        "%s failed%s",
        text.counted(num_failures, "clip"),
        f": see {config.out / 'failures.csv'}" if num_failures else "",
    )
    return int(num_failures > config.max_failures)


def _describe(plan: plans.Plan) -> str:
    """Returns the table of --dry_run: clips per class and split, then what is left out and what is missing."""
    splits = list(plan.items)
    counts = {split: collections.Counter(item.label for item in items) for split, items in plan.items.items()}
    rows = [(name, [counts[split][label] for split in splits]) for label, name in enumerate(plan.class_names)]
    rows.append(("(class unknown)", [counts[split][-1] for split in splits]))
    rows.append(("total", [len(plan.items[split]) for split in splits]))
    lines = ["".join(f"{split:>12}" for split in splits) + "  class"]
    lines += ["".join(f"{number:12d}" for number in numbers) + f"  {name}" for name, numbers in rows]
    lines += [f"skipped: {line}" for line in plan.skipped]
    lines += [f"missing in {split}: {m.video_id} ({m.path})" for split in splits for m in plan.missing.get(split, ())]
    lines.append(f"missing: {sum(map(len, plan.missing.values()))} clips")
    return "".join(f"{text.printable(line)}\n" for line in lines)
