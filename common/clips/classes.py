"""Class names of public data sets, in label order: the two of the paper (appendices B and C), and Kinetics-400."""

import functools
import pathlib

from common import errors

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


def read_names(path: pathlib.Path) -> tuple[str, ...]:
    """Returns the class names of a text file of a user's own, one a line, in label order.

    Blanks around a name, blank lines at the end and a byte order mark, which some editors write, are no part of it.

    Args:
      path: what `--class_names` names.

    Raises:
      errors.UserError: for a file that cannot be read, no names, a line without one, and two that are the same.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise errors.UserError(f"--class_names must be a readable text file. Received: {error}") from None
    names = tuple(line.strip() for line in text.rstrip().split("\n"))
    if not all(names) or len(set(names)) < len(names):
        raise errors.UserError(
            "--class_names must name a file with one class a line, all different. "
            f"Received: {len(names)} lines, {len(set(names) - {''})} different names, in {path}"
        )
    return names


def _lines(name: str) -> tuple[str, ...]:
    return tuple(pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines())
