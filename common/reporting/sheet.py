"""A figure as a sheet of pictures, boxes, discs and lines of text: painted as pixels, or written as SVG or PDF.

The three show the same layout. In SVG and PDF pictures keep their own pixels, enlarged without smoothing, and text is
text: it can be searched, copied and restyled. SVG takes the reader's sans-serif font, PDF Helvetica, one of the fonts
that every reader of PDF has; neither is embedded. Letters that Helvetica's Latin encoding lacks are painted.
"""

import base64
import dataclasses
import io
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from common.reporting import drawing, figure_files, fonts

Color = tuple[int, int, int]  # RGB, 0…255.

_POINTS = 72  # In an inch.
# Widths of Helvetica's letters from blank to ~, in 1/1000 of their size (Adobe's metrics of the standard fonts).
_HELVETICA = """
278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556 278 278 584 584
584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 611 722 667 944 667 667 611 278
278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 500 500
500 334 260 334 584"""
_WIDTHS = dict(zip(map(chr, range(32, 127)), map(int, _HELVETICA.split()), strict=True))


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image, uint8 [h, w, 3], each of its pixels `factor` times along both sides, with its corner at x, y (px)."""

    x: int
    y: int
    image: np.ndarray
    factor: int


@dataclasses.dataclass(frozen=True)
class Box:
    """A filled rectangle; px."""

    x: int
    y: int
    width: int
    height: int
    color: Color


@dataclasses.dataclass(frozen=True)
class Disc:
    """A filled disc around x, y, in px, where whole numbers are centres of pixels."""

    x: float
    y: float
    radius: float
    color: Color


@dataclasses.dataclass(frozen=True)
class Text:
    """A line of text, no wider than `width`: letters of `size` px, or smaller ones where it would be cut.

    Attributes:
      x: left end of the line's place, px; `upright`: of the line as it stands.
      y: upper end of the line's place, px.
      width: of the place along the line, px.
      size: of the letters, px.
      text: of any script.
      color: of the letters.
      anchor: where in its place the text lies: "start" or "middle".
      upright: whether the line is turned to read from bottom to top.
    """

    x: int
    y: int
    width: int
    size: int
    text: str
    color: Color
    anchor: str = "start"
    upright: bool = False

    def fitted(self) -> tuple[str, float, float]:
        """Returns the text as fonts can draw it, the size of its letters, and its length in px."""
        text, file = fonts.fitting(self.text)
        length = drawing.font(self.size, file).getlength(text)
        share = min(1.0, self.width / max(1.0, length))
        return text, max(1.0, self.size * share), length * share

    def painted(self) -> np.ndarray:
        """Returns its place as pixels."""
        line = drawing.text(self.text, self.width, self.size, self.color, centered=self.anchor == "middle")
        return np.rot90(line) if self.upright else line


Item = Picture | Box | Disc | Text


@dataclasses.dataclass(frozen=True)
class Sheet:
    """What is drawn, later items over earlier ones, on white.

    Attributes:
      width: px.
      height: px.
      inches: width on paper.
      items: what is drawn.
    """

    width: int
    height: int
    inches: float
    items: Sequence[Item]


def paint(sheet: Sheet) -> np.ndarray:
    """Returns a sheet as pixels, uint8 [h, w, 3]."""
    canvas = np.full((sheet.height, sheet.width, 3), 255, np.uint8)
    for item in sheet.items:
        if isinstance(item, Disc):
            _paint_disc(canvas, item)
        elif isinstance(item, Box):
            canvas[item.y : item.y + item.height, item.x : item.x + item.width] = item.color
        else:
            pixels = item.painted() if isinstance(item, Text) else drawing.enlarge(item.image[None], item.factor)[0]
            canvas[item.y : item.y + pixels.shape[0], item.x : item.x + pixels.shape[1]] = pixels
    return canvas


def _paint_disc(canvas: np.ndarray, disc: Disc) -> None:
    bits = 4  # OpenCV takes parts of a px as integers with this many bits after the point.
    center = (round(disc.x * 2**bits), round(disc.y * 2**bits))
    cv2.circle(canvas, center, round(max(0.5, disc.radius) * 2**bits), disc.color, cv2.FILLED, cv2.LINE_AA, bits)


def svg(sheet: Sheet) -> str:
    """Returns a sheet as SVG 1.1, with its pictures inside."""
    size = {
        "width": f"{sheet.inches}in",
        "height": f"{sheet.inches * sheet.height / sheet.width:.3f}in",
        "viewBox": f"0 0 {sheet.width} {sheet.height}",
    }
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    for item in sheet.items:
        if isinstance(item, Picture):
            data = base64.b64encode(figure_files.png(item.image)).decode("ascii")
            box = _numbers(x=item.x, y=item.y, width=_width(item), height=_height(item))
            link = {"href": f"data:image/png;base64,{data}", "style": "image-rendering: pixelated"}
            ET.SubElement(root, "image", {**box, **link})
        elif isinstance(item, Box):
            box = _numbers(x=item.x, y=item.y, width=item.width, height=item.height)
            ET.SubElement(root, "rect", {**box, "fill": _hex(item.color)})
        elif isinstance(item, Disc):
            # A pixel's centre is half a px from where SVG begins to count.
            circle = _numbers(cx=item.x + 0.5, cy=item.y + 0.5, r=item.radius)
            ET.SubElement(root, "circle", {**circle, "fill": _hex(item.color)})
        else:
            _svg_text(root, item)
    return ET.tostring(root, encoding="unicode")


def _svg_text(root: ET.Element, item: Text) -> None:
    text, size, length = item.fitted()
    x, y, turn = _baseline(item, size, length)
    attributes = {**_numbers(x=0, y=0, textLength=length), "font-size": f"{size:.2f}", "font-family": "sans-serif"}
    attributes |= {"fill": _hex(item.color), "lengthAdjust": "spacingAndGlyphs"}
    attributes["transform"] = f"translate({x:.2f} {y:.2f})" + (" rotate(-90)" if turn else "")
    if text.strip():
        ET.SubElement(root, "text", attributes).text = text


def _baseline(item: Text, size: float, length: float) -> tuple[float, float, bool]:
    """Returns where a text's first letter stands, and whether it is turned by 90 degrees."""
    along = (item.width - length) / 2 if item.anchor == "middle" else 0.0
    down = drawing.font(size).getmetrics()[0]  # From the top of the line to the feet of the letters.
    if item.upright:
        return item.x + down, item.y + item.width - along, True
    return item.x + along, item.y + down, False


