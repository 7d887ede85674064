import dataclasses

import numpy as np
import pytest

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


def test_tables_have_a_column_a_run_and_a_column_a_pair():
    runs = [run_of(label, ["x", "y"], OS=[0.5, 0.5], RS=[0.4, 0.4], FS=[0.1, 0.1]) for label in "abc"]
    compared, differences = comparison.comparison_tables(runs)
    assert [column.title for column in compared.columns] == ["Quantity", "a", "b", "c"]
    assert [column.title for column in differences.columns] == ["Quantity", "a − b", "a − c", "b − c"]
    assert [row[:2] for row in compared.text_rows()] == [
        ["Original score OS", "0.500 [0.500, 0.500]"],
        ["Freeze score FS", "0.100 [0.100, 0.100]"],
        ["Reverse score RS", "0.400 [0.400, 0.400]"],
        ["RS/FS", "4.00 [4.00, 4.00]"],
    ]
    assert differences.text_rows()[3][1] == "0.00 [0.00, 0.00]"


def test_one_run_has_nothing_to_differ_from():
    assert len(comparison.comparison_tables([run_of("a", ["x"], OS=[0.5])])) == 1
