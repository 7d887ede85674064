import errno
import os

import pytest

from common import errors
from common.command_line import evaluate
from common.reporting import report_for_tests
from common.runs import evaluation_file
from common.runs.evaluation_loop import EvaluateSettings

NAMES = ("x", "y", "z")


def test_table_1_is_printed_and_the_confusion_is_in_the_events_of_its_run(tmp_path, capsys):
    results = [{**report_for_tests.evaluation(NAMES), "run": name, "split": "test"} for name in ("a", "b")]
    evaluate.evaluate(EvaluateSettings((tmp_path / "a", tmp_path / "b")), lambda settings: results)
    for name in ("a", "b"):
        (file,) = (tmp_path / name / "events").iterdir()
        assert b"confusion/test_forward" in file.read_bytes()
    printed = capsys.readouterr().out
    assert printed.startswith("Model ") and "\na (reversed) " in printed and "\nb (reversed) " in printed


def result(name):
    return {**report_for_tests.evaluation(NAMES), "run": name, "split": "test"}


def rows(capsys):
    return [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()[1:2] == ["(reversed)"]]


def test_files_may_be_written_elsewhere_and_leave_the_runs_as_they_are(tmp_path):
    runs, out = (tmp_path / "a", tmp_path / "b"), (tmp_path / "new" / "a.json", tmp_path / "new" / "b.json")
    evaluate.evaluate(EvaluateSettings(runs, out=out), lambda settings: [result("a"), result("b")])
    assert [evaluation_file.read(path)["run"] for path in out] == ["a", "b"]
    assert not any(run.exists() for run in runs)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("events", [False, True])
def test_what_cannot_be_written_is_printed_and_other_runs_are_written(tmp_path, capsys, monkeypatch, number, events):
    def fail(path, *_):
        if path.is_relative_to(tmp_path / "a"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *_)

    where, name = (evaluate.event_images, "write_evaluation") if events else (evaluation_file, "write")
    real = getattr(where, name)
    monkeypatch.setattr(where, name, fail)
    runs = (tmp_path / "a", tmp_path / "b")
    with pytest.raises(OSError, match=f"{os.strerror(number)}: '{runs[0]}"):
        evaluate.evaluate(EvaluateSettings(runs), lambda settings: iter([result("a"), result("b")]))
    assert rows(capsys) == ["a", "b"]
    assert (runs[0] / "evaluation.json").exists() == events and (runs[1] / "evaluation.json").exists()


def test_what_was_evaluated_is_kept_where_the_next_run_cannot_be(tmp_path, capsys):
    def evaluate_runs(settings):
        yield result("a")
        raise errors.UserError("no such run")

    with pytest.raises(errors.UserError, match="no such run"):
        evaluate.evaluate(EvaluateSettings((tmp_path / "a", tmp_path / "b")), evaluate_runs)
    assert rows(capsys) == ["a"] and (tmp_path / "a" / "evaluation.json").exists()


def test_a_table_that_cannot_be_printed_is_in_the_file_all_the_same(tmp_path, monkeypatch):
    def fail(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(evaluate.sys.stdout, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        evaluate.evaluate(EvaluateSettings((tmp_path / "a",)), lambda settings: [result("a")])
    assert (tmp_path / "a" / "evaluation.json").exists()
