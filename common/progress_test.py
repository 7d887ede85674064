import io
import re

from common import progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def log_file(monkeypatch):
    stream = io.StringIO()  # No terminal.
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def test_a_log_file_gets_one_line_of_a_short_job(monkeypatch):
    log = log_file(monkeypatch)
    with progress.bar(range(3), desc="working", unit="clip") as bar:
        bar.set_description("still working")  # Which ends with a colon then.
        assert list(bar) == [0, 1, 2]
    assert re.fullmatch(r"still working: 100% 3/3 \[\d\d:\d\d<00:00, .*\]\n", log.getvalue())


def test_a_log_file_gets_a_line_every_half_minute_however_often_it_is_drawn(monkeypatch):
    log, clock = log_file(monkeypatch), Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    with progress.bar(total=100, desc="working", bar_format="{desc}|{bar}| {n:.0f} of {total}") as bar:
        for done in range(1, 101):
            clock.now += 1
            bar.n = done
            bar.refresh()
            bar.clear()  # Of a bar, before a line is logged.
    assert log.getvalue().splitlines() == [f"working {done} of 100" for done in (30, 60, 90, 100)]


def test_the_end_is_told_once(monkeypatch):
    log, clock = log_file(monkeypatch), Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    with progress.bar(total=1, desc="working", bar_format="{desc} {n:.0f} of {total}") as bar:
        clock.now += 40
        bar.update()
        bar.refresh()
    assert log.getvalue() == "working 1 of 1\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    log = log_file(monkeypatch)
    monkeypatch.setattr(log, "isatty", lambda: True)
    with progress.bar(range(3), desc="working", ncols=60) as bar:
        assert list(bar) == [0, 1, 2]
    assert "\rworking: 100%|" in log.getvalue()


def test_a_job_without_a_bar_says_nothing(monkeypatch):
    log = log_file(monkeypatch)
    assert list(progress.bar(range(3), desc="", disable=True)) == [0, 1, 2]
    assert not log.getvalue()
