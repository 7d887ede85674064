import numpy as np
import pytest

from common import tables
from common.runs import order_card

# Four clips of four frames, a number a frame: class 1 rises, class 0 falls.
CLIPS = np.array([[0.0, 1, 2, 3], [3.0, 2, 1, 0], [1.0, 2, 4, 5], [5.0, 4, 2, 0]])
LABELS = np.array([1, 0, 1, 0])
NAMES = ("fall", "rise", "none")


def rising(clips):
    """Logits of a model that sees by how much the last frame is above the first."""
    rise = clips[:, -1] - clips[:, 0]
    return np.stack([-rise, rise, np.full(len(clips), -9.0)], axis=1)


def card(model, clips=CLIPS, labels=LABELS):
    shown = {}

    def predict(name, orders):
        shown[name] = orders
        return model(np.take_along_axis(clips, orders, axis=1))

    backward = order_card.frame_orders(len(clips), clips.shape[1])["reversed"]
    known = {"forward": model(clips), "reversed": model(np.take_along_axis(clips, backward, axis=1))}
    return order_card.card(predict, known, labels, NAMES, clips.shape[1]), shown


def test_ways_to_show_clips():
    orders = order_card.frame_orders(3, 4)
    assert orders.keys() == {"shuffled", "reversed", "one_frame", "0", "1", "2"}
    assert orders["reversed"].tolist() == [[3, 2, 1, 0]] * 3
    assert orders["one_frame"].tolist() == [[2] * 4] * 3
    assert orders["1"].tolist() == [[0, 1, 1, 1]] * 3
    assert sorted(orders["shuffled"][0]) == [0, 1, 2, 3] and len({tuple(order) for order in orders["shuffled"]}) > 1
    np.testing.assert_array_equal(orders["shuffled"], order_card.frame_orders(9, 4)["shuffled"][:3])  # Each its own.


def test_a_model_of_motion_needs_order():
    found, shown = card(rising)
    assert "reversed" not in shown  # It was known.
    scores = {name: way["accuracy"] for name, way in found["shown"].items()}
    assert (scores["forward"], scores["reversed"], scores["one_frame"]) == (1, 0, 0.5)
    # Frozen after frame 0 nothing moves, and the first of equal logits wins; after frame 1 all is there.
    assert found["frozen_after"]["accuracy"] == [0.5, 1, 1, 1]
    assert found["frozen_after"]["per_class"] == {
        "fall": {"accuracy": [1, 1, 1, 1], "probability": pytest.approx([0.5, 0.95, 0.999, 1], abs=0.1)},
        "rise": {"accuracy": [0, 1, 1, 1], "probability": pytest.approx([0.5, 0.95, 0.999, 1], abs=0.1)},
    }
    assert found["shown"]["reversed"]["loss"] == (1, 1, 1)
    assert found["shown"]["reversed"]["per_class"]["rise"]["accuracy"] == 0 and found["chance"] == 0.5
    assert found["shown"]["reversed"]["probability"] == pytest.approx(
        1 - found["shown"]["forward"]["probability"], 1e-2
    )
    words = order_card.sentence(found)
    assert words.startswith("Order matters: of an accuracy of 100 %, shuffling the frames costs ")
    assert "showing them backwards 100 points [100, 100]" in words
    assert words.endswith("The first 2 of 4 frames suffice for 95 % of it.")


def test_a_model_of_single_frames_does_not():
    def bright(clips):
        level = clips.mean(axis=1) - 2
        return np.stack([-level, level, np.full(len(clips), -9.0)], axis=1)

    found, _ = card(bright, labels=bright(CLIPS).argmax(axis=1))
    words = order_card.sentence(found)
    assert words.startswith(
        "No sign that order matters: of an accuracy of 100 %, shuffling the frames costs 0 points [0, 0]"
    )


def test_a_model_that_is_no_better_than_one_class_says_nothing():
    found, _ = card(lambda clips: np.tile([1.0, 0, 0], (len(clips), 1)))
    assert order_card.sentence(found) == (
        "Nothing can be said of order: shown forward, 50 % of the clips are right, and always guessing one class would "
        "be right in 50 %."
    )


def test_one_clip_has_no_interval():
    found, _ = card(rising, CLIPS[:1], LABELS[:1])
    assert found["shown"]["reversed"]["loss"] == (1, 1, 1)


def test_the_tables_have_a_row_for_each_way_and_each_class():
    ways, classes = order_card.card_tables("mine", card(rising)[0])
    lines = tables.write_text(ways).splitlines()
    assert lines[0].split() == ["mine:", "order", "card", "accuracy", "probability", "accuracy", "lost"]
    assert lines[2].split() == ["reversed", "0.000", "0.001", "1.000", "[1.000,", "1.000]"]
    assert lines[6].split() == ["frozen", "after", "frame", "1", "1.000", "0.881", "-"]
    assert [line.split() for line in tables.write_text(classes).splitlines()[1:]] == [
        ["fall", "1.000", "0.000", "0.500", "1.000"],
        ["rise", "1.000", "0.000", "1.000", "0.000"],
    ]
