import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common import errors
from common.clips import tiny_store_for_tests
from common.models import canonical_weights as files
from common.models import configs, initial_weights
from common.runs import run_directory
from parity_tests import check

_SCRIPT = pathlib.Path(check.__file__)


@pytest.fixture
def run(tmp_path):
    info = tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 3})
    model = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=2, filters=4)
    run = run_directory.RunDirectory(tmp_path / "run")
    train = configs.TrainConfig(model, "adam", 1)
    run.create(run_directory.RunConfig(train, run_directory.data_record(info), str(tmp_path / "clips"), "torch", {}))
    files.save(run.weights, initial_weights.initial_weights(model, 0), model)
    return run


def test_command_prints_a_table_and_writes_parity_json(run):
    result = subprocess.run(
        [sys.executable, _SCRIPT, f"--run={run.path}", "--precision=float64"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "ConvLSTM_1" in result.stdout
    assert "torch and tf agree on 2 clips in float64." in result.stdout
    report = json.loads((run.path / "parity.json").read_text())
    assert report["agree"]
    assert [row["quantity"] for row in report["rows"]][:2] == ["ConvLSTM_1", "BatchNorm_1"]
    assert max(row["relative"] for row in report["rows"]) < 1e-12


@pytest.mark.parametrize("fails", ["print", "write"])
def test_of_printing_and_writing_one_is_done_where_the_other_fails(tmp_path, capsys, monkeypatch, fails):
    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    where, name = (check.sys.stdout, "write") if fails == "print" else (check.files, "write_json")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Read-only file system"):
        patch.setattr(where, name, fail)
        check._tell({"agree": True}, "a table", tmp_path / "parity.json")
    assert (tmp_path / "parity.json").exists() == (fails == "print")
    assert capsys.readouterr().out == ("a table\n" if fails == "write" else "")


def test_a_difference_beyond_the_limit_is_marked():
    ours = {"endpoint/A": np.zeros(2), "loss/": np.ones(()), "gradient/A/kernel": np.zeros(2)}
    theirs = {**ours, "endpoint/A": np.array([0, 1e-3]), "gradient/A/kernel": np.array([0, np.nan])}

    class Archive(dict):
        @property
        def files(self):
            return list(self)

    rows = check._rows(Archive(ours), Archive(theirs), "float64")
    assert [row["agree"] for row in rows] == [False, True, False]
    text = check.table({"rows": rows, "agree": False, "num_clips": 1, "precision": "float64"})
    assert "A                     1.00e-03  1.00e-03  1e-10  (1,)  <- beyond the limit" in text
    assert "1 values not finite in tf, first nan at (1,)  <- beyond the limit" in text
    assert "do NOT agree" in text


def test_a_line_names_the_difference_nearest_to_its_limit(tmp_path):
    rows = [
        {"quantity": "label", "relative": 0.0, "limit": 0.0},
        {"quantity": "A", "relative": 1e-6, "limit": 1e-4},
        {"kind": "gradient", "quantity": "B", "relative": 5e-5, "limit": 1e-3},
    ]
    result = {"run": "mine", "rows": rows, "agree": True, "num_clips": 1}
    assert check.line(result, tmp_path / "parity.json") == (
        "mine: torch and tf agree on 1 clip, in 3 quantities; nearest to its limit of 1e-03 is gradient of B, 5.0e-05 "
        f"({tmp_path / 'parity.json'})"
    )
    rows += [{"quantity": "mask_snapped", "relative": 1.0, "limit": 0.0}]
    assert "do NOT agree on 2 clips" in check.line({**result, "agree": False, "num_clips": 2}, tmp_path)
    assert "limit of 0e+00 is mask_snapped, 1.0e+00" in check.line(result, tmp_path)
    rows[:] = [{"quantity": "A", "relative": None, "limit": 1e-4}, *rows[:3]]
    assert "is A, not finite" in check.line(result, tmp_path)


def test_refuses_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(errors.UserError, match="A run directory must hold config.json"):
        check.check(check.CheckSettings(tmp_path))
