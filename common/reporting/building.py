"""Builds the report: one folder with a page that opens from disk, its pictures and numbers, and all tables as files.

Inputs are what `explain.py`, `evaluate.py` and `evidence.py` of either framework wrote, of any number of runs. The page
needs no server, no network and no library: see `gallery` for how.
"""

import dataclasses
import json
import pathlib
import re
import shutil
import zipfile
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe
import numpy as np
from absl import logging

from common import errors, files, progress, remote, tables
from common.clips.clip_store import ClipStore
from common.explaining import evidence_file, explanation_statistics, explanations
from common.explaining.explanations import Explanations
from common.remote import Cache
from common.reporting import (
    charts,
    clip_figures,
    clip_tables,
    comparison,
    evidence_tables,
    figure_files,
    gallery,
    order_cards,
    paper_tables,
    preview,
    sheet,
    sources,
    training,
    words,
)
from common.reporting.clip_figures import FigureFiles
from common.reporting.comparison import Run
from common.runs import evaluation_file
from common.tables import Table

PAGE = pathlib.Path(__file__).with_name("page")
_OURS = ("clips", "tables", "figures")  # Folders whose files are all the report's.
_PAGE_FILES = {"index.html", "page.js", "style.css"}  # That every report has.
_PREVIEW = "preview.png"  # What a link to the page shows.
_TITLE = "Interpreting video features: which frames and pixels a model used"
_UNFINISHED = ".unfinished"  # A file that marks a folder while a report is moved into it.


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """What to report on.

    Attributes:
      out: folder to make; an earlier report in it is replaced.
      explanations: `explanations.h5` files, of clips of one split of one store.
      evaluations: `evaluation.json` files, of any data sets.
      evidence: `evidence.json` files.
      runs: run directories whose settings and training are shown, besides those that hold the files above.
      clips: folder or URL of the clip store, or None for the one that the first explanations were made from.
      gallery_clips: clips to show at most, spread over the classes; statistics are of all clips.
      figures: clips to draw as the paper's figures, spread over the classes.
      stills: types of the figures' stills, some of `clip_figures.STILLS`.
      url: address of the folder that the report will be published in, or empty: sites that show a picture of a link
        ask for its whole address.
      zip: whether an archive of the folder is made beside it, too: its name and ".zip". Otherwise that of an earlier
        report is removed.
      cache: where clips at a URL are kept.
    """

    out: pathlib.Path
    explanations: tuple[pathlib.Path, ...] = ()
    evaluations: tuple[pathlib.Path, ...] = ()
    evidence: tuple[pathlib.Path, ...] = ()
    runs: tuple[pathlib.Path, ...] = ()
    clips: files.Place | None = None
    gallery_clips: int = 240
    figures: int = 6
    stills: tuple[str, ...] = ("png",)
    url: str = ""
    zip: bool = False
    cache: Cache = remote.DEFAULT

    def __post_init__(self) -> None:
        if not self.explanations and not self.evaluations:
            raise errors.UserError("A report must be given --explanations or --evaluations. Received: neither")
        if self.url and not re.fullmatch(r"https?://[^\s\"<>]+", self.url):
            raise errors.UserError(f"--url must begin with http:// or https://. Received: {self.url}")
        for kind in self.stills:
            errors.check_choice("stills", kind, tuple(clip_figures.STILLS))
        if self.gallery_clips < 1 or self.figures < 0:
            raise errors.UserError(
                f"gallery_clips must be at least 1, figures at least 0. Received: {self.gallery_clips}, {self.figures}"
            )


