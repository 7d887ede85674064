"""Which axis of a layer's output is which, and how tokens are folded back to a grid in time and space (section 3.2).

Grad-CAM wants activations `[N, T', H', W', C']`. A layer of a user's model may return anything that holds them: its
axes are written as letters in the order in which they lie, those that share an axis in brackets, the outermost first.
"NCTHW" is a 3-D convolution in PyTorch, "N(THW)C" tokens as most video transformers have them, "N(HWT)C" the tokens of
TimeSformer, "(NT)(HW)C" the tokens of single frames, "(NT)CHW" a 2-D convolution on single frames. Here is the
arithmetic of shapes alone; slicing, reshaping and transposing are the builds'.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from common import errors

BORDER_AXES = "NTHWC"  # Of clips, and of activations where a build hands them over.
_AXES = re.compile(r"([NTHWC]|\([NTHW]{2,}\))+")
_GROUP = re.compile(r"\((\w+)\)|(\w)")
_GRID = "THW"
_MOST_NAMES = 40  # More are no help in one line.


def permutation(have: str, want: str) -> tuple[int, ...]:
    """Returns the axes of an array that has the order `have`, in the order `want`: `array.transpose(permutation)`.

    Args:
      have: a letter for each axis, those of `BORDER_AXES` in any order; PyTorch's 3-D layers have "NCTHW".
      want: the same letters.
    """
    for axes in (have, want):
        if sorted(axes) != sorted(BORDER_AXES):
            raise errors.UserError(f"Axes must be the letters {BORDER_AXES} in some order. Received: {axes!r}")
    return tuple(have.index(axis) for axis in want)


@dataclasses.dataclass(frozen=True)
class Fold:
    """How one output becomes activations `[N, T', H', W', C']`: leave out, reshape, transpose; and back, in reverse.

    Attributes:
      axis: the axis at whose beginning tokens are left out.
      skipped: how many.
      shape: of the reshaping, a size for each letter, -1 for N; None if no letters share an axis: then nothing is
        reshaped.
      order: of the transposing.
    """

    axis: int
    skipped: int
    shape: tuple[int, ...] | None
    order: tuple[int, ...]

    @property
    def back(self) -> tuple[int, ...]:
        """The order of the transposing that takes `order` back."""
        return tuple(self.order.index(axis) for axis in range(len(self.order)))


@dataclasses.dataclass(frozen=True)
class LayerAxes:
    """The axes of a layer's output.

    Attributes:
      axes: as letters (see the module); each of N, T, H, W and C once, C never in brackets.
      grid: T', H', W' of the tokens; None where brackets hold none of them, or they follow from the model's patches.
      class_tokens: how many tokens before those of the grid are left out; None for 0 or 1, whichever fits.
    """

    axes: str
    grid: tuple[int, int, int] | None = None
    class_tokens: int | None = None

    def __post_init__(self) -> None:
        if not _AXES.fullmatch(self.axes) or sorted("".join(self.groups)) != sorted(BORDER_AXES):
            raise errors.UserError(
                f"Axes must be the letters {BORDER_AXES} in some order, those that share an axis in brackets, as in "
                f"'N(THW)C'. Received: {self.axes!r}"
            )
        if self.grid is not None and (len(self.grid) != 3 or min(self.grid) < 1):
            raise errors.UserError(f"grid must be the sizes T', H', W', at least 1. Received: {self.grid}")
        if self.class_tokens is not None and self.class_tokens < 0:
            raise errors.UserError(f"class_tokens must be at least 0. Received: {self.class_tokens}")

    @property
    def groups(self) -> list[str]:
        """The letters of each axis."""
        return ["".join(match) for match in _GROUP.findall(self.axes)]

    def check_channels(self, channels: int | None) -> None:
        """Refuses axes in which C is not where the layer has its channels.

        Args:
          channels: the axis, from the end if negative; None where the layer does not say.
        """
        groups = self.groups
        if channels is not None and groups.index("C") != channels % len(groups):
            raise errors.UserError(
                "activations_axes must have C where the layer has its channels, axis "
                f"{channels % len(groups)}. Received: {self.axes!r}"
            )

    def fold(self, shape: tuple[int | None, ...], clip: tuple[int, int, int], patches: Iterable[tuple]) -> Fold:
        """Returns how the layer's output becomes activations `[N, T', H', W', C']`.

        Args:
          shape: of the output, an axis for each group; None for a size that is not known yet.
          clip: T, H, W.
          patches: sizes in frames and px of all patches that the model cuts clips into, where `grid` is None.

        Raises:
          UserError: for tokens that are not those of the grid.
        """
        groups = self.groups
        letters = "".join(groups)
        order = permutation(letters, BORDER_AXES)
        shared = [axis for axis, group in enumerate(groups) if len(group) > 1]
        if not shared:
            return Fold(0, 0, None, order)
        sizes: dict[str, int | None] = dict(zip(_GRID, self._grid(clip, patches), strict=True))
        sizes |= {group: shape[axis] for axis, group in enumerate(groups) if len(group) == 1} | {"N": -1}
        if None in sizes.values():
            raise errors.UserError(f"Tokens must have sizes that are known, but for N. Received: {shape}")
        known = {letter: size for letter, size in sizes.items() if size is not None}
        tokens, skipped = 0, 0
        for axis in shared:
            inner = [known[letter] for letter in groups[axis] if letter != "N"]
            if len(inner) == len(groups[axis]):
                tokens, skipped = axis, self._skipped(shape[axis], inner)
            elif (shape[axis] or 0) % math.prod(inner):
                raise errors.UserError(
                    f"An axis ({groups[axis]}) must be a multiple of {math.prod(inner)}. Received: {shape}"
                )
        return Fold(tokens, skipped, tuple(known[letter] for letter in letters), order)

    def _grid(self, clip: tuple[int, int, int], patches: Iterable[tuple]) -> tuple[int, ...]:
        """Returns T', H', W'."""
        if self.grid is not None:
            return self.grid
        known = sorted(set(patches))
        if len(known) == 1:
            return tuple(size // patch for size, patch in zip(clip, known[0], strict=True))
        shared = {letter for group in self.groups if len(group) > 1 for letter in group}
        if shared <= set("NT"):  # Single frames in the batch: a patch in space does not matter.
            return clip
        raise errors.UserError(
            f"grid must be given, the sizes T', H', W' of the tokens: the model does not cut clips into patches of one "
            f"size. Received: none, for patches of {', '.join('x'.join(map(str, patch)) for patch in known) or 'no'} "
            "size"
        )

    def _skipped(self, received: int | None, sizes: list[int]) -> int:
        """Returns how many tokens come before those of the grid."""
        wanted = math.prod(sizes)
        allowed = (0, 1) if self.class_tokens is None else (self.class_tokens,)
        if received is None and len(allowed) == 1:
            return allowed[0]
        if received is None or received - wanted not in allowed:
            raise errors.UserError(
                f"Tokens must be those of the grid, {' x '.join(map(str, sizes))}, after "
                f"{' or '.join(map(str, allowed))} class tokens (grid, class_tokens). "
                f"Received: {'an unknown number' if received is None else received}"
            )
        return received - wanted


def find_layer(endpoint: str, layers: Iterable[tuple[Sequence[str], Any]], separator: str) -> Any:
    """Returns the layer of a name: that very name, or else the only one whose path ends in it.

    Args:
      endpoint: the name.
      layers: the paths by which a layer may be called, the one to show first, and the layer.
      separator: between a part of a model and a part of that part.

    Raises:
      UserError: for a name of no layer, or of several.
    """
    known = list(layers)
    for matches in (str.__eq__, lambda path, name: path.endswith(separator + name)):
        found = {
            id(layer): layer for paths, layer in known if endpoint and any(matches(path, endpoint) for path in paths)
        }
        if len(found) == 1:
            return found.popitem()[1]
        if found:
            raise errors.UserError(
                "endpoint must be the name of one layer (write more of its path). "
                f"Received: {endpoint!r}, of {len(found)}"
            )
    names = [paths[0] for paths, _ in known]
    shown = names[-_MOST_NAMES:]  # Grad-CAM wants a late one.
    before = f"{len(names) - len(shown)} more, " if len(names) > len(shown) else ""
    raise errors.UserError(f"endpoint must be one of {before}{', '.join(shown)}. Received: {endpoint!r}")
