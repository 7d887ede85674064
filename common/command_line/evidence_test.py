import errno
import os

import pytest

from common.command_line import evidence
from common.explaining import evidence_file
from common.explaining.evidence import EvidenceSettings
from common.reporting import report_for_tests


def test_evidence_is_printed_and_written_beside_the_explanations_or_elsewhere(tmp_path, capsys):
    gathered = report_for_tests.gathered()
    for settings in (
        EvidenceSettings(tmp_path),
        EvidenceSettings(tmp_path / "run", explanations=tmp_path / "a" / "b.h5"),
        EvidenceSettings(tmp_path / "run", out=tmp_path / "new" / "e.json"),
    ):
        evidence.gather(settings, lambda settings: gathered)
    for path in ("evidence.json", "a/evidence.json", "new/e.json"):
        assert evidence_file.read(tmp_path / path) == gathered
    assert capsys.readouterr().out.count("mine: area under the curve") == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("failing", ["print", "write"])
def test_of_printing_and_writing_one_is_done_where_the_other_fails(tmp_path, capsys, monkeypatch, number, failing):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    where, name = (evidence.sys.stdout, "write") if failing == "print" else (evidence_file, "write")
    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(number)):
        patch.setattr(where, name, fail)
        evidence.gather(EvidenceSettings(tmp_path), lambda settings: report_for_tests.gathered())
    assert (tmp_path / "evidence.json").exists() == (failing == "print")
    assert ("mine: area" in capsys.readouterr().out) == (failing == "write")
