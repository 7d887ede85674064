import base64
import json

import cv2
import numpy as np
import pytest

from common.explaining import perturbations
from common.reporting import comparison, gallery, report_for_tests
from common.reporting.comparison import Run


def run_of(store, model="i3d", **options):
    found = report_for_tests.explain(store, "mine", model, **options)
    statistics = {name: found[name] for name in ("OS", "FS", "RS", "CS")}
    statistics |= {"RS/FS": found["RS"] / found["FS"], "oracle_gap": np.full(len(found), 0.25)}
    return Run(model, found, statistics, model)


def received(path):
    """Returns the number and the values of a clip's script."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("REPORT.receive(") and text.endswith(");\n")
    number, _, values = text[len("REPORT.receive(") : -len(");\n")].partition(", ")
    return int(number), json.loads(values)


@pytest.fixture
def store(tmp_path):
    return report_for_tests.write_store(tmp_path / "clips", ("left", "right", "wave"))


def test_frames_stand_row_after_row():
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8) + 1
    picture = gallery.sprite(frames)
    np.testing.assert_array_equal(picture[::2, ::3, 0], [[1, 2, 3], [4, 5, 0]])
    assert picture.shape == (4, 9, 3) and gallery.columns(5) == 3


def test_rows_of_a_matrix_make_the_perturbed_clip():
    mask = np.random.default_rng(0).random((1, 16))
    for kind in perturbations.KINDS:
        matrix = perturbations.matrix(mask, kind)[0]
        back = np.zeros((16, 16))
        for t, row in enumerate(gallery.matrix_rows(matrix)):
            for frame, weight in row:
                back[t, frame] = weight
        np.testing.assert_allclose(back, matrix, atol=1e-3)


def test_json_cannot_end_a_script():
    text = gallery.script_json({"<script>": "</script>&\u2028"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"<script>": "</script>&\u2028"}


def test_nan_is_no_json():
    with pytest.raises(ValueError, match="Out of range"):
        gallery.script_json(float("nan"))


def test_the_first_clip_of_every_class_is_shown_before_any_second(tmp_path):
    store = report_for_tests.write_store(tmp_path / "many", ("a", "b"), 6)
    store.labels = np.array([0, 0, 0, 0, 1, 1])
    assert gallery.choose_clips([run_of(store)], store, 3) == [0, 1, 4]
    assert gallery.choose_clips([run_of(store)], store, 100) == [0, 1, 2, 3, 4, 5]


def test_the_index_has_a_line_a_clip_and_an_entry_a_run(store):
    first, second = run_of(store), run_of(store, "conv_lstm", wrong=(1,))
    for name, values in second.explanations.columns.items():
        second.explanations.columns[name] = values[:2]  # Explains two clips only.
    index = gallery.index([first, second], store, [0, 1, 2])
    assert [clip["label"] for clip in index["clips"]] == [0, 1, 2]
    assert index["clips"][2]["runs"][1] is None
    assert index["clips"][1]["runs"][1]["prediction"] == 2 and index["clips"][1]["runs"][1]["CS"] == pytest.approx(0.01)
    numbers = dict(index["clips"][0]["runs"][0])
    said = "".join(numbers.pop("words"))
    assert said.startswith("Needs frames 1–3 (3 of 8): frozen, “left” falls from 90 % to 10 %.")
    assert numbers == {
        **{"OS": 0.899999976, "FS": 0.100000001, "RS": 0.5, "CS": None, "RS/FS": pytest.approx(5)},
        **{"oracle_gap": pytest.approx(0.25), "prediction": 0, "probability": 0.899999976, "target": 0, "agrees": None},
        "mark": "needs",
    }  # All digits of float32.
    assert index["clips"][0]["event"] == "1" * 8 and index["clips"][0]["truth"] == "event in frames 0–7"
    assert index["views"] == ["freeze", "reverse", "shuffle"] and len(index["colors"]) == 8 * 256
    json.loads(gallery.script_json(index))


def test_the_learnt_perturbation_is_shown_too(store):
    run = run_of(store)
    run.explanations.header["mask"]["kind"] = "blank"
    assert gallery.views([run]) == ["freeze", "reverse", "shuffle", "blank"]


def test_a_clips_files(store, tmp_path):
    gallery.write_clip(tmp_path, 7, [run_of(store)], store, 2)
    number, values = received(tmp_path / "0007.js")
    (details,) = values["runs"]
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "0007.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(picture, gallery.sprite(store.read([2])[0]))  # Small frames are kept exactly.
    assert number == 7 and details["mask"] == [0.05, 0.05, 0.05, 0.9, 0.9, 0.9, 0.05, 0.05]
    assert details["interval"] == [3, 6] and details["steps"] == 300
    assert details["loss"][0] == [0, 1.0] and details["loss"][-1] == [299, 0.2] and len(details["loss"]) == 101
    np.testing.assert_allclose(details["views"]["freeze"][3], [[0, 0.002], [1, 0.043], [2, 0.855], [3, 0.1]], atol=1e-3)


def test_to_preserve_all_but_the_masks_frames_is_perturbed(store, tmp_path):
    run = run_of(store)
    run.explanations.header["mask"]["game"] = "preserve"
    gallery.write_clip(tmp_path, 7, [run], store, 2)
    (details,) = received(tmp_path / "0007.js")[1]["runs"]
    assert details["mask"][2:4] == [0.05, 0.9]
    # 0.95 of frame 2 is that of frame 1, of which 0.95 is frame 0's.
    np.testing.assert_allclose(details["views"]["freeze"][2], [[0, 0.902], [1, 0.048], [2, 0.05]], atol=1e-3)


def test_a_map_comes_back_to_half_a_step(store, tmp_path):
    run = run_of(store)
    gallery.write_clip(tmp_path, 0, [run], store, 0)
    (details,) = received(tmp_path / "0000.js")[1]["runs"]
    found = details["map"]
    cells = np.frombuffer(base64.b64decode(found["cells"]), np.uint8).reshape(found["shape"])
    assert found["peaks"] == [0.5, 1.0]
    expected = run.explanations["gradcam"][0] / 2  # Its maximum is 2.
    np.testing.assert_allclose(cells / 255 * np.array(found["peaks"])[:, None, None], expected, atol=0.5 / 255)


def test_a_map_of_zeros_stays_so(store, tmp_path):
    run = run_of(store)
    run.explanations["gradcam"][0] = 0
    gallery.write_clip(tmp_path, 0, [run], store, 0)
    (details,) = received(tmp_path / "0000.js")[1]["runs"]
    assert details["map"]["peaks"] == [0, 0] and set(base64.b64decode(details["map"]["cells"])) == {0}


def test_a_clip_that_a_run_does_not_explain_is_null(store, tmp_path):
    run = run_of(store)
    for name, values in run.explanations.columns.items():
        run.explanations.columns[name] = values[1:]
    gallery.write_clip(tmp_path, 0, [run, run_of(store)], store, 0)
    assert received(tmp_path / "0000.js")[1]["runs"][0] is None


def test_the_page_opens_with_the_largest_drop_of_the_fewest_frames_that_is_right(store):
    run = run_of(store, wrong=(1,))
    columns = run.explanations.columns
    columns["OS"][:], columns["FS_snapped"][:] = 1, [0.5, 0.0, 0.4, 0.1, 0.1, 0.5]
    columns["mask_snapped"][4, :7] = 1  # As large a drop as clip 3's, with more frames; clip 1 is guessed wrong.
    assert gallery.clearest([run], store, range(6)) == 3
    assert gallery.clearest([run], store, [0, 5]) == 0  # Of equals the first.
    assert gallery.clearest([run_of(store, wrong=tuple(range(6)))], store, range(6)) == 0


def test_of_clips_without_labels_the_clearest_is_shown_too(store):
    run = run_of(store)
    run.explanations["FS_snapped"][:] = run.explanations["OS"]
    run.explanations["FS_snapped"][4] = 0
    store.labels = np.full(6, -1)
    assert gallery.clearest([run], store, range(6)) == 4


def test_a_twin_is_the_same_weights_in_the_other_framework(store):
    first, other, second = run_of(store), run_of(store, "conv_lstm"), run_of(store)
    other.explanations.header["weights_sha256"] = "1"
    second.explanations.header["framework"] = "tf"
    assert comparison.twins([first, other, second, first]) == [None, None, 0, None]
    second.explanations.columns["mask"][2, 3] += 0.003
    index = gallery.index([first, other, second], store, [2])
    agrees = [numbers["agrees"] for numbers in index["clips"][0]["runs"]]
    assert agrees == [None, None, "probabilities to 0, mask to 3e-3"]


def test_a_run_that_preserves_stands_beside_the_one_that_deletes(store):
    kept, needs, other = run_of(store), run_of(store), run_of(store, "conv_lstm")
    kept.explanations.header["mask"]["game"] = "preserve"
    masks = {**other.explanations.header["mask"], "game": "preserve"}
    other.explanations.header.update(weights_sha256="1", mask=masks)
    assert comparison.partners([kept, needs, other]) == [1, None, None]  # The last has no deletion of its own.
    assert comparison.partners([needs, kept, kept]) == [None, 0, None]  # The first takes the place.
    assert gallery.models([kept, needs, other]) == [(1, "i3d"), (2, "conv_lstm")]
    kept.explanations.header["mask"]["kind"] = "reverse"
    assert comparison.partners([kept, needs]) == [None, None]
