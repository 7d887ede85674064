"""Section 5.2 of the paper as numbers: what two models look at, compared on the same clips.

The paper tells from eight sequences that I3D "often focuses on coherent, centered blobs", that its salient frames are
"often fewer", and that its ratio of reverse to freeze score is "considerably higher". Here each of these is a mean over
all clips with a 95 % interval (see `bootstrap`), and a difference between two runs paired by clip. RS/FS is the ratio
of the two means, for a mean of ratios is decided by the clips whose FS is almost 0.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from common import bootstrap
from common.clips.clip_store import ClipStore
from common.explaining.explanation_statistics import Statistics
from common.explaining.explanations import Explanations
from common.reporting.names import GAME_NAMES
from common.tables import Cell, Column, Estimate, Table

_PAIRS = 4  # Columns of differences that fit a page.


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number of a clip that models are compared by.

    Attributes:
      name: in `explanation_statistics.clip_statistics`, or "onset".
      title: with the unit in brackets.
      form: format spec of its values.
      ratio_of: two statistics whose means' ratio is reported in place of a mean.
      median: whether the median over clips is reported in place of a mean.
    """

    name: str
    title: str
    form: str
    ratio_of: tuple[str, str] | None = None
    median: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the statistics that the estimate is made of."""
        return self.ratio_of or (self.name,)


QUANTITIES = (
    Quantity("OS", "Original score OS", ".3f"),
    Quantity("FS", "Freeze score FS", ".3f"),
    Quantity("FS", "Median freeze score FS", ".3f", median=True),
    Quantity("RS", "Reverse score RS", ".3f"),
    Quantity("RS/FS", "RS/FS", ".2f", ("RS", "FS")),
    Quantity("RS/FS", "Median RS/FS", ".2f", median=True),
    Quantity("halved", "Clips whose score the mask halves", ".0%"),
    Quantity("freeze_drop", "Drop by freezing (share of OS)", ".3f"),
    Quantity("reverse_drop", "Drop by reversing (share of OS)", ".3f"),
    Quantity("mask_length", "Mask length (frames)", ".2f"),
    Quantity("runs", "Coherent runs of the mask", ".2f"),
    Quantity("oracle_gap", "Loss above the best interval (share)", ".3f"),
    Quantity("blobs_per_frame", "Grad-CAM blobs per frame", ".2f"),
    Quantity("blob_area", "Blob area (share of the frame)", ".3f"),
    Quantity("center_distance", "Grad-CAM from the image centre (half diagonals)", ".3f"),
    Quantity("onset", "Mask onset after the event's (frames)", ".2f"),
    Quantity("temporal_iou", "Temporal IoU of mask and event", ".3f"),
    Quantity("temporal_iou_random", "Temporal IoU of a random interval", ".3f"),
    Quantity("average_precision", "Average precision of the mask", ".3f"),
    Quantity("average_precision_random", "Average precision of a random order", ".3f"),
    Quantity("pointing_game", "Pointing game of Grad-CAM", ".3f"),
    Quantity("pointing_game_random", "Pointing game of a random pixel", ".3f"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One explained run.

    Attributes:
      label: short name, each another.
      explanations: of its clips.
      statistics: what they say of each clip.
      name: of the model and framework alone: runs of one model whose masks play different games share it.
    """

    label: str
    explanations: Explanations
    statistics: Statistics
    name: str

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Video id -> row of the explanations."""
        return {video_id: row for row, video_id in enumerate(self.explanations["video_id"])}

    @property
    def game(self) -> str:
        """Of its masks, one of `masks.GAMES`."""
        return self.explanations.header["mask"]["game"]

    @property
    def kind(self) -> str:
        """Of the perturbation that its masks are learnt with."""
        return self.explanations.header["mask"]["kind"]


def twins(runs: Sequence[Run]) -> list[int | None]:
    """Returns of each run the number of an earlier one of the same weights and settings in the other framework."""
    keys = ("model", "weights_sha256", "mask", "gradcam", "target", "precision")
    return _earlier(
        runs, range(len(runs)), lambda here, there: _same(here, there, keys) and not _same(here, there, _BUILD)
    )


def partners(runs: Sequence[Run]) -> list[int | None]:
    """Returns of each run that preserves the number of the one that deletes beside which it is shown, or None.

    That is one of the same weights, framework, class explained and kind of perturbation. Each has one partner at most.
    """
    keys = ("model", "weights_sha256", "framework", "target", "precision")

    def fit(here: Run, there: Run) -> bool:
        return (
            here.game == "preserve" and there.game == "delete" and here.kind == there.kind and _same(here, there, keys)
        )

    order = sorted(range(len(runs)), key=lambda number: runs[number].game == "preserve")  # Whatever the files' order.
    return _earlier(runs, order, fit)


_BUILD = ("framework",)


def _same(here: Run, there: Run, keys: Sequence[str]) -> bool:
    return all(here.explanations.header[key] == there.explanations.header[key] for key in keys)


def _earlier(runs: Sequence[Run], order: Sequence[int], fit: Callable[[Run, Run], bool]) -> list[int | None]:
    """Returns of each run the number of the first before it that fits, has none itself, and is nobody else's."""
    found: list[int | None] = [None] * len(runs)
    for place, number in enumerate(order):
        others = (
            earlier
            for earlier in order[:place]
            if found[earlier] is None and earlier not in found and fit(runs[number], runs[earlier])
        )
        found[number] = next(others, None)
    return found


