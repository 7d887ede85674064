import io

from common import progress


def test_a_log_file_gets_few_lines_and_values_are_passed_on(monkeypatch):
    log = io.StringIO()  # No terminal.
    monkeypatch.setattr("sys.stderr", log)
    with progress.bar(range(3), desc="working", unit="clip") as bar:
        assert list(bar) == [0, 1, 2]
        assert bar.mininterval == 30.0 and bar.dynamic_ncols
    assert "working: 100%" in log.getvalue() and log.getvalue().count("working") <= 3
