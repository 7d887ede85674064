"""The order card: what a classifier of clips makes of the order of frames, and of having more than one of them.

The clips of a split are shown forward, reversed, shuffled, as one frame repeated, and frozen after frame t, for every
t: then the frames after t show frame t, so that t = 0 is the first frame alone and t = T - 1 the whole clip. Section
5.1 of the paper reverses; a model that scores as high on shuffled frames has learnt nothing of motion, and one that
scores as high on a single frame nothing of time.
"""

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from common import bootstrap, files, tables
from common.runs import metrics
from common.tables import Cell, Column, Table

SEED = 0  # Of the shuffles, a permutation for each clip.
ENOUGH = 0.95  # Share of the forward accuracy at which frames are said to suffice.
_TITLES = {"forward": "forward", "reversed": "reversed", "shuffled": "shuffled", "one_frame": "one frame, repeated"}


class Scores(TypedDict):
    """Of clips of one class or all: accuracy, 0…1, and mean probability of the label."""

    accuracy: float
    probability: float


class Way(Scores):
    """A way to show clips; loss: the accuracy that it costs against forward, and its 95 % interval over clips."""

    loss: tuple[float, float, float]
    per_class: dict[files.Text, Scores]


class Curve(TypedDict):
    """What clips frozen after frame 0, 1 … T - 1 score."""

    accuracy: list[float]
    probability: list[float]


class Frozen(Curve):
    """The same, and of each class."""

    per_class: dict[files.Text, Curve]


class OrderCard(TypedDict):
    """The card in `evaluation.json`; classes that have no clips are left out.

    chance is the accuracy of always guessing the class that most clips have; one_frame is the frame that is repeated.
    """

    seed: files.Count
    one_frame: files.Count
    chance: float
    shown: dict[files.Text, Way]
    frozen_after: Frozen


