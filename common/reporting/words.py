"""What a model used, in words: a few sentences for a clip, and for a model over all its clips.

A clip's sentences speak of whole frames, so they are made from the snapped mask and the scores under it. "Needs" and
"matters" are said where a perturbation takes at least half of the score: `HALF`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from common.clips.clip_store import ClipStore
from common.reporting.comparison import Run

HALF = 0.5
_CHANCE = 1.5  # A score of up to this multiple of 1 / K is chance.
_DONE_TO = {
    "freeze": "frozen",
    "reverse": "reversed",
    "shuffle": "shuffled",
    "blur": "blurred over time",
    "mean": "replaced by the clip's mean",
    "blank": "made black",
}

Words = list[str]  # Plain and bold text in turn.


@dataclasses.dataclass(frozen=True)
class ClipFacts:
    """What the sentences of a clip are made of.

    Attributes:
      class_name: of the explained class.
      classes: their number, K.
      kind: of perturbation that the mask was learnt with.
      game: "delete" or "preserve" (all but the mask is perturbed).
      mask: bool [T], the snapped mask.
      original: score of the clean clip, OS.
      perturbed: score with `kind`, of the mask's frames or, with the game "preserve", of all others.
      reversed: the same with `reverse`.
    """

    class_name: str
    classes: int
    kind: str
    game: str
    mask: np.ndarray
    original: float
    perturbed: float
    reversed: float


def clip_facts(run: Run, row: int) -> ClipFacts:
    """Returns the facts of one explained clip of a run."""
    explained = run.explanations
    header = explained.header
    kind = header["mask"]["kind"]
    # Other kinds have no score of the snapped mask; their soft masks' is the closest.
    perturbed = explained[{"freeze": "FS_snapped", "reverse": "RS_snapped"}.get(kind, "S")][row]
    names = header["class_names"]
    return ClipFacts(
        names[int(explained["target"][row])],
        len(names),
        kind,
        header["mask"]["game"],
        explained["mask_snapped"][row] != 0,
        float(explained["OS"][row]),
        float(perturbed),
        float(explained["RS_snapped"][row]),
    )


def clip_words(facts: ClipFacts) -> Words:
    """Returns what the model used of one clip, honest where that is nothing."""
    name, done = f"“{facts.class_name}”", _DONE_TO.get(facts.kind, f"under {facts.kind}")
    before, after = percent(facts.original), percent(facts.perturbed)
    if facts.original <= _CHANCE / facts.classes:
        return [
            f"A guess: {name} has ",
            before,
            f", and chance is {percent(1 / facts.classes)}. The mask means little.",
        ]
    if facts.game == "preserve":
        return _preserved(facts, name, done)
    if not facts.mask.any():
        return ["Needs no frame in particular: none is worth its cost in the mask. ", before, f" for {name}."]
    length, time = int(facts.mask.sum()), len(facts.mask)
    where = f"{'frames' if length > 1 else 'frame'} {ranges(facts.mask)}"
    share = f" ({length} of {time})"
    if facts.perturbed >= facts.original:
        return [
            "No effect: the mask covers ",
            where,
            f"{share}, but {done} they leave {name} at ",
            after,
            f", from {before}.",
        ]
    verb = "Needs " if facts.perturbed <= HALF * facts.original else "Uses "
    words = [verb, where, f"{share}: {done}, {name} falls from ", before, " to ", after, "."]
    if facts.kind != "reverse":
        matters = "matters" if facts.reversed <= HALF * facts.original else "matters little"
        words[-1] += f" Their order {matters}: reversed, {percent(facts.reversed)}." if length > 1 else ""
    return words


def _preserved(facts: ClipFacts, name: str, done: str) -> Words:
    before, after = percent(facts.original), percent(facts.perturbed)
    length, time = int(facts.mask.sum()), len(facts.mask)
    if not length:
        return [f"No frame is needed: with all of them {done}, {name} has ", after, f", from {before}."]
    where = f"{'Frames' if length > 1 else 'Frame'} {ranges(facts.mask)}"
    suffice, fail = ("suffice", "do not suffice") if length > 1 else ("suffices", "does not suffice")
    if facts.perturbed < HALF * facts.original:
        verdict = f" ({length} of {time}) alone {fail}: all others {done}, {name} falls from "
        return ["", where, verdict, before, " to ", after, "."]
    return [
        "",
        where,
        f" ({length} of {time}) alone {suffice}: all others {done}, {name} has ",
        after,
        f", from {before}.",
    ]


def model_words(run: Run, store: ClipStore) -> list[str]:
    """Returns three sentences on what a model relies on over all its explained clips: how much, order, where.

    Args:
      run: the explained run.
      store: the split that was explained.
    """
    explained, statistics = run.explanations, run.statistics
    masks, kind = explained["mask_snapped"] != 0, explained.header["mask"]["kind"]
    clips, time = masks.shape
    original = explained["OS"]
    halved = int((explained["S"] <= HALF * original).sum())
    backward = int((explained["RS"] <= HALF * original).sum())
    median = float(np.median(masks.sum(axis=1)))
    done = _DONE_TO.get(kind, f"under {kind}")
    if explained.header["mask"]["game"] == "preserve":
        kept = (
            f"Its masks keep {median:g} of {time} frames (median); all others {done}, at least half of the score stays"
        )
        order = "With all others reversed, it does so"
        return [
            f"{kept} in {count(clips - halved, clips)}.",
            f"{order} in {count(clips - backward, clips)}.",
            _where(masks) + _against_truth(statistics, store),
        ]
    sentences = [
        f"Its masks cover {median:g} of {time} frames (median); {done}, they at least halve the score of "
        f"{count(halved, clips)}.",
        f"The order of those frames matters in {count(backward, clips)}: reversed, the score is at least halved.",
    ]
    if not masks.any():
        return [
            f"No frame was worth its cost in the mask of any of the {clips} clips: this model needs none in particular."
        ]
    where = _where(masks)
    truth = _against_truth(statistics, store)
    return [*sentences, where + truth]


def _where(masks: np.ndarray) -> str:
    thirds = [float(part.mean()) for part in np.array_split(masks, 3, axis=1) if part.size]
    if max(thirds) - min(thirds) < 0.15:
        return "They lie anywhere in the clips"
    third = ("at the beginning", "in the middle", "at the end")[int(np.argmax(thirds))]
    return f"They lie most often {third} of the clips"


def _against_truth(statistics: dict[str, np.ndarray], store: ClipStore) -> str:
    names = ("temporal_iou", "temporal_iou_random", "temporal_iou_centered")
    known = [statistics.get(name, np.array([np.nan])) for name in names]
    found = np.isfinite(np.stack(np.broadcast_arrays(*known))).all(axis=0)
    if store.info.layout.object_mask_shape is None or not found.any():
        return "."
    iou, random, centered = (float(values[found].mean()) for values in known)
    verdict = "no better than a guess" if iou <= max(random, centered) else "better than a guess"
    return (
        f"; their overlap with the true event (IoU) is {iou:.2f}, {verdict}: "
        f"{random:.2f} at a random place, {centered:.2f} in the middle."
    )


def count(some: int, clips: int) -> str:
    """Returns "3 of 24 clips"."""
    return f"{some} of {clips} clip{'' if clips == 1 else 's'}"


def percent(share: float) -> str:
    """Returns a probability as a person says it: "0.2 %", "12 %", "100 %"."""
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.0095 else f"{100 * share:.0f} %"


def ranges(flags: Sequence[bool] | np.ndarray) -> str:
    """Returns frames that are on, as "3–14" or "0, 5–7"; "none" where none is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(flags, bool), [False]]).astype(int)))
    spans = [f"{first}" if first == last else f"{first}–{last}" for first, last in edges.reshape(-1, 2) - (0, 1)]
    return ", ".join(spans) or "none"
