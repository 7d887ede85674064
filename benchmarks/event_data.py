"""The data sets of planted events: where their clips are by default, and which classes are each other's reversal."""

import pathlib

from common.clips import suites
from data_prep import synthetic

DATA = {
    "planted": (suites.folder("rare"), suites.reverse_pairs("rare")),
    "synthetic": (pathlib.Path("data/synthetic"), synthetic.REVERSE_PAIRS),
}
