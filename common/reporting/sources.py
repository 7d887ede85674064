"""Whose models and clips a report shows: where they come from, and their licence, as far as their files say it."""

from collections.abc import Sequence

from common.clips.clip_store import ClipStore
from common.reporting.comparison import Run

# Data set, as `dataset.json` names it -> its page, which has its terms.
_DATA_SETS = {
    "kth": "https://www.csc.kth.se/cvap/actions/",
    "something": "https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
}


def sources(runs: Sequence[Run], store: ClipStore | None) -> list[tuple[str, str, str]]:
    """Returns name, source and licence, each of the latter "" where it is not known; nothing of what says neither.

    Args:
      runs: explained runs; the same weights are named once.
      store: the clips that they are of.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for run in runs:
        header = run.explanations.header
        source, licence = header.get("source", ""), header.get("licence", "")
        if source or licence:
            found.setdefault(header["weights_sha256"], (f"Weights of {header['run']}", source, licence))
    named = [*found.values()]
    if store is not None and store.info.dataset in _DATA_SETS:
        named.append((f"Clips of {store.info.dataset}", _DATA_SETS[store.info.dataset], ""))
    return named
