import json

import pytest

from common import errors
from common.explaining import evidence_file
from common.reporting import report_for_tests


def without_curve():
    values = report_for_tests.gathered()
    del values["curves"]["insertion"]["blur"]
    return values


def test_what_is_written_is_read(tmp_path):
    values = {name: value for name, value in report_for_tests.gathered().items() if name != "schema_version"}
    written = evidence_file.write(tmp_path / "evidence.json", values)
    assert written == evidence_file.read(tmp_path / "evidence.json") == report_for_tests.gathered()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema_version": 9}, "Evidence must have schema version 1. Received: 9"),
        ({"schema_version": 1, "run": "x"}, "Received: Object missing required field `model` in .*evidence.json"),
        ([], "Evidence must be a JSON object. Received: a list"),
        (without_curve(), r"Object missing required field `blur` at `\$.curves.insertion` in"),
        (
            report_for_tests.gathered(restarts={"starts": 3, "mask": [1.0, None], "loss": [1.0]}),
            r"Expected `float`, got `null` at `\$.restarts.mask\[1\]` in",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, values, message):
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match=message):
        evidence_file.read(path)
