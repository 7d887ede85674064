"""Order cards on the page: what evaluated models make of the order of frames (see `order_card`)."""

from collections.abc import Sequence
from typing import Any

from common.reporting import charts, paper_tables
from common.runs import order_card
from common.tables import Table


def tables(evaluations: Sequence[dict[str, Any]]) -> list[Table]:
    """Returns the tables of the evaluations that have a card."""
    return [
        table for label, number, card in _cards(evaluations) for table in order_card.card_tables(label, card, number)
    ]


def answers(evaluations: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Returns of each evaluation that has a card its label, what the card means, and a picture of it, as SVG.

    The picture has the accuracy of clips frozen after each frame, and that of shuffled and of reversed ones as levels.
    """
    found = []
    for label, _, card in _cards(evaluations):
        frozen = card["frozen_after"]["accuracy"]
        levels = {way: [card["shown"][way]["accuracy"]] * len(frozen) for way in ("shuffled", "reversed")}
        drawn = charts.curves(f"{label}: accuracy of clips frozen after a frame", {"frozen": frozen, **levels})
        found.append((label, order_card.sentence(card), drawn))
    return found


def _cards(evaluations: Sequence[dict[str, Any]]) -> list[tuple[str, int, order_card.OrderCard]]:
    labels = paper_tables.by_data_set(evaluations)
    return [
        (label, number, result["order_card"])
        for number, (label, result) in enumerate(zip(labels, evaluations, strict=True), start=1)
        if "order_card" in result
    ]
