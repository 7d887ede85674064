from common.command_line import evaluate
from common.reporting import report_for_tests
from common.runs.evaluation_loop import EvaluateSettings


def test_table_1_is_printed_and_the_confusion_is_in_the_events_of_its_run(tmp_path, capsys):
    results = [{**report_for_tests.evaluation(("x", "y", "z")), "run": name, "split": "test"} for name in ("a", "b")]
    evaluate.evaluate(EvaluateSettings((tmp_path / "a", tmp_path / "b")), lambda settings: results)
    for name in ("a", "b"):
        (file,) = (tmp_path / name / "events").iterdir()
        assert b"confusion/test_forward" in file.read_bytes()
    printed = capsys.readouterr().out
    assert printed.startswith("Model ") and "\na (reversed) " in printed and "\nb (reversed) " in printed
