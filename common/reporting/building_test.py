import dataclasses
import html.parser
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from common import errors, locks
from common.clips import clip_store
from common.explaining import explanations
from common.reporting import building, report_for_tests
from common.reporting.building import ReportSettings

NAMES = ("left <script>alert(1)</script>", "right & wrong", "wave")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def inputs(tmp_path):
    """Paths of two runs' explanations and one's evaluation, of six clips in `clips`."""
    store = report_for_tests.write_store(tmp_path / "clips", NAMES)
    explanations.write(tmp_path / "a.h5", report_for_tests.explain(store, "mine", "i3d"))
    explanations.write(tmp_path / "b.h5", report_for_tests.explain(store, "mine", "conv_lstm", "tf", wrong=(1, 4)))
    (tmp_path / "evaluation.json").write_text(json.dumps(report_for_tests.evaluation(NAMES)), encoding="utf-8")
    return tmp_path


def settings(folder, **changes):
    values = {
        "out": folder / "report",
        "explanations": (folder / "a.h5", folder / "b.h5"),
        "evaluations": (folder / "evaluation.json",),
    }
    return ReportSettings(**{**values, "figures": 0, **changes})


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Page(html.parser.HTMLParser):
    """Collects tags, text, and what the page refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.references, self.properties = [], [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        known = dict(attributes)
        if tag == "meta" and "property" in known:
            self.properties[known["property"]] = known["content"]
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_a_report_is_one_folder(inputs):
    page = building.build(settings(inputs))
    assert page == inputs / "report" / "index.html"
    tables = ("classes_1", "comparison", "differences", "table_1")
    assert files(inputs / "report") == sorted(
        [
            *("index.html", "page.js", "style.css", "preview.png", "clips/index.js"),
            *(f"clips/{number:04d}.{kind}" for number in range(6) for kind in ("js", "png")),
            *(f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")),
            *("tables/clips.csv", "tables/clips.json"),
        ]
    )
    assert not [path for path in inputs.iterdir() if path.name.endswith(".tmp")]


def test_all_that_the_page_refers_to_is_in_the_folder(inputs):
    page = Page(building.build(settings(inputs)).read_text(encoding="utf-8"))
    for reference in page.references:
        assert reference.startswith(("#", "data:")) or (inputs / "report" / reference).is_file(), reference


def test_a_class_name_with_markup_is_text(inputs):
    page = Page(building.build(settings(inputs)).read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2  # Those of the page itself.
    assert NAMES[0] in page.texts
    assert "<script" not in (inputs / "report" / "clips" / "index.js").read_text(encoding="utf-8")


def test_numbers_are_those_of_the_inputs(inputs):
    building.build(settings(inputs))
    rows = (inputs / "report" / "tables" / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("Quantity,I3D (PyTorch),I3D (PyTorch): low,")
    scores = {row.split(",")[0]: float(row.split(",")[1]) for row in rows[2:]}
    assert rows[1].startswith("Game of the masks,deletion,,,,deletion")
    assert scores["Original score OS"] == pytest.approx(0.875)  # 0.9, 0.89 … 0.85.
    assert scores["RS/FS"] == pytest.approx(0.5 / 0.125)
    assert scores["Mask length (frames)"] == 3 and scores["Coherent runs of the mask"] == 1
    assert scores["Mask onset after the event's (frames)"] == pytest.approx((1 + 2 + 3 + 4 + 1 + 2) / 6)
    assert scores["Loss above the best interval (share)"] == pytest.approx(0.25)


def test_a_second_report_replaces_the_first(inputs):
    building.build(settings(inputs, figures=2))
    before = files(inputs / "report")
    # Two clips, each by two runs that stand alone: a GIF, an MP4, its poster and a still.
    assert len([name for name in before if name.startswith("figures/")]) == 2 * 2 * 4
    page = building.build(settings(inputs, gallery_clips=2, evaluations=(), figures=1))
    kept = files(inputs / "report")
    assert "clips/0001.js" in kept and "clips/0002.js" not in kept
    assert "tables/table_1.csv" not in kept
    figures = {name for name in kept if name.startswith("figures/")}
    assert figures and all(name.startswith("figures/000-") for name in figures)
    references = Page(page.read_text(encoding="utf-8")).references
    linked = {reference for reference in references if reference.startswith("figures/")}
    assert figures - linked == {"figures/000-i3d-pytorch.png", "figures/000-c-lstm-tensorflow.png"}  # Posters.
    assert linked < figures


def test_evaluations_alone_make_a_report_without_clips(inputs):
    page = building.build(settings(inputs, explanations=()))
    assert files(inputs / "report") == sorted(
        [*("index.html", "page.js", "style.css")]
        + [f"tables/{name}.{kind}" for name in ("classes_1", "table_1") for kind in ("csv", "tex")]
    )
    assert "page.js" not in Page(page.read_text(encoding="utf-8")).references


def test_explanations_alone_make_a_report_without_scores(inputs):
    page = Page(building.build(settings(inputs, evaluations=())).read_text(encoding="utf-8"))
    assert "Comparison" in page.texts and "Scores" not in page.texts


def test_a_report_that_fails_leaves_the_old_one_as_it_was(inputs, monkeypatch):
    page = building.build(settings(inputs))
    before = {name: (inputs / "report" / name).read_bytes() for name in files(inputs / "report")}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(building, "_write_tables", fail)
    with pytest.raises(OSError, match="disk full"):
        building.build(settings(inputs, gallery_clips=1))
    assert {name: (page.parent / name).read_bytes() for name in files(page.parent)} == before
    assert not [path for path in inputs.iterdir() if path.name.endswith(".tmp")]


def test_a_folder_of_something_else_is_refused(inputs):
    (inputs / "mine").mkdir()
    (inputs / "mine" / "index.html").write_text("my own page")
    with pytest.raises(errors.UserError, match="a new folder or an earlier report"):
        building.build(settings(inputs, out=inputs / "mine"))
    assert (inputs / "mine" / "index.html").read_text() == "my own page"
    with pytest.raises(errors.UserError, match="--out must be a folder"):
        building.build(settings(inputs, out=inputs / "a.h5"))
    with pytest.raises(errors.UserError, match="a folder that can be made"):
        building.build(settings(inputs, out=inputs / "a.h5" / "report"))


def test_a_link_to_the_page_shows_a_picture_and_what_the_first_model_relies_on(inputs):
    page = Page(building.build(settings(inputs, url="https://example.org/mine")).read_text(encoding="utf-8"))
    shown = page.properties
    assert (
        shown["og:image"] == "https://example.org/mine/preview.png" and shown["og:url"] == "https://example.org/mine/"
    )
    assert shown["og:description"].startswith("I3D (PyTorch): Needs 3 of 8 frames (median): frozen, they")
    with Image.open(inputs / "report" / "preview.png") as picture:
        assert picture.size == (1200, 630) and (str(picture.width), str(picture.height)) == (
            shown["og:image:width"],
            shown["og:image:height"],
        )
    # Without clips there is no picture, and an earlier report's goes.
    page = Page(building.build(settings(inputs, explanations=())).read_text(encoding="utf-8"))
    assert "og:image" not in page.properties and page.properties["og:description"] == "1 evaluation on tiny"
    assert not (inputs / "report" / "preview.png").exists()
    with pytest.raises(errors.UserError, match="--url must begin with http"):
        settings(inputs, url="javascript:alert(1)")


def test_sources_and_licences_are_named_where_they_are_known(inputs):
    def sources():
        return building.build(settings(inputs)).read_text(encoding="utf-8").partition("Sources</h2>")[2]

    assert not sources()
    found = explanations.read(inputs / "a.h5")
    found.header.update(source="https://example.org/<weights>", licence="CC BY 4.0")
    explanations.write(inputs / "a.h5", found)
    link = "https://example.org/&lt;weights&gt;"
    assert f'Weights of mine: <a href="{link}">{link}</a>; licence: CC BY 4.0<' in sources()
    assert "Clips of" not in sources()
    info = clip_store.read_dataset_json(inputs / "clips")
    clip_store.write_dataset_json(inputs / "clips", dataclasses.replace(info, dataset="kth"))
    assert "Clips of kth: <a href" in sources()


def test_an_archive_holds_the_page_as_one_folder(inputs):
    archive = inputs / "report.zip"
    building.build(settings(inputs, zip=True))
    first = archive.read_bytes()
    with zipfile.ZipFile(archive) as packed:
        assert sorted(packed.namelist()) == [f"report/{name}" for name in files(inputs / "report")]
        assert packed.read("report/index.html") == (inputs / "report" / "index.html").read_bytes()
    building.build(settings(inputs, zip=True))
    assert archive.read_bytes() == first
    building.build(settings(inputs))
    assert not archive.exists()  # It would be of a report that is no longer there.
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("report/notes.txt", "mine")
    building.build(settings(inputs))
    assert archive.exists()


def only_scores(inputs, **changes):
    return settings(inputs, explanations=(), **changes)


def test_a_second_process_is_refused_before_it_works(inputs):
    with locks.exclusive(inputs, ".report.lock"), pytest.raises(errors.UserError, match="one run at a time"):
        building.build(only_scores(inputs))
    assert not (inputs / "report").exists()


def test_temporary_folders_of_killed_calls_are_removed_and_others_are_not(inputs):
    (inputs / ".report.abcd1234.tmp" / "clips").mkdir(parents=True)
    (inputs / ".other.abcd1234.tmp").mkdir()
    (inputs / ".report.abcd5678.tmp").symlink_to(inputs / "clips")
    clips = files(inputs / "clips")
    building.build(only_scores(inputs))
    left = {path.name for path in inputs.iterdir() if path.name.endswith((".tmp", ".lock"))}
    assert left == {".other.abcd1234.tmp", ".report.abcd5678.tmp"} and files(inputs / "clips") == clips


@pytest.mark.parametrize("folder", ["clips", "tables", "figures"])
def test_nothing_is_written_or_removed_through_a_link_in_the_report(inputs, folder):
    building.build(only_scores(inputs))
    mine = inputs / "mine"
    mine.mkdir()
    (mine / "table_9.csv").touch()
    shutil.rmtree(inputs / "report" / folder, ignore_errors=True)
    (inputs / "report" / folder).symlink_to(mine)
    with pytest.raises(errors.UserError, match=f"must not be a link. Received: .*report/{folder}, a link to .*mine"):
        building.build(only_scores(inputs))
    assert files(mine) == ["table_9.csv"]


def test_the_report_may_be_a_link_to_a_folder_of_ones_own(inputs):
    (inputs / "elsewhere" / "mine").mkdir(parents=True)
    (inputs / "report").symlink_to(inputs / "elsewhere" / "mine")
    for _ in range(2):
        assert building.build(only_scores(inputs)) == inputs / "report" / "index.html"
    assert (inputs / "elsewhere" / "mine" / "index.html").exists() and (inputs / "report").is_symlink()
    assert [path.name for path in (inputs / "elsewhere").iterdir()] == ["mine"]


def test_explanations_of_other_clips_are_refused(inputs):
    store = report_for_tests.write_store(inputs / "other", NAMES, 9)
    explanations.write(inputs / "c.h5", report_for_tests.explain(store, "mine", "i3d"))
    both = (inputs / "a.h5", inputs / "c.h5")
    with pytest.raises(errors.UserError, match=r"Received: 3 others in .*c\.h5, first 'validation6'"):
        building.build(settings(inputs, explanations=both))
    building.build(settings(inputs, explanations=both, clips=inputs / "other"))


def test_explanations_of_other_classes_are_refused(inputs):
    store = report_for_tests.write_store(inputs / "other", ("a", "b"))
    with pytest.raises(
        errors.UserError, match=r"labels of their clips.*Received: others in .*a\.h5, first 'validation0'"
    ):
        building.build(settings(inputs, clips=store.directory))


def test_clips_without_labels_of_the_models_classes_are_reported(inputs):
    store = report_for_tests.write_store(inputs / "other", ("wave", "a")).known_to(NAMES)
    assert store.labels.tolist() == [2, -1] * 3
    explained = report_for_tests.explain(store, "mine", "i3d")
    explained.columns["prediction"][:] = explained.columns["target"][:] = 1
    explanations.write(inputs / "a.h5", explained)
    page = building.build(settings(inputs, explanations=(inputs / "a.h5",), evaluations=(), figures=2))
    assert "class unknown" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [("videos", "1 clip, explained"), ("folder", "1 clip of clips, validation split, explained")],
)
def test_a_page_of_one_clip_has_no_statistics_and_nothing_to_choose_from(inputs, dataset, said):
    info = clip_store.read_dataset_json(inputs / "clips")
    clip_store.write_dataset_json(inputs / "clips", dataclasses.replace(info, dataset=dataset))
    explanations.write(inputs / "a.h5", explanations.read(inputs / "a.h5").take([1]))
    page = building.build(settings(inputs, explanations=(inputs / "a.h5",), evaluations=()))
    html = page.read_text(encoding="utf-8")
    assert '<body class="single">' in html and f"<li>{said}</li>" in html
    assert "What the models rely on" not in html and "the bars are the clips" not in html
    assert '<th scope="row">Original score OS</th>' in html


@pytest.mark.parametrize(
    ("name", "value"),
    [("mask", np.nan), ("mask", 1.5), ("gradcam", -1), ("gradcam", np.inf), ("oracle_interval", 9)],
)
def test_values_out_of_range_are_refused(inputs, name, value):
    found = explanations.read(inputs / "a.h5")
    found[name][3] = value
    explanations.write(inputs / "a.h5", found)
    with pytest.raises(
        errors.UserError, match=rf"{name} must be (0…1|0…8|at least 0 and finite)\. .* in row 3 of .*a\.h5"
    ):
        building.build(settings(inputs))


def test_a_clip_that_is_explained_twice_is_refused(inputs):
    found = explanations.read(inputs / "a.h5")
    found["video_id"][3] = found["video_id"][2]
    explanations.write(inputs / "a.h5", found)
    with pytest.raises(errors.UserError, match="of each only once. Received: 6, 5 of them different"):
        building.build(settings(inputs))


def test_nothing_to_report_on_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="Received: neither"):
        ReportSettings(out=tmp_path)


def command(folder, *flags):
    return subprocess.run(
        [sys.executable, str(ROOT / "common" / "report.py"), *flags],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_works_from_any_folder(inputs):
    done = command(inputs, "--explanations=a.h5,b.h5", "--evaluations=evaluation.json", f"--clips={inputs / 'clips'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{pathlib.Path('report') / 'index.html'}\n"
    assert (inputs / "report" / "index.html").is_file()


@pytest.mark.parametrize("flags", [(), ("--explanations=evaluation.json",), ("--gallery_clips=0",), ("extra",)])
def test_bad_input_ends_in_one_line_and_code_2(inputs, flags):
    done = command(inputs, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (inputs / "report").exists()
