import csv
import io
import json

import numpy as np
import pytest

from common import tables
from common.reporting import clip_tables, report_for_tests


@pytest.fixture
def runs(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("left", "right", "wave"))
    return store, [report_for_tests.make_run(store, label, "i3d") for label in ("a", "b")]


def test_a_record_of_every_clip_and_run(runs):
    store, both = runs
    both[0].explanations["label"][1] = -1
    found = clip_tables.records(both, store)
    assert [(record["run"], record["video_id"]) for record in found] == [
        (run, f"validation{clip}") for run in "ab" for clip in range(6)
    ]
    json.dumps(found, allow_nan=False)
    first, second = found[:2]
    assert first["label"] == first["prediction"] == first["target"] == "left" and second["label"] is None
    assert first["frames_on"] == [1, 2, 3] and first["best_interval"] == [1, 4] and first["event"] == list(range(8))
    assert first["mask"] == pytest.approx([0.05, 0.9, 0.9, 0.9, 0.05, 0.05, 0.05, 0.05])
    assert first["OS"] == pytest.approx(0.9) and first["S"] == pytest.approx(0.1) and first["CS"] is None
    assert first["words"].startswith("Needs frames 1–3 (3 of 8)") and (first["game"], first["kind"]) == (
        "delete",
        "freeze",
    )
    assert first["mask_length"] == 3 and np.isfinite(first["temporal_iou"])


def test_the_table_is_the_records(runs):
    store, both = runs
    found = clip_tables.records(both, store)
    rows = list(csv.DictReader(io.StringIO(tables.write_csv(clip_tables.table(found)))))
    assert len(rows) == 12 and list(rows[0]) == list(found[0])
    assert rows[0]["frames_on"] == "1 2 3" and rows[0]["CS"] == "" and float(rows[7]["OS"]) == found[7]["OS"]
