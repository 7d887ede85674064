"""Every command but `prepare`, killed before operations on files, or with a disk that fails from there on.

Then the command is called again, and must end with the files of a call that nothing happened to, and with no others.
"""

import errno
import json
import pathlib
import shutil
import signal

import pytest

from common.clips import tiny_store_for_tests
from common.command_line import evaluate, evidence, explain, explain_video, faults_for_tests
from common.explaining import evidence_test, explanation_loop
from common.explaining.evidence import EvidenceSettings
from common.explaining.explainer import Build
from common.explaining.explanation_loop import ExplainSettings
from common.models import canonical_weights, configs, initial_weights
from common.reporting import building, report_for_tests
from common.runs import training_loop, training_loop_test
from common.runs.evaluation_loop import EvaluateSettings
from common.runs.run_directory import RunConfig, RunDirectory, data_record
from data_prep import loose_clips, videos_for_tests

NAMES = ("x", "y", "z")
MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=2, filters=2)


def train_command(folder):
    config = training_loop_test.CONFIG
    settings = training_loop.TrainSettings(folder / "clips", folder / "run", resume=True)
    training_loop.train(config, settings, training_loop_test.NumpyTrainer)


def evaluate_command(folder):
    runs = (folder / "run", folder / "other")
    results = [{**report_for_tests.evaluation(NAMES), "run": run.name, "split": "test"} for run in runs]
    evaluate.evaluate(EvaluateSettings(runs, out=(folder / "new" / "a.json", folder / "b.json")), lambda _: results)


def explain_command(folder):
    def explain_run(settings):
        return explanation_loop.explain(settings, lambda trained, *_: evidence_test.Fake(trained.weights))

    explain.explain(ExplainSettings(folder / "run", batch_size=3, out=folder / "new" / "masks.h5"), explain_run)


def video_command(folder):
    def build():
        return Build(lambda trained, *_: evidence_test.Fake(trained.weights))

    settings = ExplainSettings(folder / "run", out=folder / "explained")
    explain_video.explain(settings, [folder / "videos"], ("delete",), loose_clips, build)


def evidence_command(folder):
    evidence.gather(EvidenceSettings(folder / "run"), lambda _: report_for_tests.gathered())


def report_command(folder):
    building.build(building.ReportSettings(folder / "report", evaluations=(folder / "evaluation.json",)))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store, a run on it that has weights, and an evaluation."""
    folder = tmp_path_factory.mktemp("faults")
    info = tiny_store_for_tests.write_tiny_store(folder / "clips", clips={"train": 4, "validation": 7})
    (folder / "evaluation.json").write_text(json.dumps(report_for_tests.evaluation(NAMES)))
    return folder, info


def with_run(template, tmp_path):
    folder, info = template
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "template"))
    run = RunDirectory(copy / "run")
    run.create(RunConfig(configs.TrainConfig(MODEL, "sgd", 1), data_record(info), "../clips", "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(MODEL, 0), MODEL)
    return copy


def try_all(function, template, tmp_path, fault, steps):
    step = steps[fault != "kill"]
    work = tmp_path / "work"
    work.mkdir()
    outcomes, whole = faults_for_tests.outcomes(function, template, work, fault, step)
    expected = faults_for_tests.contents(whole)
    for outcome in outcomes:
        if fault == "kill":
            assert outcome.code == -signal.SIGKILL
        else:
            lines = outcome.stderr.splitlines()
            assert outcome.code == 2 and "Traceback" not in outcome.stderr, (outcome.number, outcome.stderr)
            assert lines[-1].startswith("error: ") and sum(line.startswith("error: ") for line in lines) == 1
        assert outcome.again == 0, (outcome.number, outcome.again_stderr)
        found = faults_for_tests.contents(outcome.folder)
        assert found.keys() == expected.keys(), (outcome.number, found.keys() ^ expected.keys())
        different = [name for name in expected if found[name] != expected[name]]
        assert not different, (outcome.number, different)
    return outcomes


@pytest.mark.parametrize("fault", ("kill", errno.ENOSPC))
def test_train(template, tmp_path, fault):
    outcomes = try_all(train_command, template[0], tmp_path, fault, (2, 5))
    assert len(outcomes) >= 5


@pytest.mark.parametrize("fault", ("kill", errno.ENOSPC))
def test_explain(template, tmp_path, fault):
    outcomes = try_all(explain_command, with_run(template, tmp_path), tmp_path, fault, (1, 4))
    assert len(outcomes) >= 5


@pytest.mark.parametrize("fault", (pytest.param("kill", marks=pytest.mark.slow), errno.ENOSPC))
def test_explain_video(template, tmp_path, fault):
    """The folder of a video is there whole or not at all, also where it replaces an earlier one."""
    copy = with_run(template, tmp_path)
    videos_for_tests.film(copy / "videos" / "a.avi", 9)
    if fault == "kill":
        video_command(copy)
        (copy / "explained" / "a" / "tables" / "table_9.csv").touch()  # The earlier one had a table more.
    outcomes = try_all(video_command, copy, tmp_path, fault, (5, 11))
    assert len(outcomes) >= 3


@pytest.mark.parametrize("fault", ("kill", errno.ENOSPC))
def test_evaluate(template, tmp_path, fault):
    for outcome in try_all(evaluate_command, template[0], tmp_path, fault, (1, 1)):
        assert fault == "kill" or ("run (reversed)" in outcome.stdout and "other (reversed)" in outcome.stdout)


@pytest.mark.parametrize("fault", ("kill", errno.ENOSPC))
def test_evidence(template, tmp_path, fault):
    for outcome in try_all(evidence_command, template[0], tmp_path, fault, (1, 1)):
        assert fault == "kill" or "area under the curve" in outcome.stdout


@pytest.mark.parametrize("fault", ("kill", errno.ENOSPC))
def test_report(template, tmp_path, fault):
    outcomes = try_all(report_command, template[0], tmp_path, fault, (3, 6))
    assert len(outcomes) >= 5


def test_a_report_over_an_earlier_one(template, tmp_path):
    copy = pathlib.Path(shutil.copytree(template[0], tmp_path / "template"))
    report_command(copy)
    (copy / "report" / "tables" / "table_9.csv").touch()  # The earlier one had a table more.
    outcomes = try_all(report_command, copy, tmp_path, "kill", (3, 0))
    assert not any((outcome.folder / "report" / "tables" / "table_9.csv").exists() for outcome in outcomes)