def build(settings: ReportSettings) -> pathlib.Path:
    """Builds a report and returns its `index.html`.

    Everything is made in a temporary folder beside `out`, then moved, `index.html` last. Killed at any moment, it can
    be called again.

    Args:
      settings: what to report on.

    Raises:
      errors.UserError: for files that are not what they should be, explanations of different clips, or an `out` that
        holds something else than a report, or into which another process writes one.
      OSError: where something cannot be written.
    """
    out = settings.out.resolve()  # Where a link leads, so that the temporary folder is on the same disk.
    _check_out(out)
    evaluations = [evaluation_file.read(path) for path in settings.evaluations]
    evidence = [evidence_file.read(path) for path in settings.evidence]
    runs, store = _read_runs(settings)
    with files.folder_beside(out, "--out") as temporary:
        figures = _write_figures(temporary / "figures", runs, store, settings)
        if store:
            _write_gallery(temporary / "clips", runs, store, settings.gallery_clips, figures)
        scores = [paper_tables.table_1(evaluations)] if evaluations else []
        orders = order_cards.tables(evaluations)
        classes = paper_tables.classes_tables(evaluations)
        compared = comparison.comparison_tables(runs) if runs else []
        trained = _trained(settings, runs, evaluations)
        settings_of_runs = [training.table(trained)] if trained else []
        gathered = evidence_tables.tables(evidence)
        made = [*scores, *orders, *classes, *compared, *gathered, *settings_of_runs]
        _write_tables(temporary / "tables", made, runs, store)
        for name in ("style.css", "page.js"):
            shutil.copyfile(PAGE / name, temporary / name)
        facts, answers = _facts(evaluations, runs, store), _answers(runs, store) if store else []
        single = bool(runs) and len(_explained(runs)) == 1
        html = _template().render(
            title=_TITLE,
            description=_description(facts, answers),
            url=f"{settings.url.rstrip('/')}/" if settings.url else "",
            preview=_write_preview(temporary / _PREVIEW, facts, runs, store) if store else "",
            facts=facts,
            answers=answers,
            runs=runs,
            store=store,
            scores=scores,
            orders=orders,
            order_answers=[(*words_, markupsafe.Markup(svg)) for *words_, svg in order_cards.answers(evaluations)],
            classes=classes,
            charts=[] if single else _charts(runs),
            single=single,
            comparison=compared,
            evidence=gathered,
            curves=[(title, markupsafe.Markup(svg)) for title, svg in evidence_tables.line_charts(evidence)],
            training=settings_of_runs,
            epochs=[(title, markupsafe.Markup(svg)) for title, svg in training.curves(trained)],
            figures=figures,
            views=gallery.views(runs),
            maps=gallery.has_maps(runs),
            models=gallery.models(runs),
            games=any(partner is not None for partner in comparison.partners(runs)),
            sources=sources.sources(runs, store),
        )
        (temporary / "index.html").write_text(html, encoding="utf-8")
        published = _publish(temporary, out)
        if settings.zip:
            _write_zip(out, published)
        elif _holds_a_report(_archive(out), out.name):
            _archive(out).unlink()
            logging.info("%s held the report that was replaced, and is gone (--zip makes it anew).", _archive(out))
    return settings.out / "index.html"


def _read_runs(settings: ReportSettings) -> tuple[list[Run], ClipStore | None]:
    """Returns the explained runs and the clips that they all are of; nothing and None where there are none."""
    if not settings.explanations:
        return [], None
    read = [explanations.read(path) for path in settings.explanations]
    first = read[0].header
    clips = settings.clips or explanations.clips_folder(settings.explanations[0], read[0])
    store = ClipStore(clips, first["split"], settings.cache).known_to(tuple(first["class_names"]))
    for path, found in zip(settings.explanations, read, strict=True):
        _check_clips(found, store, path)
    headers = [found.header for found in read]
    labelled = zip(paper_tables.labels(headers), read, paper_tables.names(headers), strict=True)
    return [_run(label, found, name, store) for label, found, name in labelled], store


def _trained(
    settings: ReportSettings, runs: Sequence[Run], evaluations: Sequence[dict[str, Any]]
) -> list[training.Trained]:
    explained = [(path, run.explanations.header["run"]) for path, run in zip(settings.explanations, runs, strict=True)]
    evaluated = [(path, found["run"]) for path, found in zip(settings.evaluations, evaluations, strict=True)]
    return training.found(settings.runs, [*explained, *evaluated])


def _run(label: str, found: Explanations, name: str, store: ClipStore) -> Run:
    statistics = explanation_statistics.clip_statistics(found, store)
    return Run(label, found, statistics | {"onset": comparison.mask_onsets(found, store)}, name)


