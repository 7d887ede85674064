import pytest

from common.runs import contention


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Returns a function: seconds that pass, and of them waiting for a core."""
    now = {"at": 100.0, "waited": 3.0}
    schedstat = tmp_path / "schedstat"

    def pass_time(seconds, waiting):
        now["at"] += seconds
        now["waited"] += waiting
        schedstat.write_text(f"123456 {int(now['waited'] * 1e9)} 17\n")

    pass_time(0, 0)
    monkeypatch.setattr(contention, "_SCHEDSTAT", schedstat)
    monkeypatch.setattr(contention.time, "monotonic", lambda: now["at"])
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return pass_time


def steps(watch, clock, number, waiting):
    for _ in range(number):
        clock(1.0, waiting)
        watch.after_step()


def test_waiting_for_cores_is_told_once_with_what_helps(clock, caplog):
    watch = contention.Watch("torch")
    steps(watch, clock, 20, waiting=0.25)
    assert not caplog.text
    steps(watch, clock, 9, waiting=0.5)
    assert not caplog.text
    steps(watch, clock, 30, waiting=0.5)
    assert len(caplog.records) == 1
    assert "50 % of the time of ten steps" in caplog.text and "OMP_WAIT_POLICY=passive" in caplog.text


@pytest.mark.parametrize(
    ("framework", "environment"),
    [("tf", {}), ("torch", {"OMP_WAIT_POLICY": "PASSIVE"}), ("torch", {"OMP_NUM_THREADS": "1"})],
)
def test_nothing_is_told_where_it_would_not_help(clock, caplog, monkeypatch, framework, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    steps(contention.Watch(framework), clock, 30, waiting=0.9)
    assert not caplog.text


def test_systems_that_do_not_count_are_left_alone(clock, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(contention, "_SCHEDSTAT", tmp_path / "none")
    steps(contention.Watch("torch"), clock, 30, waiting=0.9)
    assert not caplog.text
