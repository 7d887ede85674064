"""Class names of public data sets, in label order: the two of the paper (appendices B and C), and Kinetics-400."""

import functools
import pathlib

# Appendix C. The files of the data set write the names in lower case (person01_handwaving_d1_uncomp.avi).
KTH = ("Boxing", "Handclapping", "Handwaving", "Jogging", "Running", "Walking")

# Pairs of its classes that swap in a mirror image, left for right: two names on a line, separated by a tab.
SOMETHING_SOMETHING_V2_MIRRORED = pathlib.Path(__file__).with_name("something_something_v2_mirrored.txt")


@functools.cache
def something_something_v2() -> tuple[str, ...]:
    """Returns the 174 classes of appendix B, in its order: templates without brackets."""
    return _lines("something_something_v2_classes.txt")


@functools.cache
def kinetics_400() -> tuple[str, ...]:
    """Returns the 400 classes of Kinetics (Kay et al. 2017), in the order of DeepMind's published I3D."""
    return _lines("kinetics_400_classes.txt")


def _lines(name: str) -> tuple[str, ...]:
    return tuple(pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines())
