import dataclasses
import re

import numpy as np
import pytest

from common import errors
from common.clips import clip_store, tiny_store_for_tests
from common.explaining import explanation_loop, explanations, mask_search
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanation_loop_for_tests import MASK, MODEL, NumpyExplainer, explain, seven_clips, write_run
from common.explaining.gradcam_maps import GradCamConfig
from common.runs.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    return seven_clips(tmp_path)


def chosen(run, **settings):
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    return explanation_loop.choose_clips(store, ExplainSettings(run.path, **settings)).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Labels are 0, 1, 2, 0, unknown, 2, 0.
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"limit": 3}, [0, 1, 2]),
        ({"limit": 100}, [0, 1, 2, 3, 4, 5, 6]),
        ({"limit_per_class": 1}, [0, 1, 2, 4]),
        ({"limit_per_class": 2, "limit": 4}, [0, 1, 2, 3]),
        ({"video_ids": ("validation5", "validation0", "validation5")}, [0, 5]),
        ({"classes": ("class 2",)}, [2, 5]),
        ({"classes": ("2", "class 1")}, [1, 2, 5]),
        ({"classes": ("0",), "limit_per_class": 2}, [0, 3]),
        ({"classes": ("0",), "video_ids": ("validation3", "validation5")}, [3]),
        ({"classes": ("0",), "target": "label"}, [0, 3, 6]),
    ],
)
def test_clips_are_chosen_in_the_stores_order(run, settings, expected):
    assert chosen(run, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video_ids": ("validation0", "train0", "x")}, "clips in validation. Received: train0, x"),
        ({"classes": ("class 0", "wave")}, "names, or numbers below 3. Received: 'wave'"),
        ({"classes": ("3",)}, "names, or numbers below 3. Received: '3'"),
        ({"classes": ("-1",)}, "names, or numbers below 3. Received: '-1'"),
        ({"classes": ("0",), "video_ids": ("validation1",)}, "At least one clip .* none of 7 in validation"),
        ({"target": "label"}, "With target=label all clips must be labelled"),
        ({"target": "logit"}, "target must be one of guess, label. Received: 'logit'"),
        ({"limit": -1}, "must be at least 0. Received: -1, 0, 0"),
        ({"limit_per_class": -1}, "must be at least 0. Received: 0, -1, 0"),
        ({"batch_size": -1}, "must be at least 0. Received: 0, 0, -1"),
    ],
)
def test_other_choices_are_refused(run, settings, message):
    with pytest.raises(errors.UserError, match=message):
        chosen(run, **settings)


def test_a_class_whose_name_is_a_number_is_found_by_its_name(run):
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    store.info = dataclasses.replace(store.info, class_names=("2", "1", "0"))
    found = explanation_loop.choose_clips(store, ExplainSettings(run.path, classes=("2",)))
    assert found.tolist() == [0, 3, 6]


def test_a_split_without_clips_is_refused(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 2, "validation": 0})
    with pytest.raises(errors.UserError, match="At least one clip must be chosen. Received: none of 0"):
        explain(write_run(tmp_path, MODEL))


def test_the_file_holds_every_column_and_the_whole_header(run):
    found, _ = explain(run, gradcam=GradCamConfig(weights="clip"), precision="bfloat16", limit=6)
    stored = explanations.read(run.path / "explanations.h5")
    assert stored.header == found.header
    assert set(stored.columns) == set(explanations.COLUMNS)
    for name, column in explanations.COLUMNS.items():
        np.testing.assert_array_equal(stored[name], found[name], err_msg=name)
        assert stored[name].dtype == column.dtype, name
    assert list(stored["video_id"]) == [f"validation{i}" for i in range(6)]
    assert len(stored.header.pop("weights_sha256")) == 64
    assert stored.header == {
        "schema_version": 2,
        "run": "run",
        "model": "conv_lstm",
        "dataset": "tiny",
        "clips": "../clips",
        "clips_digest": clip_store.read_dataset_json(run.path.parent / "clips").digest,
        "split": "validation",
        "class_names": ["class 0", "class 1", "class 2"],
        "clip_shape": [8, 32, 32],
        "target": "guess",
        "mask": dataclasses.asdict(MASK),
        "gradcam": {"endpoint": "", "weights": "clip", "score": "logit", "time": "repeat"},
        "precision": "bfloat16",
        "framework": "numpy",
        "versions": {"numpy": np.__version__},
    }


@pytest.mark.parametrize("oracle", ["full", "coarse"])
def test_how_good_the_coarse_oracle_would_have_been_is_told_once_for_all_parts(run, caplog, oracle):
    caplog.set_level("INFO", "absl")
    explain(run, batch_size=2, mask=dataclasses.replace(MASK, oracle=oracle))
    told = [message for message in caplog.messages if message.startswith("--oracle=coarse would find")]
    assert len(told) == (oracle == "full")
    if told:
        assert re.fullmatch(r".* the best interval of \d of 7 clips, trying \d+ of 36 on average\.", told[0])


