import dataclasses
import pathlib

import numpy as np
import pytest

from common import errors
from common.clips import clip_store, tiny_store_for_tests
from common.models import canonical_weights, configs, foreign, initial_weights
from common.runs import evaluation_loop, prediction, processes_test
from common.runs.run_directory import RunConfig, RunDirectory, data_record

MODEL = configs.ConvLSTMConfig(2, (8, 32, 32), num_layers=1, filters=1)


@pytest.fixture
def run(tmp_path):
    """A run over six clips whose first frame is black for class 1, and whose last frame is black for class 0."""
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 6, "test": 2}, num_classes=2)
    info = clip_store.read_dataset_json(tmp_path / "clips")
    directory = RunDirectory(tmp_path / "run")
    train = configs.TrainConfig(MODEL, "sgd", epochs=1)
    directory.create(RunConfig(train, data_record(info), str(tmp_path / "clips"), "torch", {}))
    canonical_weights.save(directory.weights, initial_weights.initial_weights(MODEL, 0), MODEL)
    return directory


def moving_right(_trained):
    """Guesses class 1 (one px a frame to the right) where the bright square moved right; class 0 stands still."""

    def predict(frames):
        columns = (frames[..., 0] == 255).any(axis=2)  # [N, T, W]
        shift = np.array([[np.roll(clip[0], t).tolist() == clip[t].tolist() for t in (1, 2)] for clip in columns])
        return np.stack([np.zeros(len(frames)), np.where(shift.all(axis=1), 5.0, -5.0)], axis=1)

    return predict


def evaluate(run, **settings):
    settings = evaluation_loop.EvaluateSettings((run.path,), **settings)
    return list(evaluation_loop.evaluate(settings, moving_right, "numpy"))


def test_table_1_alone(run):
    assert len(evaluation_loop.table_1(evaluate(run), brief=True).splitlines()) == 4


def test_forward_and_reversed_scores_and_the_drop(run):
    (result,) = evaluate(run)
    assert result["forward"]["top_1"] == 1.0 and result["reversed"]["top_1"] == 0.5
    assert result["drop"]["top_1"] == pytest.approx(0.5)
    assert result["drop"]["per_class"] == {"class 0": 0.0, "class 1": 1.0}
    assert (result["trained_with"], result["framework"]) == ("torch", "numpy")


def test_a_run_has_its_folders_name_however_it_is_spelled(run, monkeypatch):
    monkeypatch.chdir(run.path)
    settings = evaluation_loop.EvaluateSettings((pathlib.Path("."),))
    (result,) = evaluation_loop.evaluate(settings, moving_right, "numpy")
    assert result["run"] == "run"


def test_reversed_clips_lie_in_memory_as_others_do(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path, clips={"validation": 2}, shape=(1, 32, 32))
    strides = []

    def predict(frames):
        strides.append(frames.strides)
        return np.zeros((len(frames), 3))

    for orders in (None, np.array([[0], [0]])):
        prediction.predict(predict, clip_store.ClipStore(tmp_path, "validation"), batch_size=2, orders=orders)
    assert strides[0] == strides[1]


def test_table_1_shows_both_rows_and_every_class(run):
    table = evaluation_loop.table_1(evaluate(run)).splitlines()
    assert table[1].split() == ["run", "1.000", "1.000", "1.000", "1.000"]
    assert table[2].split()[:2] == ["run", "(reversed)"]
    assert table[3].split()[:5] == ["drop", "by", "reversal", "67", "%"]
    assert [line.split() for line in table[-2:]] == [
        ["class", "0", "3", "1.000", "1.000", "0", "%"],
        ["class", "1", "3", "1.000", "0.000", "100", "%"],
    ]


def test_weights_of_another_model_than_the_config_are_refused(run):
    other = configs.ConvLSTMConfig(2, (8, 32, 32), num_layers=1, filters=2)
    canonical_weights.save(run.weights, initial_weights.initial_weights(other, 0), other)
    with pytest.raises(errors.UserError, match="must hold the model of config.json"):
        evaluate(run)


def test_labels_are_found_by_the_names_of_classes_and_what_has_none_is_refused(run, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"validation": 6}, num_classes=3)
    with pytest.raises(
        errors.UserError,
        match="with classes of the model. Received: 2 clips of 6 without such a label, in validation of .*other",
    ):
        evaluate(run, clips=tmp_path / "other")
    tiny_store_for_tests.write_tiny_store(tmp_path / "same", clips={"validation": 6}, num_classes=2)
    info = clip_store.read_dataset_json(tmp_path / "same")
    renamed = dataclasses.replace(info, class_names=("class 1", "class 0"))
    clip_store.write_dataset_json(tmp_path / "same", renamed)
    (result,) = evaluate(run, clips=tmp_path / "same")
    assert result["forward"]["top_1"] == 0.0  # Every label is the other class's now.


def test_runs_are_evaluated_one_by_one_as_they_are_asked_for(run, tmp_path):
    settings = evaluation_loop.EvaluateSettings((run.path, tmp_path / "no run"))
    results = evaluation_loop.evaluate(settings, moving_right, "numpy")
    assert next(results)["run"] == "run"
    with pytest.raises(errors.UserError, match="A run directory must hold config.json"):
        next(results)


def test_each_run_has_a_file_of_its_own(tmp_path):
    runs = (tmp_path / "a", tmp_path / "b")
    assert evaluation_loop.EvaluateSettings(runs).paths == (runs[0] / "evaluation.json", runs[1] / "evaluation.json")
    out = (tmp_path / "a.json", tmp_path / "b.json")
    assert evaluation_loop.EvaluateSettings(runs, out=out).paths == out
    for wrong in (out[:1], (*out, tmp_path / "c.json"), (*out, out[0]), (out[0], tmp_path / "." / "a.json")):
        with pytest.raises(errors.UserError, match="--out must name one file for each model, all different"):
            evaluation_loop.EvaluateSettings(runs, out=wrong)
    of_one_name = foreign.Spec("transformers", "lab/base"), foreign.Spec("transformers", "other/base")
    file = "models/base/evaluation.json"
    with pytest.raises(errors.UserError, match=f"all different. Received: {file}, {file} for 2 models"):
        evaluation_loop.EvaluateSettings(of_one_name)
    evaluation_loop.EvaluateSettings(of_one_name, out=out)


def test_processes_that_would_evaluate_other_things_are_refused(run, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "others", clips={"validation": 7}, num_classes=2)
    others = {
        "clips": {"clips": tmp_path / "others"},
        "--batch_size": {"batch_size": 2},
        "--order_card": {"order_card": True},
        "number of models": {"models": (run.path, tmp_path / "another")},
    }
    for name, values in others.items():

        def evaluate_in(those, values=values, name=name):
            given = {"models": (run.path,), **(values if those.rank else {})}
            settings = evaluation_loop.EvaluateSettings(**given)
            with pytest.raises(errors.UserError, match=f"must have the same {name}. Received: another in process 1"):
                list(evaluation_loop.evaluate(settings, moving_right, "numpy", processes=those))

        processes_test.together(2, evaluate_in)


def test_the_first_of_two_processes_has_what_one_finds(run):
    settings = evaluation_loop.EvaluateSettings((run.path,), batch_size=2)
    found = processes_test.together(
        2, lambda those: list(evaluation_loop.evaluate(settings, moving_right, "numpy", processes=those))
    )
    assert found == [evaluate(run, batch_size=2), [None]]
