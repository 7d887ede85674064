import dataclasses
import json
import re

import pytest
from absl import logging

from common import errors
from common.clips import clip_store, tiny_store_for_tests
from common.models import configs
from common.runs import run_directory


@pytest.fixture
def info(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 2})
    return clip_store.read_dataset_json(tmp_path / "clips")


@pytest.fixture
def run(tmp_path, info):
    directory = run_directory.RunDirectory(tmp_path / "run")
    record = run_directory.data_record(info)
    directory.create(run_directory.RunConfig(configs.PRESETS["i3d_kth"], record, "clips", "torch", {"torch": "2"}))
    return directory


def test_config_round_trip(run, info):
    stored = run.read_config()
    assert stored.train == configs.PRESETS["i3d_kth"]
    assert (stored.framework, stored.clips, stored.versions) == ("torch", "clips", {"torch": "2"})
    run_directory.check_data(stored, info)


def test_a_run_before_its_first_weights_cannot_be_used(run):
    with pytest.raises(errors.UserError, match="from the end of its first epoch on.. Received: .*/run without weights"):
        run_directory.open_trained(run, None, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("a", "b")}, r"the class_names that the run was trained with, .*Received: \[\"a\", \"b\"\]"),
        ({"resize": "center_crop"}, 'resize that the run was trained with, "stretch". Received: "center_crop"'),
        ({"subsampling": "released"}, "the subsampling that the run"),
    ],
)
def test_clips_prepared_in_another_way_are_refused(run, info, change, message):
    with pytest.raises(errors.UserError, match=message):
        run_directory.check_data(run.read_config(), dataclasses.replace(info, **change))


def test_what_a_training_logs_is_kept_in_full(run, caplog):
    caplog.set_level("INFO", "absl")
    with run.training():
        logging.info("%d steps", 3)
    logging.info("afterwards")
    assert re.fullmatch(
        r"I\d{4} [\d:.]+ +\d+ run_directory_test.py:\d+\] 3 steps\n", (run.path / "train.log").read_text()
    )


def test_a_log_that_cannot_be_written_ends_nothing(run, tmp_path):
    (run.path / "train.log").symlink_to(tmp_path / "elsewhere")
    with run.training():
        logging.info("3 steps")
    assert not (tmp_path / "elsewhere").exists()


def test_a_config_of_an_earlier_version_is_read(run, info):
    path = run.path / "config.json"
    values = json.loads(path.read_text())
    del values["data"]["digest"], values["train"]["model"]["head"]
    path.write_text(json.dumps(values))
    stored = run.read_config()
    assert stored.train == configs.PRESETS["i3d_kth"]
    run_directory.check_data(stored, info)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["data"].pop("resize"), r"Object missing required field `resize` at `\$.data` in .*config.json"),
        (lambda v: v["data"].update(input_shape=[8, 32]), r"length 3, got 2 at `\$.data.input_shape` in"),
        (lambda v: v.update(clips=3), r"Expected `str`, got `int` at `\$.clips` in"),
        (lambda v: v.update(more=3), r"unknown field `\$.more` in"),
        (lambda v: v["train"].update(seed=-1), "seed must be 0…9223372036854775807. Received: -1 in .*config.json"),
        (lambda v: v["train"]["model"].update(width="1"), r"got `str` at `\$.train.model.width` in .*config.json"),
    ],
)
def test_a_config_that_is_not_as_the_format_says_is_refused(run, change, message):
    path = run.path / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match=message):
        run.read_config()


def test_a_folder_whose_name_is_no_unicode_has_a_name(tmp_path):
    assert run_directory.RunDirectory(tmp_path / "a\udcff").name == r"a\xff"


def line(epoch):
    scores = (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_top_1",
        "learning_rate",
        "clips_per_second",
    )
    return {"epoch": epoch, "step": 3 * epoch, **dict.fromkeys(scores, 0.5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Line 2 of a run's log.jsonl must be a readable JSON file. Received: .*log.jsonl: "),
        ("[]", "Line 2 of a run's log.jsonl must be a JSON object. Received: a list"),
        (json.dumps({**line(2), "epoch": "2"}), r"Line 2 .* Expected `int`, got `str` at `\$.epoch` in .*log.jsonl"),
        (json.dumps({**line(2), "train_loss": float("nan")}), "Line 2 .*: NaN is no JSON"),
    ],
)
def test_a_log_line_that_is_none_is_refused(run, text, message):
    run.append_log(line(1))
    with run.log.open("a") as file:
        file.write(text + "\n")
    with pytest.raises(errors.UserError, match=message):
        run.read_log()


def test_log_lines_that_are_not_there_are_missed(run, caplog):
    for epoch in (1, 3, 4):
        run.append_log(line(epoch))
    with caplog.at_level("WARNING", logger="absl"):
        run.trim_log(4)
    assert "log.jsonl lacks the lines of 1 of 4 epochs." in caplog.text
    assert [line["epoch"] for line in run.read_log()] == [1, 3, 4]


def test_a_log_line_that_a_kill_cut_short_is_dropped_and_the_log_is_trimmed(run):
    for epoch in (1, 2, 3):
        run.append_log(line(epoch))
    with run.log.open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert [line["epoch"] for line in run.read_log()] == [1, 2, 3]
    run.trim_log(2)
    run.append_log(line(3))
    assert [line["epoch"] for line in run.read_log()] == [1, 2, 3]


def test_no_run_another_version_and_missing_fields_are_refused(run, tmp_path):
    for path, came in ((tmp_path / "none", "which is no folder"), (tmp_path, "without it")):
        with pytest.raises(errors.UserError, match=rf"\(train.py makes runs, .*\. Received: {path}, {came}$"):
            run_directory.RunDirectory(path).read_config()
    path = run.path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "schema_version": 9}))
    with pytest.raises(errors.UserError, match="config.json must have schema version 1. Received: 9 in .*config.json"):
        run.read_config()
    path.write_text(json.dumps({**values, "train": {}}))
    with pytest.raises(errors.UserError, match="A training config must have a model config as `model`. Received: None"):
        run.read_config()
    del values["framework"]
    path.write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match="Object missing required field `framework` in .*config.json"):
        run.read_config()
