import json

import pytest

from common import errors, evidence, report_evidence


def gathered(**changes):
    curve = {order: {"mean": [1.0, 0.5, 0.0], "areas": [0.4, 0.6]} for order in evidence.ORDERS}
    return {
        "schema_version": evidence.SCHEMA_VERSION,
        "run": "mine",
        "model": "i3d",
        "framework": "torch",
        "video_ids": ["a", "b"],
        "curves": {what: {kind: curve for kind in evidence.KINDS} for what in ("deletion", "insertion")},
        "randomization": [{"layers": 1, "from": "Logits", "gradcam": [0.5, None], "mask": []}],
        "restarts": {"starts": 3, "mask": [1.0, 0.5], "loss": [1.0, 1.1]},
        **changes,
    }


def write(tmp_path, values):
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(values))
    return path


def test_tables_hold_means_of_what_is_defined(tmp_path):
    found = report_evidence.read_evidence(write(tmp_path, gathered()))
    areas, randomization, restarts = report_evidence.tables([found])
    assert areas.rows[0][:2] == ("I3D (PyTorch)", "deletion, freeze")
    assert areas.rows[0][2].value == pytest.approx(0.5) and areas.rows[0][2].clips == 2
    assert len(areas.rows) == 2 * len(evidence.KINDS)
    assert randomization.rows[0][2].value == 0.5 and randomization.rows[0][2].clips == 1
    assert randomization.rows[0][3] is None
    assert [cell.value for cell in restarts.rows[0][1:]] == pytest.approx([0.75, 1.05])


def test_charts_name_every_order():
    charts = report_evidence.charts([gathered()])
    assert [title for title, _ in charts][0] == "Deletion by freeze: I3D (PyTorch)"
    assert len(charts) == 2 * len(evidence.KINDS)
    svg = charts[0][1]
    assert all(f">{order}</text>" in svg for order in evidence.ORDERS)
    assert "mask: area 0.500" in svg


def test_no_evidence_is_no_table():
    assert report_evidence.tables([]) == [] and report_evidence.charts([]) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema_version": 9}, "Schema version 1 of evidence is read. Received: 9"),
        ({"schema_version": 1, "run": "x"}, "without \\['curves', 'framework', 'model'"),
        ([], "Schema version 1 of evidence is read. Received: None"),
    ],
)
def test_other_files_are_refused(tmp_path, values, message):
    with pytest.raises(errors.UserError, match=message):
        report_evidence.read_evidence(write(tmp_path, values))
