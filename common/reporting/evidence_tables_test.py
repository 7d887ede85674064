import pytest

from common.explaining import evidence_file
from common.reporting import evidence_tables, report_for_tests


def test_tables_hold_means_of_what_is_defined():
    found = report_for_tests.gathered()
    areas, randomization, restarts = evidence_tables.tables([found])
    assert areas.rows[0][:2] == ("I3D (PyTorch)", "deletion, freeze")
    assert areas.rows[0][2].value == pytest.approx(0.5) and areas.rows[0][2].clips == 2
    assert len(areas.rows) == 2 * len(evidence_file.KINDS)
    assert randomization.rows[0][2].value == 0.5 and randomization.rows[0][2].clips == 1
    assert len(randomization.columns) == len(randomization.rows[0]) == 3  # No mask was searched.
    assert [cell.value for cell in restarts.rows[0][1:]] == pytest.approx([0.75, 1.05])


def test_what_was_not_gathered_has_no_table():
    found = report_for_tests.gathered(restarts={"starts": 3, "mask": [], "loss": []})
    assert [table.name for table in evidence_tables.tables([found])] == ["evidence_curves", "evidence_randomization"]


def test_charts_name_every_order():
    charts = evidence_tables.line_charts([report_for_tests.gathered()])
    assert [title for title, _ in charts][0] == "Deletion by freeze: I3D (PyTorch)"
    assert len(charts) == 2 * len(evidence_file.KINDS)
    svg = charts[0][1]
    assert all(f">{order}</text>" in svg for order in evidence_file.ORDERS)
    assert "mask: area 0.500" in svg


def test_no_evidence_is_no_table():
    assert evidence_tables.tables([]) == [] and evidence_tables.line_charts([]) == []
