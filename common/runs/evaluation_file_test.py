import json

import pytest

from common import errors
from common.reporting import report_for_tests
from common.runs import evaluation_file

NAMES = ("left", "right", "wave")


def evaluation():
    return report_for_tests.evaluation(NAMES)


def test_what_is_written_is_read(tmp_path):
    values = {name: value for name, value in evaluation().items() if name != "schema_version"}
    written = evaluation_file.write(tmp_path / "evaluation.json", values)
    assert written == evaluation_file.read(tmp_path / "evaluation.json") == evaluation()


def test_a_class_without_clips_has_no_drop_and_no_cells(tmp_path):
    values = evaluation()
    values["forward"]["per_class"]["left"]["clips"] = 0
    del values["drop"]["per_class"]["left"]
    values["drop"]["top_5"] = None
    evaluation_file.write(tmp_path / "evaluation.json", values)
    read = evaluation_file.read(tmp_path / "evaluation.json")
    assert evaluation_file.class_cells(read) == [
        ("right", 10, 0.8, 0.0, 0.8, 0.0, 1.0),
        ("wave", 10, 0.8, 0.8, 0.8, 0.8, 0.0),
    ]
    assert evaluation_file.table_1_cells(read) == ([0.8] * 4, [0.2] * 4, [0.75, 0.75, 0.75, None])


def change_clips(values):
    values["forward"]["per_class"]["wave"]["clips"] = 1.5


def change_confusion(values):
    values["reversed"]["confusion"].pop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(schema_version=2), "An evaluation must have schema version 1. Received: 2"),
        (lambda values: values.pop("drop"), "Received: Object missing required field `drop` in"),
        (lambda values: values.update(dataset=3), r"Received: Expected `str`, got `int` at `\$.dataset` in"),
        (lambda values: values["forward"].update(top_1=float("nan")), "readable JSON file. Received: .*NaN is no JSON"),
        (
            lambda values: values["forward"].update(per_class=[]),
            r"Expected `object`, got `array` at `\$.forward.per_class` in",
        ),
        (change_clips, r"Expected `int`, got `float` at `\$.forward.per_class\[...\].clips` in"),
        (change_confusion, r"3 rows of 3 counts as reversed/confusion. Received: 2 rows of \[3\] in"),
        (
            lambda values: values["forward"]["confusion"][1].pop(),
            r"as forward/confusion. Received: 3 rows of \[2, 3\] in",
        ),
        (lambda values: values["reversed"]["per_class"].pop("left"), "must have classes, the same .* right, wave in"),
        (
            lambda values: values["drop"]["per_class"].update(left="all"),
            r"Expected `float \| null`, got `str` at `\$.drop.per_class\[...\]` in",
        ),
        (lambda values: values["forward"].update(top_5=True), r"Expected `float`, got `bool` at `\$.forward.top_5` in"),
        (lambda values: values["forward"].update(top_6=0.5), r"Received: unknown field `\$.forward.top_6` in"),
    ],
)
def test_an_evaluation_that_is_none_is_refused(tmp_path, change, message):
    values = evaluation()
    change(values)
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match=message):
        evaluation_file.read(path)


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text("{")
    for name in ("evaluation.json", "nowhere.json"):
        with pytest.raises(errors.UserError, match="An evaluation must be a readable JSON file"):
            evaluation_file.read(tmp_path / name)


def test_a_rise_is_no_drop():
    values = report_for_tests.evaluation(NAMES)
    values["drop"] |= {"top_1": -3.0, "top_5": 0.0}
    values["drop"]["per_class"]["left"] = -3.0
    *_, drop = evaluation_file.table_1_cells(values)
    assert drop[2:] == [None, 0.0]
    assert [row[-1] for row in evaluation_file.class_cells(values)][0] is None