def _check_clips(found: Explanations, store: ClipStore, path: pathlib.Path) -> None:
    """Refuses explanations that are not of clips of this store."""
    info = store.info
    expected = {
        "class_names": list(info.class_names),
        "clip_shape": list(info.layout.clip_shape[:3]),
        "split": store.split,
    }
    for name, value in expected.items():
        if found.header[name] != value:
            raise errors.UserError(
                f"All explanations must be of one split of {store.directory}, {name} {str(value)[:200]}. "
                f"Received: {str(found.header[name])[:200]} in {path}"
            )
    missing = sorted(set(found["video_id"]) - set(store.video_ids))
    if missing:
        raise errors.UserError(
            f"Explained clips must be clips of {store.directory}. Received: {len(missing)} others in {path}, "
            f"first {missing[0]!r}"
        )
    ids = found["video_id"]
    if not len(ids) or len(set(ids)) < len(ids):
        raise errors.UserError(
            f"Explanations must be of at least one clip, and of each only once. "
            f"Received: {len(ids)}, {len(set(ids))} of them "
            f"different, in {path}"
        )
    labels = store.labels[store.places(ids)]
    others = [video_id for video_id, same in zip(ids, labels == found["label"], strict=True) if not same]
    if others:
        raise errors.UserError(
            f"Explanations must have the labels of their clips in {store.directory}. Received: others in {path}, "
            f"first {others[0]!r}"
        )


def _write_gallery(
    directory: pathlib.Path, runs: Sequence[Run], store: ClipStore, most: int, figures: Sequence[FigureFiles]
) -> None:
    directory.mkdir()
    places = gallery.choose_clips(runs, store, most)
    anchors = {figure.video_id: figure.anchor for figure in reversed(figures)}  # Of a clip's figures the first.
    common = gallery.script_json(gallery.index(runs, store, places, anchors))
    (directory / "index.js").write_text(f"window.REPORT = {common};\n", encoding="utf-8")
    for number, place in enumerate(progress.bar(places, unit="clip", desc="report")):
        gallery.write_clip(directory, number, runs, store, place)


def _write_figures(
    directory: pathlib.Path, runs: Sequence[Run], store: ClipStore | None, settings: ReportSettings
) -> list[FigureFiles]:
    directory.mkdir()
    if store is None or not settings.figures:
        return []
    places = gallery.choose_clips(runs, store, settings.figures)
    return clip_figures.write_figures(directory, runs, store, places, settings.stills)


def _write_tables(directory: pathlib.Path, made: Sequence[Table], runs: Sequence[Run], store: ClipStore | None) -> None:
    directory.mkdir()
    if store:
        records = clip_tables.records(runs, store)
        csv = tables.write_csv(clip_tables.table(records))
        (directory / f"{clip_tables.NAME}.csv").write_text(csv, encoding="utf-8")
        text = json.dumps(records, ensure_ascii=False, allow_nan=False, indent=1)
        (directory / f"{clip_tables.NAME}.json").write_text(text, encoding="utf-8")
    for table in made:
        (directory / f"{table.name}.csv").write_text(tables.write_csv(table), encoding="utf-8")
        (directory / f"{table.name}.tex").write_text(tables.write_latex(table), encoding="utf-8")


def _explained(runs: Sequence[Run]) -> set[str]:
    """Returns the ids of the clips that runs explain."""
    return {video_id for run in runs for video_id in run.explanations["video_id"]}


def _facts(evaluations: Sequence[dict[str, Any]], runs: Sequence[Run], store: ClipStore | None) -> list[str]:
    """Returns what the report is of, in a few words each."""
    facts = []
    if store:
        explained = words.count(len(_explained(runs)))
        # What was prepared from a user's folder is known by the store's name.
        name = _last_name(store.directory) if store.info.dataset == "folder" else store.info.dataset
        lone = store.info.dataset == "videos"
        facts.append(f"{explained}, explained" if lone else f"{explained} of {name}, {store.split} split, explained")
        facts.append(", ".join(dict.fromkeys(run.name for run in runs)))
    datasets = list(dict.fromkeys(result["dataset"] for result in evaluations))
    if datasets:
        facts.append(f"{len(evaluations)} evaluation{'s' if len(evaluations) > 1 else ''} on {', '.join(datasets)}")
    return facts


def _last_name(place: files.Place) -> str:
    return place.rstrip("/").rsplit("/", 1)[-1] if isinstance(place, str) else place.resolve().name


def _answers(runs: Sequence[Run], store: ClipStore) -> list[tuple[str, list[str], markupsafe.Markup]]:
    """Returns of each model its name, what it relies on in words, and where in a clip; a twin says the same."""
    answers = []
    beside = comparison.partners(runs)
    for number, (run, twin) in enumerate(zip(runs, comparison.twins(runs), strict=True)):
        if twin is None and beside[number] is None:
            partner = runs[beside.index(number)] if number in beside else None
            kept = None if partner is None else _masked(partner)
            salient = comparison.salient_frames(run.explanations, store)
            event = None if salient is None else salient.mean(axis=0)
            name = run.label if partner is None else run.name
            drawn = charts.over_time(f"{name}: share of clips whose mask is on", _masked(run), event, kept)
            answers.append((name, words.model_words(run, store, partner), markupsafe.Markup(drawn)))
    return answers