def salient_frames(explanations: Explanations, store: ClipStore) -> np.ndarray | None:
    """Returns which frames carry the evidence in the N clips explained, bool [N, T]; None without ground truth."""
    if store.info.layout.object_mask_shape is None:
        return None
    return store.column("salient")[store.places(explanations["video_id"])] != 0


def mask_onsets(explanations: Explanations, store: ClipStore) -> np.ndarray:
    """Returns by how many frames each mask begins after the event, float64 [N]; negative: before.

    NaN where the snapped mask is off everywhere, where no frame is salient, and where the store has no ground truth.

    Args:
      explanations: of N clips of `store`.
      store: the split that was explained.
    """
    onsets = np.full(len(explanations), np.nan)
    salient = salient_frames(explanations, store)
    if salient is None:
        return onsets
    on = explanations["mask_snapped"] != 0
    known = on.any(axis=1) & salient.any(axis=1)
    onsets[known] = on[known].argmax(axis=1) - salient[known].argmax(axis=1).astype(float)
    return onsets


def run_estimate(run: Run, quantity: Quantity) -> Estimate | None:
    """Returns the estimate of a quantity over all clips of a run."""
    return bootstrap.estimate(_values(run, quantity), _one, middle=_middle(quantity))


def difference(first: Run, second: Run, quantity: Quantity) -> Estimate | None:
    """Returns the estimate of first less second over the clips that both explain, resampled together."""
    pairs = [(here, second.rows[video_id]) for video_id, here in first.rows.items() if video_id in second.rows]
    if not pairs:
        return None
    here, there = np.array(pairs).T
    both = np.concatenate([_values(first, quantity)[here], _values(second, quantity)[there]], axis=1)
    half = len(quantity.sources)

    def of_means(means: np.ndarray) -> np.ndarray:
        return _one(means[..., :half]) - _one(means[..., half:])

    return bootstrap.estimate(both, of_means, middle=_middle(quantity))


def _middle(quantity: Quantity) -> Callable[..., np.ndarray]:
    return np.median if quantity.median else np.mean


def _values(run: Run, quantity: Quantity) -> np.ndarray:
    return np.stack([run.statistics[name] for name in quantity.sources], axis=1)


def _one(means: np.ndarray) -> np.ndarray:
    """Returns the mean, or of two means the ratio (NaN where the second is not positive)."""
    if means.shape[-1] == 1:
        return means[..., 0]
    return np.divide(means[..., 0], means[..., 1], out=np.full(means.shape[:-1], np.nan), where=means[..., 1] > 0)


def known_quantities(runs: Sequence[Run]) -> list[Quantity]:
    """Returns the quantities that at least one clip of one run has."""

    def has(run: Run, quantity: Quantity) -> bool:
        return all(name in run.statistics and np.isfinite(run.statistics[name]).any() for name in quantity.sources)

    return [quantity for quantity in QUANTITIES if any(has(run, quantity) for run in runs)]


def _differences(pairs: Sequence[tuple[Run, Run]], quantity: Quantity) -> list[Cell]:
    return [difference(first, second, quantity) for first, second in pairs]


def comparison_tables(runs: Sequence[Run]) -> list[Table]:
    """Returns the comparison: a column a run; and the paired differences of models that differ, a column a pair.

    A model's twin in the other framework differs by rounding alone, and scores under masks of different games are of
    different things, so neither is a pair.
    """
    quantities = known_quantities(runs)
    forms = tuple(quantity.form for quantity in quantities)
    twin = twins(runs)
    models = [run for number, run in enumerate(runs) if twin[number] is None]
    pairs = [pair for pair in itertools.combinations(models, 2) if pair[0].game == pair[1].game]

    def rows(cells: Callable[[Quantity], list[Cell]]) -> tuple[tuple[Cell, ...], ...]:
        return tuple((quantity.title, *cells(quantity)) for quantity in quantities)

    games: tuple[Cell, ...] = ("Game of the masks", *(GAME_NAMES[run.game] for run in runs))
    tables = [
        Table(
            (Column("Quantity"), *(Column(run.label) for run in runs)),
            (games, *rows(lambda quantity: [run_estimate(run, quantity) for run in runs])),
            ("", *forms),
            name="comparison",
            title="What the models look at",
            caption="Mean over clips (the median where it says so), and in brackets the 95 % bootstrap interval. RS/FS "
            "is the ratio of means. Deletion perturbs the mask's frames, preservation all others.",
        )
    ]
    parts = [pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS)]
    for number, part in enumerate(parts, start=1):
        tables.append(
            Table(
                (Column("Quantity"), *(Column(f"{first.label} − {second.label}") for first, second in part)),
                rows(functools.partial(_differences, part)),
                forms,
                name="differences" if number == 1 else f"differences_{number}",
                title="How the models differ" + (f" ({number} of {len(parts)})" if len(parts) > 1 else ""),
                caption="First less second, on the clips that both have, and in brackets the 95 % bootstrap interval "
                "of the difference, of each quantity by itself.",
            )
        )
    return tables
