"""Charts as inline SVG: distributions (a histogram a run, and under it the mean with its 95 % interval), and curves.

Colours and fonts are the page's style sheet's. Every picture says in words what it shows.
"""

import dataclasses
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

import numpy as np

from common.tables import Estimate, number_text

_WIDTH, _ROW, _AXIS = 320, 58, 22  # px: of the picture, height of a run, height of the axis.
_LEFT, _RIGHT, _BARS = 1, 5, 30  # px: margins, height of the highest bar.
_BINS = 24
_CURVES_HEIGHT, _TICKS, _NAMES = 150, 26, 92  # px: of curves, left of them, right of them.
_CEILINGS = (0.25, 0.5, 1.0)  # Of an axis of shares.
_LETTERS, _SAMPLE = 15, 20  # px: of a line of names, of a piece of a curve beside a name.


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Ends of the axis (exponents of 10 where it is logarithmic), number of bins, and what lies beyond the ends."""

    low: float
    high: float
    bins: int
    logarithmic: bool
    beyond: tuple[bool, bool]

    def place(self, values: np.ndarray) -> np.ndarray:
        """Returns where values lie on the axis, 0…1; those beyond lie at its ends."""
        with np.errstate(divide="ignore"):  # A ratio of 0 lies at the lower end.
            scaled = np.log10(values) if self.logarithmic else values
        return (np.clip(scaled, self.low, self.high) - self.low) / (self.high - self.low)

    def tick(self, share: float) -> str:
        """Returns the label at a share of the axis."""
        value = self.low + share * (self.high - self.low)
        value = 10**value if self.logarithmic else value
        mark = "≤ " if share == 0 and self.beyond[0] else "≥ " if share == 1 and self.beyond[1] else ""
        return mark + number_text(value, ".3g" if abs(value) < 1000 else ",.0f")


def distribution(
    title: str, form: str, rows: Sequence[tuple[str, np.ndarray, Estimate | None]], logarithmic: bool = False
) -> str:
    """Returns an SVG element: a histogram of each run's values on one axis.

    Whole numbers have a bar each. The axis ends at the 98th percentile where a few values lie far beyond; the last bar
    then holds all that are larger. A logarithmic one ends at the 2nd and the 98th.

    Args:
      title: of the quantity.
      form: format spec of its values.
      rows: (name of the run, values float64 [N] of its clips, estimate of their mean).
      logarithmic: for ratios, at least 0.
    """
    defined = [values[np.isfinite(values)] for _, values, _ in rows]
    axis = _axis(
        np.concatenate([*defined, [found.value for *_, found in rows if found and _is_known(found)]]), logarithmic
    )
    height = _ROW * len(rows) + _AXIS
    words = "; ".join(f"{label}: {_words(found, form)}" for label, _, found in rows)
    svg = ET.Element("svg", {"viewBox": f"0 0 {_WIDTH} {height}", "role": "img", "class": "chart"})
    svg.set("aria-label", f"{title}, distribution over clips. {words}")
    for number, ((label, _, found), values) in enumerate(zip(rows, defined, strict=True)):
        top = number * _ROW
        _text(svg, _LEFT, top + 12, label, "name")
        _text(svg, _WIDTH - _RIGHT, top + 12, number_text(found.value, form) if found else "–", "value")
        _bars(svg, axis, values, top + _ROW - 6)
        _mean(svg, axis, found, top + _ROW - 6)
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        _text(svg, _x(share), height - 6, axis.tick(share), f"tick {anchor}")
    return ET.tostring(svg, encoding="unicode")


def curves(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    """Returns an SVG element: scores, 0…1, over the number of frames perturbed or restored, a line for each order.

    Args:
      title: of the quantity.
      lines: name -> values at 0, 1, 2 … frames, all of one length; distinguished by dashes and by their names.
    """
    areas = "; ".join(f"{name}: area {np.mean(values):.3f}" for name, values in lines.items())
    last = max(len(values) for values in lines.values()) - 1
    return _lines(f"{title}, mean score over frames. {areas}", lines, 1.0, ("0 frames", f"{last}"))


def epochs(title: str, lines: Mapping[str, Sequence[float]], first: int, ceiling: float | None = None) -> str:
    """Returns an SVG element: values over the epochs of training, a line for each name.

    Args:
      title: of the quantity.
      lines: name -> values at least 0 of each epoch, all of one length; those that are not finite are left out.
      first: number of the first epoch.
      ceiling: end of the axis, or None for the largest value.
    """
    finite = [value for values in lines.values() for value in values if math.isfinite(value)]
    top = ceiling or max(finite, default=1.0) or 1.0
    last = {name: values[-1] for name, values in lines.items()}
    said = "; ".join(f"{name}: {number_text(value, '.3f')} in the end" for name, value in last.items())
    ends = (f"epoch {first}", f"{first + max(map(len, lines.values())) - 1}")
    return _lines(f"{title} over epochs. {said}", lines, top, ends)


def _lines(words: str, lines: Mapping[str, Sequence[float]], ceiling: float, ends: tuple[str, str]) -> str:
    """Returns an SVG element: values, 0…ceiling, at equal steps, a line for each name."""
    width, bottom, top = _WIDTH - _NAMES, _CURVES_HEIGHT - _AXIS, 8.0
    svg = ET.Element("svg", {"viewBox": f"0 0 {_WIDTH} {_CURVES_HEIGHT}", "role": "img", "class": "chart"})
    svg.set("aria-label", words)
    last = max(len(values) for values in lines.values()) - 1
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        _add(svg, "line", x1=_TICKS, x2=width, y1=y, y2=y, cls="base")
        _text(svg, _TICKS - 4, y + 4, f"{share * ceiling:.2g}", "tick end")
    for number, (name, values) in enumerate(lines.items()):
        places = [
            (_TICKS + step * (width - _TICKS) / max(last, 1), bottom - value / ceiling * (bottom - top))
            for step, value in enumerate(values)
            if math.isfinite(value)
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        ET.SubElement(svg, "polyline", {"points": points, "class": f"curve curve-{number}"})
        if len(places) == 1:  # A line of one point is not to be seen.
            _add(svg, "circle", cx=places[0][0], cy=places[0][1], r=3, cls="mean")
        # Lines may begin and end alike, so names stand by samples and not at the ends of the lines.
        y = top + (number + 0.5) * _LETTERS
        _add(svg, "line", x1=width + 8, x2=width + 8 + _SAMPLE, y1=y, y2=y, cls=f"curve curve-{number}")
        _text(svg, width + 14 + _SAMPLE, y + 4, name, "name")
    _text(svg, _TICKS, _CURVES_HEIGHT - 6, ends[0], "tick start")
    _text(svg, width, _CURVES_HEIGHT - 6, ends[1], "tick end")
    return ET.tostring(svg, encoding="unicode")


def over_time(title: str, masked: np.ndarray, event: np.ndarray | None, kept: np.ndarray | None = None) -> str:
    """Returns an SVG element: a bar a frame, as high as the share of clips whose mask is on; others' as steps.

    Args:
      title: of the picture.
      masked: share of clips, float [T], 0…1.
      event: share of clips whose event covers each frame, float [T], or None where that is not known.
      kept: share of clips in which each frame is of those that suffice, float [T], or None. The bars are then the
        frames needed.
    """
    height, base, top, left = 96, 74.0, 8.0, 38
    cell = (_WIDTH - left - _RIGHT) / len(masked)

    def y(share: float) -> float:
        return base - share / ceiling * (base - top)

    svg = ET.Element("svg", {"viewBox": f"0 0 {_WIDTH} {height}", "role": "img", "class": "chart"})
    lines = [line for line in (masked, event, kept) if line is not None]
    ceiling = next(top for top in _CEILINGS if top >= max(line.max() for line in lines))
    peak = int(np.argmax(masked))
    said = f"{title}: at most {number_text(float(masked[peak]), '.0%')}, in frame {peak}"
    svg.set("aria-label", said if event is None else f"{said}; the event most often in frame {int(np.argmax(event))}")
    for share in (0, ceiling):
        _add(svg, "line", x1=left, x2=_WIDTH - _RIGHT, y1=y(share), y2=y(share), cls="base")
        _text(svg, left - 4, y(share) + 4, number_text(share, ".0%"), "tick end")
    for t, share in enumerate(masked):
        _add(svg, "rect", x=left + t * cell + 0.5, y=y(share), width=cell - 1, height=base - y(share), cls="share")
    for name, line in (("kept", kept), ("event", event)):
        if line is not None:
            steps = " ".join(
                f"{left + (t + side) * cell:.1f},{y(share):.1f}" for t, share in enumerate(line) for side in (0, 1)
            )
            ET.SubElement(svg, "polyline", {"points": steps, "class": name})
    _text(svg, left, height - 6, "0", "tick start")
    _text(
        svg,
        (left + _WIDTH) / 2,
        height - 6,
        " · ".join(
            ["bars: mask on" if kept is None else "bars: needed"]
            + ["dashes: suffice"] * (kept is not None)
            + ["line: event"] * (event is not None)
        ),
        "tick middle",
    )
    _text(svg, _WIDTH - _RIGHT, height - 6, f"{len(masked) - 1}", "tick end")
    return ET.tostring(svg, encoding="unicode")


def _axis(values: np.ndarray, logarithmic: bool) -> _Axis:
    if logarithmic:
        positive = values[values > 0]
        low, high = np.log10(np.percentile(positive, [2, 98])) if len(positive) else (0.0, 1.0)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        beyond = bool((values < 10**low).any()), bool((values > 10**high).any())
        return _Axis(float(low), float(high), _BINS, True, beyond)
    if not len(values):
        return _Axis(0.0, 1.0, _BINS, False, (False, False))
    low, high, bulk = min(0.0, float(values.min())), float(values.max()), float(np.percentile(values, 98))
    cut = bulk > 0 and high > 2 * bulk
    high = bulk if cut else high
    return _Axis(low, high if high > low else low + 1, _BINS, False, (False, cut))


def _bars(svg: ET.Element, axis: _Axis, values: np.ndarray, base: float) -> None:
    """Draws a histogram; the bars of whole numbers in a small range stand at the numbers themselves."""
    places = axis.place(values)
    span = axis.high - axis.low
    if not axis.logarithmic and len(values) and np.all(values == np.rint(values)) and span <= 2 * _BINS:
        centres, counts = np.unique(places, return_counts=True)
        width = min(1 / (span + 1), 1 / _BINS)
        starts = centres * (1 - width)
    else:
        counts, edges = np.histogram(places, axis.bins, (0, 1))
        starts, width = edges[:-1], 1 / axis.bins
    for start, count in zip(starts, counts, strict=True):
        if count:
            tall = _BARS * count / counts.max()
            wide = width * (_x(1) - _x(0)) - 1
            _add(svg, "rect", x=_x(start), y=base - tall, width=wide, height=tall, rx=1, cls="bar")
    _add(svg, "line", x1=_x(0), x2=_x(1), y1=base + 0.5, y2=base + 0.5, cls="base")


def _mean(svg: ET.Element, axis: _Axis, found: Estimate | None, base: float) -> None:
    if found is None or not _is_known(found):
        return
    value, low, high = (_x(share) for share in axis.place(np.array(found[:3])))
    if math.isfinite(low):
        _add(svg, "line", x1=low, x2=high, y1=base, y2=base, cls="interval")
    _add(svg, "circle", cx=value, cy=base, r=4, cls="mean")


def _x(share: float) -> float:
    return _LEFT + 4 + share * (_WIDTH - _LEFT - _RIGHT - 8)  # The dot of a mean at an end is whole.


def _is_known(found: Estimate | None) -> bool:
    return found is not None and math.isfinite(found.value)


def _words(found: Estimate | None, form: str) -> str:
    if found is None or not _is_known(found):
        return "not defined"
    low, high = (number_text(end, form) for end in found[1:3])
    within = f", 95 % interval {low} to {high}" if math.isfinite(found.low) else ""
    return f"{number_text(found.value, form)}{within}, {found.clips} clip{'' if found.clips == 1 else 's'}"


def _text(svg: ET.Element, x: float, y: float, text: str, cls: str) -> None:
    _add(svg, "text", x=x, y=y, cls=cls).text = text


def _add(svg: ET.Element, tag: str, cls: str, **numbers: float) -> ET.Element:
    values = {name: f"{value:.2f}".rstrip("0").rstrip(".") for name, value in numbers.items()}
    return ET.SubElement(svg, tag, {**values, "class": cls})
