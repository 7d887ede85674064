import numpy as np
import pytest

from common import errors, files
from common.reporting import building, order_cards, report_for_tests
from common.reporting.building import ReportSettings
from common.runs import evaluation_file, order_card

NAMES = ("x", "y", "z")


def card():
    """Of a model that is right forward and frozen after frame 2 alone."""
    labels = np.array([0, 1, 2, 1])
    right = 3.0 * np.eye(3)[labels]
    return order_card.card(
        lambda name, orders: right if name == "2" else 1 - right,
        {"forward": right, "reversed": -right},
        labels,
        NAMES,
        4,
    )


def evaluation(**values):
    return {**report_for_tests.evaluation(NAMES), "run": "mine", **values}


def test_a_card_is_on_the_page_in_words_a_picture_and_tables(tmp_path):
    for name, values in (("a", {"order_card": card()}), ("b", {"dataset": "other"})):
        evaluation_file.write(tmp_path / f"{name}.json", evaluation(**values))
    page = building.build(
        ReportSettings(tmp_path / "report", evaluations=(tmp_path / "b.json", tmp_path / "a.json"))
    ).read_text()
    assert page.count("accuracy of clips frozen after a frame</figcaption>") == 1
    assert "Order matters: of an accuracy of 100\u00a0%, shuffling the frames costs 100 points [100, 100]" in page
    for name in ("order_card_2", "order_classes_2"):
        assert f'id="{name}"' in page and (tmp_path / "report" / "tables" / f"{name}.csv").exists()
    assert "frozen: area 0.500" in page  # Frozen after frames 0 to 3: 0, 0, 1, 1.


def test_without_cards_there_is_nothing(tmp_path):
    assert order_cards.tables([evaluation()]) == [] == order_cards.answers([evaluation()])


def test_a_card_of_another_form_is_refused(tmp_path):
    broken = card()
    del broken["shown"]["forward"]["loss"]
    files.write_json(tmp_path / "a.json", {"schema_version": 1, **evaluation(order_card=broken)})
    with pytest.raises(errors.UserError, match="loss"):
        evaluation_file.read(tmp_path / "a.json")
