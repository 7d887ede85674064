import dataclasses

import numpy as np
import pytest

from common import errors, files
from common.clips import tiny_store_for_tests
from common.explaining import attribution_file
from common.explaining.attribution_file import Attributions
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.methods import MethodConfig
from common.reporting import leaderboard


def write_results(folder, store, model, framework, **answers):
    """Writes the results of a run whose methods answer as given, for clips test0, test1…"""
    folder.mkdir(parents=True)
    plan = {
        "schema_version": 1,
        "run": f"{model}_planted",
        "weights_sha256": "0",
        "model": model,
        "framework": framework,
        "suite": str(store),
        "dataset": "tiny",
        "clips_digest": "0",
        "split": "test",
        "limit": 0,
        "methods": dataclasses.asdict(MethodConfig()),
        "gradcam": dataclasses.asdict(GradCamConfig()),
    }
    files.write_json(folder / "plan.json", plan)
    for name, values in answers.items():
        ids = tuple(f"test{number}" for number in range(len(values)))
        attribution_file.write(folder / f"{name}.npz", Attributions(ids, np.array(values, float)))


@pytest.fixture
def results(tmp_path):
    tiny_store_for_tests.write_tiny_store(
        tmp_path / "store", clips={"test": 2}, shape=(4, 8, 8), object_mask_shape=(1, 1)
    )
    out = tmp_path / "results"
    rising = [[0, 1, 2, 3]] * 2
    write_results(out / "rare" / "a-torch", tmp_path / "store", "i3d", "torch", occlusion=rising, mask=rising)
    write_results(out / "rare" / "a-tf", tmp_path / "store", "i3d", "tf", occlusion=rising[:1], mask=rising)
    write_results(out / "edges" / "a-torch", tmp_path / "store", "conv_lstm", "torch", rise=rising[:1])
    return out


def test_a_table_a_suite_by_method_and_model(results, tmp_path):
    leaderboard.write(results, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Which frames? A leaderboard",
        "## edges",
        "## rare",
    ]
    rows = [line.split(" | ")[:3] for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    of_edges = [["| answer", "model", "clips"], ["| rise", "C-LSTM (PyTorch)", "1"]]
    of_rare = [
        ["| answer", "model", "clips"],
        ["| mask", "I3D (PyTorch, TensorFlow)", "2"],  # Both answered the same.
        ["| occlusion", "I3D (TensorFlow)", "1"],
        ["| occlusion", "I3D (PyTorch)", "2"],
    ]
    assert rows == [*of_edges, *of_edges, *of_rare, *of_rare]
    assert "| occlusion | I3D (PyTorch) | 2 | 2.0 [2.0, 2.0] | 1.00 [1.00, 1.00] |" in page  # Frames 2 and 3 of four.
    titles, *lines = (results / "rare.csv").read_text().splitlines()
    assert titles.startswith("answer,model,clips,pointing,") and len(lines) == 4
    assert len((results / "edges_selected.csv").read_text().splitlines()) == 2


def test_no_results_no_page(tmp_path):
    with pytest.raises(errors.UserError, match="must be there before their page"):
        leaderboard.write(tmp_path, tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()
