"""The same evidence from one process, two workers, and two tasks of an array job."""

import pathlib

import pytest

from common import errors, units
from common.explaining import evidence, evidence_file
from common.explaining.evidence_test import Fake, run  # noqa: F401
from common.launching import Launch


def make_explainer(classifier, mask, cam, precision, on_step):
    return Fake(classifier.weights)


def gather(folder, out, launch=None, **values):
    settings = evidence.EvidenceSettings(pathlib.Path(folder), mask_limit=2, out=out, **values)
    return evidence.gather(settings, make_explainer, launch=launch or Launch())


@pytest.fixture
def whole(run, tmp_path):  # noqa: F811
    """The run's folder, a file that is to be made, and the bytes that it must have."""
    evidence_file.write(tmp_path / "whole.json", gather(run.path, None))
    return run.path, tmp_path / "out.json", (tmp_path / "whole.json").read_bytes()


def test_two_workers_find_the_same(whole):
    folder, out, expected = whole
    evidence_file.write(out, gather(folder, out, Launch(2)))
    assert out.read_bytes() == expected
    assert not out.with_name("out.json.parts").exists()


def test_two_tasks_make_the_same_file_and_the_last_one_puts_it_together(whole):
    folder, out, expected = whole
    parts = out.with_name("out.json.parts")
    for _ in range(2):  # Called again, its share is there already.
        with pytest.raises(units.UnfinishedError, match="out.json: 5 of 10 units left to other tasks"):
            gather(folder, out, Launch(num_tasks=2, task=0))
        assert sorted(path.name.rpartition("-")[0] for path in parts.iterdir()) == [
            "curves-blur",
            "curves-freeze",
            "randomization-2",
            "randomization-5",
            "restarts-1",
        ]
    (parts / f".{next(parts.iterdir()).name}.lock").touch()  # Of a task that was killed.
    gather(folder, out, Launch(num_tasks=2, task=1))
    assert out.read_bytes() == expected and not parts.exists()
    found = gather(folder, out, Launch(num_tasks=2, task=0))  # It is there already.
    assert evidence_file.write(out, found) == found and out.read_bytes() == expected


def test_tasks_of_other_settings_share_no_parts_and_replace_nothing(whole):
    folder, out, expected = whole
    with pytest.raises(units.UnfinishedError):
        gather(folder, out, Launch(num_tasks=2), seed=1)
    with pytest.raises(units.UnfinishedError, match="5 of 10"):
        gather(folder, out, Launch(num_tasks=2, task=1))
    gather(folder, out, Launch(num_tasks=2))
    assert out.read_bytes() == expected
    assert len(list(out.with_name("out.json.parts").iterdir())) == 5
    with pytest.raises(errors.UserError, match=r"With --num_tasks, --out must be a new file, .*out.json, which is of"):
        gather(folder, out, Launch(num_tasks=2), seed=1)
    assert out.read_bytes() == expected


def test_a_damaged_part_is_refused(whole):
    folder, out, _ = whole
    with pytest.raises(units.UnfinishedError):
        gather(folder, out, Launch(num_tasks=2, task=1))
    (damaged,) = out.with_name("out.json.parts").glob("restarts-2-*")
    damaged.write_text('{"schema_version": 1, "found": {"mask": 3}}')
    with pytest.raises(errors.UserError, match="A part of evidence must have the fields of its format.*restarts-2-"):
        gather(folder, out, Launch(num_tasks=2))


def test_where_the_explained_loss_is_0_there_is_no_ratio(whole, monkeypatch):
    folder, out, _ = whole
    take = evidence.Explanations.take

    def without_loss(explained, rows):
        taken = take(explained, rows)
        taken.columns["final_loss"][:1] = 0
        return taken

    monkeypatch.setattr(evidence.Explanations, "take", without_loss)
    found = evidence_file.write(out, gather(folder, out))
    assert found["restarts"]["loss"] == [None, pytest.approx(1)] * 3
    assert "loss over its loss 1.000" in evidence.table(evidence_file.read(out))
