"""The page in a real browser, opened from disk."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from common.explaining import explanations, gradcam_maps, perturbations
from common.reporting import building, drawing, report_for_tests

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = pytest.mark.skipif(not pathlib.Path(CHROMIUM).exists(), reason="needs the system's chromium")

TIMEOUT = 120_000  # ms; a loaded machine is slow, not wrong.
# Waits for what is to be seen: an event draws a moment after the call that causes it returns.
expect = playwright.expect
expect.set_options(timeout=TIMEOUT)

NAMES = ("left", "<script>document.title='broken'</script>", "wave" * 75)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return report_for_tests.write_store(tmp_path_factory.mktemp("report") / "clips", NAMES)


@pytest.fixture(scope="module")
def address(store):
    """Of a report on six clips of three classes and two runs; the second run is wrong on clips 1 and 4.

    There are figures of the first clip of each class.
    """
    folder = store.directory.parent
    explanations.write(folder / "a.h5", report_for_tests.explain(store, "mine", "i3d"))
    explanations.write(folder / "b.h5", report_for_tests.explain(store, "mine", "conv_lstm", "tf", wrong=(1, 4)))
    (folder / "evaluation.json").write_text(json.dumps(report_for_tests.evaluation(NAMES)))
    (folder / "evidence.json").write_text(json.dumps(report_for_tests.gathered()))
    settings = building.ReportSettings(
        folder / "report",
        (folder / "a.h5", folder / "b.h5"),
        (folder / "evaluation.json",),
        (folder / "evidence.json",),
        (report_for_tests.write_run(folder / "run", store.info),),
        figures=3,
    )
    return building.build(settings).resolve().as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        # The flag lets the test, which the page itself may not, read the pixels of a file's picture.
        flags = ["--allow-file-access-from-files"]
        found = tools.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=TIMEOUT)
        yield found
        found.close()


def opened(browser, **options):
    """Returns a new page that waits as long as the machine takes."""
    page = browser.new_page(**options)
    page.set_default_timeout(TIMEOUT)
    return page


@pytest.fixture
def page(browser):
    """A page that fails its test if a script fails or anything but a file is asked for."""
    problems = []
    found = opened(browser, viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or problems.append(asked.url))
    yield found
    found.close()
    assert not problems


def show(page, address, state=""):
    page.goto("about:blank")
    page.goto(address + state)
    page.wait_for_selector(".panel canvas")


def pixels(page, view, run=0):
    """Returns what a view of a run shows, int [H, W, 3]."""
    flat = page.evaluate(
        """([label, run]) => {
          const panel = document.querySelectorAll(".panel")[run];
          const canvas = [...panel.querySelectorAll("canvas")].find((c) => c.ariaLabel.includes(`, ${label}:`));
          return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        }""",
        [view, run],
    )
    return np.array(flat).reshape(32, 32, 4)[..., :3]


def listed(page):
    return page.eval_on_selector_all("#clips small", "found => found.map((one) => one.textContent.split(' ')[0])")


def test_the_first_clip_is_shown_and_each_has_a_line(page, address):
    show(page, address)
    assert page.inner_text("#clip-class") == "left"
    assert listed(page) == [f"validation{number}" for number in range(6)]
    assert page.inner_text("#count") == "6 of 6 clips"
    assert page.eval_on_selector_all(".panel > figcaption", "all => all.map((one) => one.textContent)") == [
        "I3D (PyTorch)",
        "C-LSTM (TensorFlow)",
    ]


@pytest.mark.parametrize("kind", ["freeze", "reverse", "shuffle"])
def test_perturbed_frames_are_those_of_the_mask(page, address, store, kind):
    show(page, address, f"#clip=validation2&view={kind}&frame=5")  # The mask is on in frames 3, 4 and 5.
    mask = report_for_tests.explain(store, "mine", "i3d")["mask"].astype(float)[2:3]
    expected = perturbations.perturb(store.read([2]), mask, kind)[0, 5]
    # The browser has 8 bits for weights and for sums, and rounds down, up to six frames here.
    np.testing.assert_allclose(pixels(page, kind.capitalize()), expected, atol=4)
    assert np.abs(expected - store.read([2])[0, 5]).max() > 50  # It is not the original.


@pytest.mark.parametrize("norm", ["clip", "frame"])
@pytest.mark.parametrize("frame", [1, 6])
def test_heat_is_that_of_the_map(page, address, store, norm, frame):
    show(page, address, f"#clip=validation2&view=original,gradcam&frame={frame}&norm={norm}")
    coarse = report_for_tests.explain(store, "mine", "i3d")["gradcam"][2:3]
    heat = gradcam_maps.normalize(gradcam_maps.upsample(coarse, report_for_tests.SHAPE), norm)[0, frame]
    original = store.read([2])[0, frame].astype(float)
    np.testing.assert_array_equal(pixels(page, "Original"), original)
    expected = drawing.overlay(store.read([2])[0, frame][None], heat[None])[0].astype(float)
    np.testing.assert_allclose(pixels(page, "Grad-CAM"), expected, atol=4)
    assert np.abs(expected - original).max() > 50  # There is heat to see.


def test_runs_step_together_by_key(page, address):
    show(page, address, "#clip=validation0&view=original&frame=6")
    page.click("#viewer h3")
    for key, frame in (("ArrowRight", 7), ("ArrowRight", 0), ("ArrowLeft", 7)):
        page.keyboard.press(key)
        expect(page.locator("#frame-number")).to_have_text(f"Frame {frame} of 7")
        expect(page.locator(".pictures span")).to_have_text([f"frame {frame}"] * 2)
    page.keyboard.press("ArrowDown")
    expect(page.locator("#clip-facts")).to_have_text(re.compile("^validation1 · 2 of 6"))
    page.keyboard.press("4")
    expect(page.locator(".panel").nth(0).locator(".pictures canvas")).to_have_count(2)


def test_playing_goes_on_until_paused(page, address):
    show(page, address, "#clip=validation0&view=original&frame=0")
    page.click("#play")
    page.wait_for_function("document.getElementById('frame').value >= 2")
    page.click("#play")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")
    stopped = page.input_value("#frame")
    page.wait_for_timeout(700)
    assert page.input_value("#frame") == stopped


def test_scrubbing_by_the_strip_and_the_slider(page, address):
    show(page, address, "#clip=validation0&view=original&frame=0")
    strip = page.locator(".strip").nth(1)
    strip.click(position={"x": strip.bounding_box()["width"] * 5.5 / 8, "y": 10})
    expect(page.locator("#frame-number")).to_have_text("Frame 5 of 7")
    page.focus("#frame")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#frame-number")).to_have_text("Frame 4 of 7")


def test_filters_by_class_model_and_outcome(page, address):
    show(page, address)
    page.select_option("[name=class]", "1")
    assert listed(page) == ["validation1", "validation4"]
    page.select_option("[name=class]", "")
    page.select_option("[name=outcome]", "wrong")
    assert listed(page) == ["validation1", "validation4"]
    page.select_option("[name=outcome]", "differ")
    assert listed(page) == ["validation1", "validation4"]
    page.select_option("[name=outcome]", "wrong")
    page.select_option("[name=run]", "0")
    assert listed(page) == [] and page.is_hidden("#viewer")
    page.select_option("[name=outcome]", "right")
    assert len(listed(page)) == 6
    expect(page.locator(".panel")).to_have_count(1)


def test_order_by_score(page, address):
    show(page, address)
    forwards = [f"validation{number}" for number in range(6)]  # OS and RS/FS fall from clip to clip, FS rises.
    for key, expected in (("OS-down", forwards), ("FS-up", forwards), ("RS/FS-up", forwards[::-1])):
        page.select_option("[name=sort]", key)
        assert listed(page) == expected


def test_the_address_holds_the_state(page, address):
    show(page, address)
    page.select_option("[name=sort]", "OS-up")
    page.click("[data-view=reverse]")
    page.select_option("#norm", "frame")
    page.click("[data-number='4']")
    page.fill("#frame", "3")
    expect(page.locator("#frame-number")).to_have_text("Frame 3 of 7")
    link = page.evaluate("location.href")  # `page.url` learns of a changed address later.
    show(page, link)
    assert page.evaluate("location.href") == link
    expect(page.locator("#clip-facts")).to_have_text(re.compile("^validation4 · 2 of 6"))
    expect(page.locator("#frame-number")).to_have_text("Frame 3 of 7")
    assert page.input_value("#norm") == "frame" and page.input_value("[name=sort]") == "OS-up"
    pressed = page.eval_on_selector_all("[aria-pressed=true]", "all => all.map((one) => one.dataset.view)")
    assert pressed == ["original", "gradcam", "freeze", "reverse"]


@pytest.mark.parametrize("state", ["#clip=nowhere", "#clip=validation0&frame=99&view=x&class=77&norm=1", "#%%%"])
def test_an_address_of_nonsense_shows_a_clip(page, address, state):
    show(page, address, state)
    expect(page.locator("#clip-class")).to_have_text("left")
    expect(page.locator("#frame-number")).to_have_text("Frame 4 of 7")


def test_a_class_name_with_markup_is_text(page, address):
    show(page, address, "#clip=validation1")
    expect(page.locator("#clip-class")).to_have_text(NAMES[1])
    assert page.title() == "Interpreting video features: report"


def test_a_missing_file_is_told(browser, address, store):
    report = store.directory.parent / "report"
    shutil.copytree(report, store.directory.parent / "half", dirs_exist_ok=True)
    (store.directory.parent / "half" / "clips" / "0003.js").unlink()
    page = opened(browser)
    page.goto((store.directory.parent / "half" / "index.html").resolve().as_uri() + "#clip=validation3")
    page.wait_for_selector("#problem:visible")
    assert (
        page.inner_text("#problem") == "This clip cannot be shown: clips/0003.js is missing from the report's folder."
    )
    page.click("#next")
    page.wait_for_selector(".panel canvas")
    expect(page.locator("#problem")).to_be_hidden()
    page.close()


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_no_width_scrolls_sideways(page, address, width):
    page.set_viewport_size({"width": width, "height": 844})
    show(page, address)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_everything_to_operate_has_a_name(page, address):
    show(page, address)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, canvas, svg, [tabindex='0']")]
          .filter((one) => !one.closest("[aria-hidden=true]"))
          .filter((one) => !(one.ariaLabel || one.textContent.trim() || (one.labels && one.labels.length)))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_pictures_are_loaded_when_they_are_needed(page, address):
    asked = []
    page.on("request", lambda found: asked.append(found.url.rsplit("/", 1)[1]))
    page.set_viewport_size({"width": 1280, "height": 800})
    show(page, address, "#clip=validation0")
    page.wait_for_function("() => performance.now() > 0")
    assert {"0000.js", "0000.png"} <= set(asked)
    assert "0003.js" not in asked and "0004.js" not in asked


def test_a_clip_leads_to_its_figures_and_back(page, address):
    show(page, address, "#clip=validation1&sort=OS-down")
    page.click("#clip-figures")
    figure = page.locator(page.evaluate("location.hash"))
    assert "(validation1)" in figure.inner_text()
    figure.get_by_role("link", name="Gallery").click()
    page.wait_for_function("document.getElementById('gallery').getBoundingClientRect().top < innerHeight / 2")
    expect(page.locator("#clip-facts")).to_have_text(re.compile("^validation1"))
    page.click("[data-number='4']")
    expect(page.locator("#clip-facts")).to_have_text(re.compile("^validation4"))
    expect(page.locator("#clip-figures")).to_be_hidden()


def test_films_play_and_every_file_that_is_linked_is_there(page, address):
    show(page, address)
    assert page.locator("video").count() == 6  # Two runs of two frameworks stand alone.
    button = page.locator("[data-film]").first
    button.click()
    page.wait_for_function("document.querySelector('video').currentTime > 0.2")
    expect(button).to_have_attribute("aria-label", re.compile(r"^Pause: left \(validation0\)"))
    page.locator("video").first.click()
    expect(button).to_have_text("▶")
    assert page.eval_on_selector("video", "film => film.paused")
    assert page.eval_on_selector("video", "film => film.videoWidth") > 480
    folder = pathlib.Path(address.removeprefix("file://")).parent
    links = page.eval_on_selector_all(
        "a[href], [src], [poster]",
        "all => all.flatMap((one) => ['href', 'src', 'poster'].map((key) => one.getAttribute(key))).filter((x) => x)",
    )
    files = [link for link in links if not link.startswith(("#", "data:"))]
    assert len(files) > 30 and all((folder / file).is_file() for file in files)
    missing = page.eval_on_selector_all(
        "a[href^='#']:not([href*='clip='])",
        "all => all.filter((a) => !document.getElementById(a.hash.slice(1))).map((a) => a.outerHTML)",
    )
    assert not missing


def test_every_section_has_its_tables_and_charts(page, address):
    show(page, address)
    for section, tables, charts in (("comparison", 2, 8), ("evidence", 3, 6), ("scores", 2, 0), ("training", 1, 2)):
        place = page.locator(f"#section-{section}")
        assert place.locator("table").count() >= tables, section
        assert place.locator("svg").count() >= charts, section
        assert place.locator("svg text").count() >= charts and not place.get_by_text("NaN").count()


def test_links_to_files_are_not_printed(page, address):
    show(page, address)
    page.emulate_media(media="print")
    assert page.locator(".files").count() > 8 and not page.locator(".files:visible").count()


def test_on_paper_no_column_is_cut_off(page, address):
    page.set_viewport_size({"width": 700, "height": 990})  # A4 within its margins.
    show(page, address)
    page.emulate_media(media="print")
    ends = page.eval_on_selector_all("table", "all => all.map((table) => table.getBoundingClientRect().right)")
    assert len(ends) == 8 and max(ends) <= 701
    assert set(page.eval_on_selector_all(".scroll", "all => all.map((one) => getComputedStyle(one).overflowX)")) == {
        "visible"
    }


def test_a_panel_says_what_the_model_used(page, address):
    show(page, address)
    words = page.inner_text(".panel .words").replace("\u00a0", " ")
    assert words.startswith("Needs frames 1–3 (3 of 8): frozen, “left” falls from 90 % to 10 %.")
    assert page.eval_on_selector_all(".panel .words b", "found => found.slice(0, 3).map((one) => one.innerText)") == [
        "frames 1–3",
        "90\u00a0%",
        "10\u00a0%",
    ]


def test_all_frames_stand_in_a_strip_over_the_mask(page, address):
    show(page, address)
    film, bars = (page.locator(f".panel >> nth=0 >> {part}").bounding_box() for part in (".film", ".mask"))
    assert film["width"] == pytest.approx(bars["width"], abs=1) and film["x"] == pytest.approx(bars["x"], abs=1)
    assert page.evaluate("document.querySelector('.film').width") == 8 * 32


def test_the_page_plays_unless_less_motion_is_asked_for(browser, address):
    page = opened(browser, reduced_motion="no-preference")
    show(page, address)
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    page.close()
    page = opened(browser, reduced_motion="reduce")
    show(page, address)
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")
    page.close()


def test_space_plays_from_the_start_and_after_a_click(page, address):
    show(page, address)
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    page.click("[data-view=reverse]")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")
    expect(page.locator("[data-view=reverse]")).to_have_attribute("aria-pressed", "true")


def test_filters_that_leave_no_clip_offer_to_show_all(page, address):
    show(page, address)
    page.select_option("[name=class]", "0")
    page.select_option("[name=outcome]", "wrong")
    expect(page.locator("#empty")).to_be_visible()
    page.click("#reset")
    expect(page.locator("#count")).to_have_text("6 of 6 clips")
    expect(page.locator("#empty")).to_be_hidden()


def test_a_tap_in_the_list_shows_the_clip_on_a_phone(page, address):
    page.set_viewport_size({"width": 390, "height": 844})
    show(page, address)
    page.locator("#clips button").nth(2).click()
    expect(page.locator("#clip-class")).to_be_in_viewport()


def test_a_twin_is_one_line_until_it_is_opened(browser, store):
    folder = store.directory.parent
    for name, framework in (("torch.h5", "torch"), ("tf.h5", "tf")):
        explanations.write(folder / name, report_for_tests.explain(store, "mine", "i3d", framework))
    settings = building.ReportSettings(folder / "twins", (folder / "torch.h5", folder / "tf.h5"), figures=0)
    page = opened(browser, reduced_motion="reduce")
    show(page, building.build(settings).resolve().as_uri())
    expect(page.locator(".panel")).to_have_count(1)
    expect(page.locator(".twin summary")).to_have_text("TensorFlow agrees: probabilities to 0, mask to 0")
    page.click(".twin > summary")
    expect(page.locator(".twin .panel figcaption").first).to_have_text("I3D (TensorFlow)")
    assert pixels(page, "Original", run=1).any()
    np.testing.assert_array_equal(pixels(page, "Grad-CAM", run=1), pixels(page, "Grad-CAM"))
    page.click("#next")
    expect(page.locator(".twin .panel")).to_have_count(1)  # It stays open from clip to clip.
    page.close()


@pytest.fixture(scope="module")
def games(store):
    """Address of a report on one model whose masks delete, needing frames 1 to 3 of the first clip, and preserve."""
    folder = store.directory.parent
    explanations.write(folder / "needs.h5", report_for_tests.explain(store, "mine", "i3d"))
    kept = report_for_tests.explain(store, "mine", "i3d")
    kept.header["mask"]["game"] = "preserve"
    kept.columns["mask"][:] = np.arange(8) == 2
    kept.columns["mask_snapped"][:] = np.arange(8) == 2
    kept.columns["FS_snapped"][:] = 0.85
    explanations.write(folder / "kept.h5", kept)
    settings = building.ReportSettings(folder / "games", (folder / "kept.h5", folder / "needs.h5"), figures=1)
    return building.build(settings).resolve().as_uri()


def test_both_games_stand_on_one_strip(page, games, store):
    show(page, games, "#clip=validation0&view=freeze,suffices&frame=6")
    expect(page.locator(".panel")).to_have_count(1)
    expect(page.locator(".panel > figcaption")).to_have_text("I3D (PyTorch)")
    said = page.locator(".panel .words").all_inner_texts()
    assert said[0].startswith("Needs frames 1–3 (3 of 8)") and said[1].startswith("Frame 2 (1 of 8) alone suffices")
    assert page.locator(".strip > div > span").all_inner_texts() == ["heat", "needs", "suffices", "event"]
    assert page.get_attribute(".strip", "aria-label").startswith(
        "needs: mask on in frames 1–3; suffices: mask on in frames 2; event "
    )
    kept = 1 - (np.arange(8) == 2)[None].astype(float)
    expected = perturbations.perturb(store.read([0]), kept, "freeze")[0, 6]
    np.testing.assert_allclose(pixels(page, "Only what suffices"), expected, atol=4)
    page.click(".more summary")
    expect(page.locator(".more h4")).to_have_text(["needs", "suffices"])
    expect(page.locator("[name=run] option")).to_have_text(["I3D (PyTorch)"])
    expect(page.locator("#clips small").first).to_have_text("validation0 · right")  # One model, not two runs.


def test_the_first_screen_says_what_both_games_found(page, games):
    show(page, games)
    expect(page.locator(".answers figcaption")).to_have_text(["I3D (PyTorch)"])
    said = page.inner_text(".answers")
    assert "Needs 3 of 8 frames (median)" in said and "1 of 8 frames (median) alone" in said
    assert page.locator(".answers .chart .kept").count() == 1


def test_small_clips_are_enlarged_by_a_whole_number(page, address):
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        show(page, address, "#view=original,gradcam,freeze")
        page.wait_for_function("[96, 128, 160].includes(document.querySelector('.pictures canvas').clientWidth)")


def test_a_clip_of_unknown_class_goes_by_its_name(page, tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("others", "a"), num_clips=2).known_to(NAMES)
    assert store.labels.min() == -1
    explained = report_for_tests.explain(store, "mine", "i3d")
    explained.columns["prediction"][:] = explained.columns["target"][:] = 1
    explanations.write(tmp_path / "a.h5", explained)
    settings = building.ReportSettings(tmp_path / "report", (tmp_path / "a.h5",), figures=0)
    show(page, building.build(settings).as_uri(), "#clip=validation0")
    expect(page.locator("#clip-class")).to_have_text("validation0")
    expect(page.locator("#clip-facts")).to_contain_text("Class unknown · 1 of 2")
    expect(page.locator("#clips button").first).to_have_text("validation0Class unknown")


def test_a_model_without_a_layer_for_grad_cam_has_none_beside_one_that_has(page, store, tmp_path):
    with_maps, without = (report_for_tests.explain(store, name, "i3d") for name in ("mine", "yours"))
    without.header["gradcam"] = None
    del without.columns["gradcam"]
    paths = tuple(tmp_path / name for name in ("a.h5", "b.h5"))
    for path, explained in zip(paths, (with_maps, without), strict=True):
        explanations.write(path, explained)
    settings = building.ReportSettings(tmp_path / "report", paths, figures=0)
    show(page, building.build(settings).as_uri(), "#view=original,gradcam")
    panels = page.locator(".panel")
    expect(panels.nth(1)).to_contain_text("none of this model")
    expect(panels.nth(0)).not_to_contain_text("none of this model")
    assert "zero" not in panels.nth(1).inner_text()