def frame_orders(num_clips: int, time: int) -> dict[str, np.ndarray]:
    """Returns which frame stands in each place: way to show clips -> int [N, T]. Forward is not among them.

    "one_frame" repeats the middle one; "0", "1" … "T - 2" freeze after that frame.
    """
    forward, shape = np.arange(time), (num_clips, time)
    shuffled = np.stack([np.random.default_rng((SEED, clip)).permutation(time) for clip in range(num_clips)])
    ways = {"one_frame": np.full(time, time // 2)}
    ways |= {str(last): np.minimum(forward, last) for last in range(time - 1)}
    same = {name: np.broadcast_to(order, shape) for name, order in ways.items()}
    return {"shuffled": shuffled, "reversed": backward(*shape), **same}


def backward(num_clips: int, time: int) -> np.ndarray:
    """Returns int [N, T], the last frame of each clip in the first place (Table 1, "reversed")."""
    return np.broadcast_to(np.arange(time)[::-1], (num_clips, time))


def card(
    predict: Callable[[str, np.ndarray], np.ndarray],
    known: Mapping[str, np.ndarray],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    time: int,
) -> OrderCard:
    """Returns the card of a model on a split.

    Args:
      predict: (way to show the clips, frame in each place int [N, T]) -> logits, float64 [N, K].
      known: logits of ways that were shown already, "forward" among them.
      labels: int [N], 0…K-1.
      class_names: K names.
      time: T.
    """
    rows = np.arange(len(labels))
    orders = frame_orders(len(labels), time)
    logits = {**known, **{name: predict(name, order) for name, order in orders.items() if name not in known}}
    right = {name: (values.argmax(axis=1) == labels).astype(float) for name, values in logits.items()}
    sure = {name: np.exp(metrics.log_softmax(values)[rows, labels]) for name, values in logits.items()}
    classes = {class_names[k]: labels == k for k in np.unique(labels)}
    everything = np.ones(len(labels), bool)

    def scores(name: str, some: np.ndarray) -> Scores:
        return {"accuracy": float(right[name][some].mean()), "probability": float(sure[name][some].mean())}

    def curve(some: np.ndarray) -> Curve:
        found = [scores(name, some) for name in (*map(str, range(time - 1)), "forward")]
        return {
            "accuracy": [of_one["accuracy"] for of_one in found],
            "probability": [of_one["probability"] for of_one in found],
        }

    shown: dict[str, Way] = {}
    for name in _TITLES:
        found = bootstrap.mean(right["forward"] - right[name])
        assert found is not None
        interval = (found.value, found.low, found.high) if len(labels) > 1 else (found.value,) * 3
        per_class = {of_class: scores(name, some) for of_class, some in classes.items()}
        shown[name] = {**scores(name, everything), "loss": interval, "per_class": per_class}
    by_class = {of_class: curve(some) for of_class, some in classes.items()}
    return {
        "seed": SEED,
        "one_frame": time // 2,
        "chance": max(float(some.mean()) for some in classes.values()),
        "shown": shown,
        "frozen_after": {**curve(everything), "per_class": by_class},
    }


def sentence(found: OrderCard) -> str:
    """Returns what a card means, in two sentences; intervals are of 95 %."""
    shown, frozen = found["shown"], found["frozen_after"]["accuracy"]
    accuracy = shown["forward"]["accuracy"]
    if accuracy <= found["chance"]:
        return (
            f"Nothing can be said of order: shown forward, {_percent(accuracy)} of the clips are right, and always "
            f"guessing one class would be right in {_percent(found['chance'])}."
        )
    costs = {name: shown[name]["loss"] for name in ("shuffled", "reversed", "one_frame")}
    matters = max(costs["shuffled"][1], costs["reversed"][1]) > 0
    enough = next(t for t, reached in enumerate(frozen) if reached >= ENOUGH * accuracy)
    return (
        f"{'Order matters' if matters else 'No sign that order matters'}: of an accuracy of {_percent(accuracy)}, "
        f"shuffling the frames costs {_points(costs['shuffled'])}, showing them backwards "
        f"{_points(costs['reversed'])}, and repeating the middle one {_points(costs['one_frame'])}. "
        f"The first {enough + 1} of {len(frozen)} frames suffice for {_percent(ENOUGH)} of it."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(loss: tuple[float, float, float]) -> str:
    value, low, high = (round(100 * number) for number in loss)
    return f"{value} points [{low}, {high}]"


def card_tables(name: str, found: OrderCard, number: int = 1) -> list[Table]:
    """Returns a row for each way to show clips, and for each class its accuracy shown so.

    Args:
      name: of the model.
      found: its card.
      number: of the model, for the names of files.
    """
    shown, frozen = found["shown"], found["frozen_after"]
    rows: list[tuple[Cell, ...]] = [
        (
            f"  {title}",
            shown[way]["accuracy"],
            shown[way]["probability"],
            None if way == "forward" else tables.Estimate(*shown[way]["loss"], 0),
        )
        for way, title in _TITLES.items()
    ]
    time = len(frozen["accuracy"])
    rows += [
        (f"  frozen after frame {t}", frozen["accuracy"][t], frozen["probability"][t], None)
        for t in sorted({0, time // 4, time // 2, 3 * time // 4})
    ]
    numbers = Column("accuracy", ".3f"), Column("probability", ".3f"), Column("accuracy lost", ".3f")
    by_class: list[tuple[Cell, ...]] = [
        (f"  {of_class}", *(shown[way]["per_class"][of_class]["accuracy"] for way in _TITLES))
        for of_class in shown["forward"]["per_class"]
    ]
    return [
        Table(
            (Column(f"{name}: order card"), *numbers),
            rows,
            name=f"order_card_{number}",
            title=f"Does the order of frames matter? {name}",
            caption="Accuracy, and mean probability of the label, of clips shown in other ways. Accuracy lost: against "
            f"forward, with its 95 % bootstrap interval. One frame: frame {found['one_frame']}. Frozen after frame t: "
            "the frames after it show it.",
        ),
        Table(
            (Column(f"{name}: accuracy"), *(Column(title, ".3f") for title in _TITLES.values())),
            by_class,
            name=f"order_classes_{number}",
            title=f"In which classes does order matter? {name}",
            caption="Accuracy of each class.",
        ),
    ]
