import xml.etree.ElementTree as ET

import pytest

from common import errors
from common.reporting import report_for_tests, training


@pytest.fixture
def run(tmp_path):
    """Makes a run in a folder: see `report_for_tests.write_run`."""
    info = report_for_tests.write_store(tmp_path / "clips", ("a", "b")).info

    return lambda name, *options: report_for_tests.write_run(tmp_path / name, info, *options)


def test_runs_are_found_beside_their_files_and_by_name_each_once(run):
    first, second = run("first"), run("second")
    beside = [(first / "explanations.h5", "first"), (first / "evaluation.json", "first"), (second / "x.h5", "first")]
    assert [found.label for found in training.found([], beside)] == ["first"]  # The last file is of another run.
    assert [found.label for found in training.found([second, first], beside)] == ["second", "first"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="--runs must name run directories. Received: .* without config.json"):
        training.found([tmp_path], [])


def test_the_table_has_what_the_runs_were_trained_with(run):
    table = training.table(training.found([run("a"), run("b", "conv_lstm_kth", 0)], []))
    shared = ["tiny", "PyTorch"]
    assert table.text_rows() == [
        ["a", "I3D", *shared, "ADAM", "0.001", "–", "5e−05", "0.7", "16", "3 of 30", "0.500"],
        ["b", "C-LSTM", *shared, "SGD", "0.001", "0.2", "0.0001", "0.5", "16", "–", "–"],
    ]


def test_curves_of_loss_and_accuracy(run):
    found = training.found([run("a"), run("untrained", "i3d_kth", 0)], [])
    (loss, drawn), (accuracy, other) = training.curves(found)
    assert (loss, accuracy) == ("Loss: a", "Accuracy: a")
    svg = ET.fromstring(drawn)
    assert svg.get("aria-label") == "Loss over epochs. validation: 2.000 in the end; training: 1.333 in the end"
    heights = [[float(point.split(",")[1]) for point in line.get("points").split()] for line in svg.iter("polyline")]
    # The axis ends at 6, the first validation loss, 8 px from the top, and begins at 128 px.
    assert heights[0] == [8, 68, 88] and heights[1] == pytest.approx([48, 88, 101.3])
    texts = [text.text for text in svg.iter("text")]
    assert texts == ["0", "3", "6", "validation", "training", "epoch 1", "3"]
    assert [text.text for text in ET.fromstring(other).iter("text")][:3] == ["0", "0.5", "1"]


def test_a_loss_that_is_not_finite_leaves_a_gap(run):
    found = training.found([run("a", "i3d_kth", 2)], [])
    found[0].log[1]["validation_loss"] = float("inf")
    (_, drawn), _ = training.curves(found)
    assert "inf" not in drawn.replace("in the end", "") and "nan" not in drawn
