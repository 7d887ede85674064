"""Class names of the two data sets of the paper, in label order (appendices B and C)."""

import functools
import pathlib

# Appendix C. The files of the data set write the names in lower case (person01_handwaving_d1_uncomp.avi).
KTH = ("Boxing", "Handclapping", "Handwaving", "Jogging", "Running", "Walking")

_SOMETHING_SOMETHING_V2 = pathlib.Path(__file__).with_name("something_something_v2_classes.txt")


@functools.cache
def something_something_v2() -> tuple[str, ...]:
    """Returns the 174 classes of appendix B, in its order: templates without brackets."""
    return tuple(_SOMETHING_SOMETHING_V2.read_text(encoding="utf-8").splitlines())