def _masked(run: Run) -> np.ndarray:
    """Returns in which share of clips the mask is on, of each frame, float64 [T]."""
    return (run.explanations["mask_snapped"] != 0).mean(axis=0)


def _description(facts: Sequence[str], answers: Sequence[tuple[str, list[str], markupsafe.Markup]]) -> str:
    """Returns what a link to the page says below its title: the first model's first answers, or what the page is of."""
    if not answers:
        return ". ".join(facts)
    name, sentences, _ = answers[0]
    return f"{name}: {' '.join(sentences[:2])}"


def _write_preview(path: pathlib.Path, facts: Sequence[str], runs: Sequence[Run], store: ClipStore) -> str:
    """Draws the clearest clip and one model that explains it, and returns what the picture shows, in words."""
    places = gallery.choose_clips(runs, store, len(store))
    place = places[gallery.clearest(runs, store, places)]
    beside = comparison.partners(runs)
    number = next(n for n, run in enumerate(runs) if store.video_ids[place] in run.rows and beside[n] is None)
    both = [number, *([beside.index(number)] if number in beside else [])]
    shown = [runs[n] for n in both if store.video_ids[place] in runs[n].rows]
    figure_files.write_png(path, sheet.paint(preview.sheet(_TITLE, facts[0], shown, store, place)))
    return f"Frames of a clip with heat over them, and under them the masks of {shown[0].name}."


def _charts(runs: Sequence[Run]) -> list[tuple[str, markupsafe.Markup]]:
    """Returns titles and pictures of distributions; twins have the same, baselines, medians and shares need none."""
    drawn = []
    runs = [run for run, twin in zip(runs, comparison.twins(runs), strict=True) if twin is None]
    for quantity in comparison.known_quantities(runs):
        if not (quantity.median or quantity.name == "halved" or quantity.name.endswith("_random")):
            rows = [(run.label, run.statistics[quantity.name], comparison.run_estimate(run, quantity)) for run in runs]
            svg = charts.distribution(quantity.title, quantity.form, rows, quantity.ratio_of is not None)
            drawn.append((quantity.title, markupsafe.Markup(svg)))  # ElementTree has escaped it.
    return drawn


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html.jinja")


def _check_out(out: pathlib.Path) -> None:
    """Refuses a folder that holds something else than a report."""
    if out.exists() and not out.is_dir():
        raise errors.UserError(f"--out must be a folder. Received: {out}, a file")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and _UNFINISHED not in names and not _PAGE_FILES <= names:
        raise errors.UserError(f"--out must be a new folder or an earlier report. Received: {out} with other files")


def _publish(temporary: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Moves every file to its place, the page last, and removes what an earlier report had and this one has not.

    Returns:
      The report's files, relative to its folder.
    """
    made = [path.relative_to(temporary) for path in temporary.rglob("*") if path.is_file()]
    for folder in _OURS:
        files.refuse_link(out / folder)
    out.mkdir(exist_ok=True)
    files.append_text(out / _UNFINISHED, "")  # Empty, so that no kill can leave half of it.
    for file in sorted(made, key=lambda file: file.name == "index.html"):
        (out / file).parent.mkdir(exist_ok=True)
        (temporary / file).replace(out / file)
    for path in [out / _PREVIEW, *(path for folder in _OURS for path in (out / folder).glob("*"))]:
        if path.relative_to(out) not in made:
            path.unlink(missing_ok=True)
    (out / _UNFINISHED).unlink()
    return made


def _archive(out: pathlib.Path) -> pathlib.Path:
    return out.with_name(f"{out.name}.zip")


def _holds_a_report(path: pathlib.Path, name: str) -> bool:
    """Returns whether a file is the archive of a report in a folder of that name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}/{file}" for file in _PAGE_FILES} <= {*archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False


def _write_zip(out: pathlib.Path, made: Sequence[pathlib.Path]) -> None:
    """Packs a report's files as the one folder that they are in; the same files give the same bytes."""
    with files.written_whole(_archive(out)) as path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(made):
                entry = zipfile.ZipInfo(f"{out.name}/{file.as_posix()}")
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, (out / file).read_bytes(), zipfile.ZIP_DEFLATED)