def pdf(sheet: Sheet) -> bytes:
    """Returns a sheet as a PDF 1.4 of one page, with its pictures inside."""
    scale = sheet.inches * _POINTS / sheet.width  # Points a px.
    content = [f"{scale:.6f} 0 0 {-scale:.6f} 0 {sheet.height * scale:.4f} cm"]
    pictures: list[np.ndarray] = []
    for item in sheet.items:
        if isinstance(item, Box):
            content.append(f"{_fill(item.color)} {item.x} {item.y} {item.width} {item.height} re f")
        elif isinstance(item, Disc):
            content.append(f"{_fill(item.color)} {_circle(item.x + 0.5, item.y + 0.5, item.radius)} f")
        elif isinstance(item, Text) and item.text.isascii():
            content.append(_pdf_text(item))
        else:
            picture = Picture(item.x, item.y, item.painted(), 1) if isinstance(item, Text) else item
            place = f"{_width(picture)} 0 0 {-_height(picture)} {picture.x} {picture.y + _height(picture)} cm"
            content.append(f"q {place} /P{len(pictures)} Do Q")
            pictures.append(picture.image)
    return _pdf_file(sheet.width * scale, sheet.height * scale, "\n".join(content).encode("ascii"), pictures)


def _pdf_text(item: Text) -> str:
    text, size, length = item.fitted()
    text = "".join(letter for letter in text if letter in _WIDTHS)
    natural = sum(_WIDTHS[letter] for letter in text) * size / 1000
    if not natural:
        return ""
    size *= min(1.0, length / natural)  # Helvetica is wider than the font that was measured, or as wide.
    length = min(length, natural)
    x, y, turn = _baseline(item, size, length)
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    axes = "0 -1 -1 0" if turn else "1 0 0 -1"  # The page's y points down here, that of letters up.
    return f"BT {_fill(item.color)} /F {size:.3f} Tf {axes} {x:.2f} {y:.2f} Tm ({escaped}) Tj ET"


def _circle(x: float, y: float, radius: float) -> str:
    """Returns a circle as four cubic curves, which are off by less than 0.03 % of the radius."""
    c = 0.5523 * radius
    quarters = [
        ((radius, c), (c, radius), (0, radius)),
        ((-c, radius), (-radius, c), (-radius, 0)),
        ((-radius, -c), (-c, -radius), (0, -radius)),
        ((c, -radius), (radius, -c), (radius, 0)),
    ]
    curves = (" ".join(f"{x + dx:.2f} {y + dy:.2f}" for dx, dy in quarter) + " c" for quarter in quarters)
    return f"{x + radius:.2f} {y:.2f} m " + " ".join(curves)


def _pdf_file(width: float, height: float, content: bytes, pictures: Sequence[np.ndarray]) -> bytes:
    names = " ".join(f"/P{number} {6 + number} 0 R" for number in range(len(pictures)))
    resources = f"<< /Font << /F 5 0 R >> /XObject << {names} >> >>"
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.3f} {height:.3f}] /Contents 4 0 R "
        f"/Resources {resources} >>".encode("ascii"),
        _stream("", content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        *(_pdf_picture(picture) for picture in pictures),
    ]
    out = io.BytesIO(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, body in enumerate(bodies, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, start))
    return out.getvalue()


def _pdf_picture(image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    return _stream(
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB /BitsPerComponent 8",
        image.tobytes(),
    )


def _stream(entries: str, data: bytes) -> bytes:
    packed = zlib.compress(data, 9)
    head = f"<< {entries} /Filter /FlateDecode /Length {len(packed)} >>\nstream\n"
    return head.encode("ascii") + packed + b"\nendstream"


def _width(picture: Picture) -> int:
    return picture.image.shape[1] * picture.factor


def _height(picture: Picture) -> int:
    return picture.image.shape[0] * picture.factor


def _fill(color: Color) -> str:
    return " ".join(f"{part / 255:.3f}" for part in color) + " rg"


def _hex(color: Iterable[int]) -> str:
    return "#" + bytes(color).hex()


def _numbers(**values: float) -> dict[str, str]:
    return {name: f"{value:.2f}".rstrip("0").rstrip(".") for name, value in values.items()}