def test_methods_that_are_asked_for_answer_for_each_clip(run):
    found, _ = explain(run, batch_size=3, methods=("shapley", "centred", "occlusion"), evaluations=256)
    names = ["centred", "occlusion", "shapley"]
    assert found.header["methods"] == {"names": names, "evaluations": 256, "steps": 32, "seed": 0}
    assert set(explanations.read(run.path / "explanations.h5").columns) == {
        *explanations.COLUMNS,
        *(f"attribution_{name}" for name in names),
    }
    # What a frame weighs, by its brightness; its eighth of the clip.
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    weights = store.read(range(7)).mean((2, 3, 4)) / 255 / 8
    weights[:, 0] = 0  # Frame 0 cannot freeze.
    for name in ("occlusion", "shapley"):
        assert found[f"attribution_{name}"].dtype == np.float32
        np.testing.assert_allclose(found[f"attribution_{name}"], weights, atol=1e-6)
    assert found["attribution_centred"][0].tolist() == [-3.5, -2.5, -1.5, -0.5, -0.5, -1.5, -2.5, -3.5]


def test_unknown_methods_are_refused(run):
    with pytest.raises(errors.UserError, match="methods must be one of occlusion, .* Received: 'lime'"):
        explain(run, methods=("lime",))


def test_each_row_is_what_the_explainer_says_of_its_clip(run):
    found, explainer = explain(run, batch_size=3)
    assert explainer.calls == [3, 3, 1]
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    alone = NumpyExplainer(lambda clips: None)
    for row in range(7):
        frames = store.read([row])
        guess = alone.probabilities(frames).argmax(1)
        scorer = alone.scorer(frames, guess)
        oracle = mask_search.best_intervals(scorer, MASK)
        learnt = mask_search.learn_masks(scorer, MASK, oracle)
        assert (found["label"][row], found["prediction"][row]) == (store.labels[row], guess[0])
        for name, expected in (
            ("probabilities", alone.probabilities(frames)),
            ("mask", learnt.masks),
            ("mask_snapped", learnt.masks > 0.5),
            ("loss", learnt.losses),
            ("final_loss", learnt.final_loss),
            ("oracle_interval", oracle.intervals),
            ("oracle_loss", oracle.losses),
            ("gradcam", alone.gradcam(frames, guess)),
            *learnt.scores.items(),
        ):
            np.testing.assert_array_equal(found[name][row], expected[0].astype(found[name].dtype), err_msg=name)


def test_the_true_class_has_a_score_where_the_guess_is_another(run):
    found, _ = explain(run)
    assert found["label"].tolist() == [0, 1, 2, 0, -1, 2, 0]
    np.testing.assert_array_equal(found["target"], found["prediction"])
    known = found["label"] >= 0
    right = found["label"] == found["prediction"]
    assert 0 < right.sum() < known.sum()  # Otherwise one of the two is not tested.
    expected = np.where(known & ~right, np.array([0.125, 0.25, 0.25])[found["label"]], np.nan)
    np.testing.assert_array_equal(found["CS"], expected)


def test_the_label_may_be_the_target(run):
    found, _ = explain(run, target="label", limit=4)
    assert found["target"].tolist() == found["label"].tolist() == [0, 1, 2, 0]
    assert found["prediction"].tolist() != found["target"].tolist()
    # The fake's losses tell which target it was given.
    np.testing.assert_array_equal(found["loss"], np.repeat(found["target"][:, None] / 4, 4, axis=1))


def test_clips_that_were_prepared_otherwise_are_refused(run, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"validation": 2}, shape=(8, 32, 40))
    with pytest.raises(errors.UserError, match=r"input_shape .* \[8, 32, 32\]. Received: \[8, 32, 40\]"):
        explain(run, clips=tmp_path / "other")
    assert not (run.path / "explanations.h5.parts").exists()


def test_clips_of_other_classes_are_explained_with_the_labels_that_the_model_knows(run, tmp_path, caplog):
    tiny_store_for_tests.write_tiny_store(tmp_path / "more", clips={"validation": 4}, num_classes=4)
    with caplog.at_level("INFO", logger="absl"):
        found, _ = explain(run, clips=tmp_path / "more")
    assert found["label"].tolist() == [0, 1, 2, -1] and found.header["class_names"] == ["class 0", "class 1", "class 2"]
    assert "has other classes" in caplog.text and "3 clips of 4 have one of its" in caplog.text
    with pytest.raises(errors.UserError, match="With target=label all clips must be labelled"):
        explain(run, clips=tmp_path / "more", target="label", out=tmp_path / "other.h5")


def test_other_clips_that_fit_are_explained(run, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"test": 2}, seed=1)
    found, _ = explain(run, clips=tmp_path / "other", split="test")
    assert list(found["video_id"]) == ["test0", "test1"]
    assert (found.header["clips"], found.header["split"]) == ("../other", "test")


def test_weights_of_another_model_than_the_runs_are_refused(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 2})
    run = write_run(tmp_path, dataclasses.replace(MODEL, num_classes=4))
    with pytest.raises(errors.UserError, match="must hold the model of config.json. Received: .*'num_classes': 4"):
        explain(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="A run directory must hold config.json"):
        explain(RunDirectory(tmp_path))
