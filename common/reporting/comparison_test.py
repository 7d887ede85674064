import dataclasses

import numpy as np
import pytest

from common import tables
from common.explaining.explanations import Explanations
from common.reporting import comparison, report_for_tests
from common.reporting.comparison import Quantity, Run


def run_of(label, ids, **statistics):
    columns = {"video_id": np.array(ids, dtype=object)}
    return Run(
        label, Explanations({}, columns), {name: np.array(values, float) for name, values in statistics.items()}, label
    )


def test_a_ratio_is_that_of_the_means():
    run = run_of("a", ["x", "y"], RS=[1, 1], FS=[0.001, 1.999])
    found = comparison.run_estimate(run, Quantity("RS/FS", "", ".2f", ("RS", "FS")))
    assert found.value == 1.0  # The mean of the ratios is 500.25.


def test_a_ratio_to_zero_is_not_defined():
    run = run_of("a", ["x", "y"], RS=[1, 1], FS=[0, 0])
    assert np.isnan(comparison.run_estimate(run, Quantity("RS/FS", "", ".2f", ("RS", "FS"))).value)


def test_a_difference_is_paired_by_clip_whatever_the_order():
    first = run_of("a", ["x", "y", "z"], OS=[0.5, 0.9, 0.3])
    second = run_of("b", ["z", "w", "x", "y"], OS=[0.1, 0.0, 0.3, 0.7])
    found = comparison.difference(first, second, Quantity("OS", "", ".2f"))
    # Each clip differs by 0.2, so no resample can differ by anything else: unpaired, the interval would be wide.
    assert found == pytest.approx((0.2, 0.2, 0.2, 3))


def test_runs_without_a_clip_in_common_have_no_difference():
    quantity = Quantity("OS", "", ".2f")
    assert comparison.difference(run_of("a", ["x"], OS=[1]), run_of("b", ["y"], OS=[1]), quantity) is None


def test_onset_of_the_mask_after_the_event(tmp_path, monkeypatch):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b"), 4)
    salient = np.zeros((4, 8), np.uint8)
    salient[0, 3:6] = salient[1, 1:3] = salient[2, 0:2] = 1  # Nothing is salient in clip 3.
    monkeypatch.setattr(type(store), "column", lambda self, name: {"salient": salient}[name])
    found = report_for_tests.explain(store, "run", "i3d")
    found["mask_snapped"][2] = 0
    # Masks begin at frames 1 and 2; that of clip 2 is off everywhere.
    np.testing.assert_array_equal(comparison.mask_onsets(found, store), [-2, 1, np.nan, np.nan])


def test_without_ground_truth_there_is_no_onset(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b"))
    found = report_for_tests.explain(store, "run", "i3d")
    layout = dataclasses.replace(store.info.layout, object_mask_shape=None)
    store.info = dataclasses.replace(store.info, layout=layout)
    assert np.isnan(comparison.mask_onsets(found, store)).all()


def explained_run(label, video_ids, values, weights="0", framework="torch", game="delete"):
    """A run with the statistics OS, FS, RS, RS/FS and halved, and a header that tells twins and games."""
    run = run_of(label, video_ids, **values)
    run.explanations.header.update(
        {"model": "i3d", "weights_sha256": weights, "mask": {"game": game, "kind": "freeze"}, "gradcam": {}},
        target="guess",
        precision="float32",
        framework=framework,
    )
    return run


VALUES = {"OS": [0.5, 0.5, 0.5], "RS": [0.4] * 3, "FS": [0.1, 0.1, 0.4], "RS/FS": [4, 4, 1], "halved": [1, 1, 0]}


def test_tables_have_a_column_a_run_and_a_column_a_pair():
    runs = [explained_run(label, ["x", "y", "z"], VALUES, weights=label) for label in "abc"]
    compared, differences = comparison.comparison_tables(runs)
    assert [column.title for column in compared.columns] == ["Quantity", "a", "b", "c"]
    assert [column.title for column in differences.columns] == ["Quantity", "a − b", "a − c", "b − c"]
    rows = {row[0]: row[1].partition(" [")[0] for row in compared.text_rows()}
    assert rows == {
        "Game of the masks": "deletion",
        "Original score OS": "0.500",
        "Freeze score FS": "0.200",
        "Median freeze score FS": "0.100",
        "Reverse score RS": "0.400",
        "RS/FS": "2.00",
        "Median RS/FS": "4.00",
        "Clips whose score the mask halves": "67 %",
    }
    assert differences.text_rows()[4][1] == "0.00 [0.00, 0.00]"
    assert tables.write_csv(compared).splitlines()[1].startswith("Game of the masks,deletion,,,,deletion")


def test_only_models_that_differ_are_compared_and_no_more_than_fit():
    twin = explained_run("b", ["x", "y", "z"], VALUES, weights="a", framework="tf")
    kept = explained_run("c", ["x", "y", "z"], VALUES, weights="a", game="preserve")
    one = explained_run("a", ["x", "y", "z"], VALUES, weights="a")
    assert len(comparison.comparison_tables([one, twin, kept])) == 1
    many = [explained_run(label, ["x", "y", "z"], VALUES, weights=label) for label in "abcd"]
    _, *parts = comparison.comparison_tables(many)
    assert [(part.name, len(part.columns)) for part in parts] == [("differences", 5), ("differences_2", 3)]
    assert [part.title for part in parts] == ["How the models differ (1 of 2)", "How the models differ (2 of 2)"]


def test_one_run_has_nothing_to_differ_from():
    assert len(comparison.comparison_tables([explained_run("a", ["x"], {"OS": [0.5]})])) == 1
