"""What a model used, in words: a few sentences for a clip, and for a model over all its clips.

A clip's sentences speak of whole frames, so they are made from the snapped mask and the scores under it. "Needs" and
"matters" are said where a perturbation takes at least half of the score (`explanation_statistics.HALF`).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from common.clips.clip_store import ClipStore
from common.explaining.explanation_statistics import HALF
from common.reporting.comparison import Run

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


def _done_to(kind: str) -> str:
    return _DONE_TO.get(kind, f"under {kind}")


def mark(facts: ClipFacts) -> str:
    """Returns one word for a clip's mask, as strong as `clip_words`: "needs", "uses", "suffices", "keeps" or "mask"."""
    if facts.original <= _CHANCE / facts.classes:
        return "mask"
    if facts.game == "preserve":
        return "keeps" if facts.perturbed < HALF * facts.original else "suffices"
    return "needs" if facts.perturbed <= HALF * facts.original else "uses"


def truth_words(store: ClipStore, place: int) -> str | None:
    """Returns what is known to be the evidence of a clip: the frames of its event, and which are needed or suffice.

    Args:
      store: the split.
      place: of the clip in it.

    Returns:
      None where the store has no ground truth.
    """
    layout = store.info.layout
    if layout.object_mask_shape is None:
        return None
    salient = store.column("salient")[place] != 0
    if not salient.any():
        return "no event: no frame is needed"
    event = f"event in {_frames(salient)}"
    if not layout.sufficient_sets:
        return event
    sets = [one for one in store.column("sufficient")[place] != 0 if one.any()]
    needed = store.column("needed")[place] != 0
    suffice = " or ".join(ranges(one) for one in sets)
    if len(sets) == 1 and (sets[0] == needed).all() and (sets[0] == salient).all():
        return f"{event}, needed and sufficient"
    return f"{event}; {suffice} alone suffices, needed: {ranges(needed)}"


def _frames(flags: np.ndarray) -> str:
    return f"{'frames' if flags.sum() > 1 else 'frame'} {ranges(flags)}"


def clip_words(facts: ClipFacts) -> Words:
    """Returns what the model used of one clip, honest where that is nothing."""
    name, done = f"“{facts.class_name}”", _done_to(facts.kind)
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
    where = _frames(facts.mask)
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
    where = _frames(facts.mask).capitalize()
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


def model_words(run: Run, store: ClipStore, preserving: Run | None = None) -> list[str]:
    """Returns a few sentences on what a model relies on over all its explained clips: how much, order, where.

    Of one clip alone they are its own. Where most guesses are hardly above chance, that is said first.

    Args:
      run: the explained run.
      store: the split that was explained.
      preserving: the run of the same model whose masks preserve (see `comparison.partners`), or None.
    """
    if len(run.explanations) == 1:
        both = [run, *([preserving] if preserving else [])]
        return list(dict.fromkeys("".join(clip_words(clip_facts(one, 0))) for one in both))
    guessed = run.explanations["OS"] <= _CHANCE / len(run.explanations.header["class_names"])
    if guessed.mean() > HALF:
        chance = percent(1 / len(run.explanations.header["class_names"]))
        warned = [f"Guesses: the class explained is hardly above chance, {chance}, in {_of(guessed)}."]
        return [*warned, "What their masks say means little.", *_relied(run, store, preserving)]
    return _relied(run, store, preserving)


def _relied(run: Run, store: ClipStore, preserving: Run | None) -> list[str]:
    if run.game == "preserve":
        return [_kept(run), _kept_order(run), f"They lie {_where(run, store)}"]
    if run.explanations["mask_snapped"].any():
        frames = f"the frames {'needed' if _halved(run).mean() > HALF else 'used'}"
        said = [_lost(run), _lost_order(run, frames if preserving else "those frames")]
        where = [f"{frames.capitalize() if preserving else 'They'} lie {_where(run, store)}"]
    else:
        clips = count(len(run.explanations))
        said = [f"No frame was worth its cost in the mask of any of the {clips}: this model needs none in particular."]
        where = []
    if preserving is None:
        return said + where
    said.insert(1, _kept(preserving))
    kept = "that suffice" if _stays(preserving).mean() > HALF else "kept"
    return [*said, *where, f"The frames {kept} lie {_where(preserving, store)}"]


def _halved(run: Run) -> np.ndarray:
    return run.explanations["S"] <= HALF * run.explanations["OS"]


def _stays(run: Run) -> np.ndarray:
    return ~_halved(run)


def _lost(run: Run) -> str:
    halved = _halved(run)
    verb = "Needs" if halved.mean() > HALF else "Uses"
    return f"{verb} {_median_length(run)}: {_done_to(run.kind)}, they at least halve the score of {_of(halved)}."


def _lost_order(run: Run, frames: str) -> str:
    explained = run.explanations
    backward = explained["RS"] <= HALF * explained["OS"]
    return f"The order of {frames} matters in {_of(backward)}: reversed, the score is at least halved."


def _kept(run: Run) -> str:
    stays = _stays(run)
    suffice, do = ("suffices", "does") if _median_count(run) == 1 else ("suffice", "do")
    verdict = f"alone {suffice}" if stays.mean() > HALF else f"alone {do} not suffice"
    return (
        f"{_median_length(run)} {verdict}: all others {_done_to(run.kind)}, more than half of the score stays in "
        f"{_of(stays)}."
    )


def _kept_order(run: Run) -> str:
    explained = run.explanations
    return f"With all others reversed, it does so in {_of(explained['RS'] > HALF * explained['OS'])}."


def _median_count(run: Run) -> float:
    return float(np.median((run.explanations["mask_snapped"] != 0).sum(axis=1)))


def _median_length(run: Run) -> str:
    return f"{_median_count(run):g} of {run.explanations['mask'].shape[1]} frames (median)"


def _where(run: Run, store: ClipStore) -> str:
    masks = run.explanations["mask_snapped"] != 0
    thirds = [float(part.mean()) for part in np.array_split(masks, 3, axis=1) if part.size]
    third = ("at the beginning", "in the middle", "at the end")[int(np.argmax(thirds))]
    where = "anywhere in the clips" if max(thirds) - min(thirds) < 0.15 else f"most often {third} of the clips"
    return where + _against_truth(run.statistics, store)


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


def count(clips: int) -> str:
    """Returns "24 clips", or "1 clip"."""
    return f"{clips} clip{'' if clips == 1 else 's'}"


def _of(which: np.ndarray) -> str:
    return f"{int(which.sum())} of {count(len(which))}"


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
