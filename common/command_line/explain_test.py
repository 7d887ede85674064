import errno
import os

import pytest

from common.command_line import explain
from common.explaining import explanations
from common.explaining.explanation_loop import ExplainSettings
from common.reporting import report_for_tests
from common.reporting.building import ReportSettings


@pytest.fixture
def explain_run(tmp_path):
    """What a build's `explain` does: makes the file if it is not there."""
    store = report_for_tests.write_store(tmp_path / "clips", ("x", "y"), 3)
    explained = report_for_tests.explain(store, "mine", "i3d")

    def made(settings):
        settings.model.mkdir(exist_ok=True)
        explanations.write(settings.path, explained)
        return explained, store

    return made


def test_events_are_written_when_the_runs_own_file_is_made(tmp_path, explain_run, capsys):
    settings = ExplainSettings(tmp_path / "run")
    for _ in range(2):  # The second time the file is there already.
        explain.explain(settings, explain_run)
    assert sorted(path.name for path in settings.model.iterdir()) == ["events", "explanations.h5"]
    (file,) = (settings.model / "events").iterdir()
    assert b"explained_by_" in file.read_bytes()
    assert "mine" in capsys.readouterr().out


def test_a_file_elsewhere_leaves_no_events_in_the_run(tmp_path, explain_run):
    explain.explain(ExplainSettings(tmp_path / "run", out=tmp_path / "other.h5"), explain_run)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_report_is_made_where_it_is_asked_for(tmp_path, explain_run, capsys, monkeypatch, evaluated):
    asked = []
    monkeypatch.setattr(
        explain.building, "build", lambda settings: asked.append(settings) or settings.out / "index.html"
    )
    run = tmp_path / "run"
    run.mkdir()
    evaluation = run / "evaluation.json"
    if evaluated:
        evaluation.touch()
    explain.explain(ExplainSettings(run), explain_run, report=tmp_path / "report")
    assert capsys.readouterr().out.endswith(f"\n{tmp_path / 'report' / 'index.html'}\n")
    files = (tmp_path / "report", (run / "explanations.h5",), (evaluation,) if evaluated else ())
    assert asked == [ReportSettings(*files, clips=tmp_path / "clips")]


def test_statistics_are_printed_though_events_cannot_be_written(tmp_path, explain_run, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(explain.event_images, "write_explanations", fail)
    with pytest.raises(OSError, match="No space left"):
        explain.explain(ExplainSettings(tmp_path / "run"), explain_run)
    assert "mine" in capsys.readouterr().out
