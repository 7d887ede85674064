"""What a search for masks needs of a model: the scores of clips under masks, and the gradient in the mask.

A `Scorer` is what each build implements. Around it stand what every search shares: `Remembering` scores no clip twice
under the same perturbation, and `in_step` runs one search a clip, each written as if it were alone, in batches.
"""

import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from common.explaining import perturbations
from common.explaining.masks import MaskConfig

_MOST_MASKS, _MOST_BYTES = 16, 8 << 20  # Of float32 clips in one call, where fewer are searched together.

_Result = TypeVar("_Result")
# A search on one clip: yields masks [k, T] and is sent an answer for each, [k, …]; returns what it found.
Search = Generator[np.ndarray, np.ndarray, _Result]
_Answers = dict[int, np.ndarray | None]  # Number of a search that goes on -> its answer; None starts it.


class Scorer(Protocol):
    """One model, N clips and a target class for each; implemented by each build.

    `clip_indices`, int [M], say for each of M masks which of the N clips it is for.
    """

    num_clips: int
    time: int

    def scores(self, clip_indices: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        """Returns F_c, float64 [M], of clips under masks, float [M, T], perturbed with a kind of `perturbations`.

        What is 1 is perturbed, whatever the game.
        """

    def gradient(self, clip_indices: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns Eq. 1, float64 [M], of masks, float [M, T], and its gradient with respect to them, float64 [M, T].

        Here and in `descend` the game of the settings decides whether m or 1 - m is perturbed (`masks.perturbed_part`).
        """

    def descend(self, clip_indices: np.ndarray, start_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the steps of Adam from mask logits, float [M, T].

        Returns:
          The masks at the end, float64 [M, T], and Eq. 1 before each step, float64 [M, iterations].
        """


class Remembering:
    """A scorer that scores a clip under the same perturbation once.

    Different masks may do the same: frame 0 cannot freeze, and a frame alone is its own reversal.

    Args:
      scorer: what scores.

    Attributes:
      forwards: int64 [N], how many perturbations of each clip were scored.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.num_clips, self.time = scorer, scorer.num_clips, scorer.time
        self._known: dict[tuple[int, bytes], float] = {}
        self.forwards = np.zeros(scorer.num_clips, np.int64)

    def scores(self, clip_indices: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        """Returns F_c of clips under masks."""
        different, which = np.unique(masks, axis=0, return_inverse=True)
        matrices = perturbations.matrix(different, kind) + 0.0  # That is 0.0 for -0.0, whose bytes are others.
        effects = [hashlib.blake2b(matrix.tobytes(), digest_size=16).digest() for matrix in matrices]
        keys = [(int(clip), effects[mask]) for clip, mask in zip(clip_indices, which.reshape(-1), strict=True)]
        new: dict[tuple[int, bytes], int] = {}  # What is not known yet -> the first place where it is asked for.
        for place, key in enumerate(keys):
            if key not in self._known:
                new.setdefault(key, place)
        if new:
            places = np.array(list(new.values()))
            found = self._scorer.scores(clip_indices[places], masks[places], kind)
            self._known |= zip(new, found.tolist(), strict=True)
            np.add.at(self.forwards, clip_indices[places], 1)
        return np.array([self._known[key] for key in keys])

    def gradient(self, clip_indices: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns Eq. 1 of masks, and its gradient with respect to them."""
        return self._scorer.gradient(clip_indices, masks)

    def descend(self, clip_indices: np.ndarray, start_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the steps of Adam."""
        return self._scorer.descend(clip_indices, start_logits)


def masks_at_a_time(batch_size: int, clip_shape: Sequence[int], config: MaskConfig) -> int:
    """Returns how many perturbed clips a build takes in one call, at least `batch_size`.

    One small clip is mostly the cost of calling: the masks that a coarse oracle or several starts ask of it go
    together. With the full oracle it is `batch_size`, as a batch's size may change scores in their last bit, and the
    paper's search is to give the same bits.

    Args:
      batch_size: clips that are searched together.
      clip_shape: T, H, W and C.
      config: oracle counts.
    """
    if config.oracle == "full":
        return batch_size
    return max(batch_size, min(_MOST_MASKS, _MOST_BYTES // (4 * math.prod(clip_shape))))


def remembering(scorer: Scorer) -> Remembering:
    """Returns a scorer that remembers: the given one if it does."""
    return scorer if isinstance(scorer, Remembering) else Remembering(scorer)


def batches(count: int, size: int) -> list[slice]:
    """Returns the slices that cut `count` clips or masks into batches of `size`, the last one perhaps smaller."""
    return [slice(start, start + size) for start in range(0, count, size)]


def places_in(kept: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Returns where each of the wanted clips [M] is among those kept [L], int [M]; None where one is missing."""
    order = np.argsort(kept, kind="stable")
    places = order[np.minimum(np.searchsorted(kept, wanted, sorter=order), len(kept) - 1)]
    return places if np.array_equal(kept[places], wanted) else None


def side_by_side(searches: Sequence[Search[None]]) -> Search[None]:
    """Runs searches on the same clip side by side: what they ask in a round is asked together; the finished leave."""
    answers: _Answers = dict.fromkeys(range(len(searches)))
    while asked := _advance(searches, answers, {}):
        answers = _split((yield np.concatenate(list(asked.values()))), asked)


def in_step(
    searches: Sequence[Search[_Result]], answer: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> list[_Result]:
    """Runs searches side by side: what all of them ask in a round is answered in one call; the finished leave.

    Args:
      searches: one for each of N clips.
      answer: (clip indices [M], masks [M, T]) -> answers [M, …].

    Returns:
      What each search returned.
    """
    results: dict[int, _Result] = {}
    answers: _Answers = dict.fromkeys(range(len(searches)))
    while asked := _advance(searches, answers, results):
        clip_indices = np.repeat(list(asked), [len(masks) for masks in asked.values()])
        answers = _split(answer(clip_indices, np.concatenate(list(asked.values()))), asked)
    return [results[clip] for clip in range(len(searches))]


def _advance(
    searches: Sequence[Search[_Result]], answers: _Answers, results: dict[int, _Result]
) -> dict[int, np.ndarray]:
    """Sends searches their answers; returns what they ask next, by number, and puts what others found in `results`."""
    asked: dict[int, np.ndarray] = {}
    for number, received in answers.items():
        try:
            asked[number] = searches[number].send(received)  # type: ignore[arg-type]
        except StopIteration as finished:
            results[number] = finished.value
    return asked


def _split(together: np.ndarray, asked: dict[int, np.ndarray]) -> _Answers:
    """Returns each search's own rows of what was answered to all."""
    ends = np.cumsum([len(masks) for masks in asked.values()])
    return dict(zip(asked, np.split(together, ends[:-1]), strict=True))
