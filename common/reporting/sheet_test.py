import base64
import io
import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from PIL import Image

from common.reporting import sheet
from common.reporting.sheet import Box, Disc, Picture, Sheet, Text

IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
RED, BLACK = (178, 24, 43), (0, 0, 0)
SHEET = Sheet(
    100,
    50,
    2.0,
    [
        Picture(10, 5, IMAGE, 3),
        Box(40, 5, 20, 10, RED),
        Disc(49.5, 9.5, 3, (255, 255, 255)),
        Text(0, 30, 100, 10, "a (b) & c", BLACK, "middle"),
        Text(88, 0, 30, 8, "up", BLACK, "middle", upright=True),
    ],
)


def test_a_painted_sheet():
    pixels = sheet.paint(SHEET)
    assert pixels.shape == (50, 100, 3)
    np.testing.assert_array_equal(pixels[5:11, 10:22], IMAGE.repeat(3, axis=0).repeat(3, axis=1))
    assert tuple(pixels[5, 40]) == tuple(pixels[14, 59]) == RED and tuple(pixels[9, 49]) == (255, 255, 255)
    assert (pixels[30:44, 20:80] < 255).any() and (pixels[0:30, 88:100] < 255).any()
    assert (pixels[:, 70:88][:28] == 255).all()


def test_svg_has_text_as_text_and_pictures_with_their_own_pixels():
    root = ET.fromstring(sheet.svg(SHEET))
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("2.0in", "1.000in", "0 0 100 50")
    space = "{http://www.w3.org/2000/svg}"
    assert [text.text for text in root.iter(f"{space}text")] == ["a (b) & c", "up"]
    assert "rotate(-90)" in list(root.iter(f"{space}text"))[1].get("transform")
    (image,) = root.iter(f"{space}image")
    data = base64.b64decode(image.get("href").partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), IMAGE)
    assert [image.get(name) for name in ("x", "y", "width", "height")] == ["10", "5", "12", "6"]
    box = list(root.iter(f"{space}rect"))[1]
    assert box.get("fill") == "#b2182b" and box.get("width") == "20"


def streams(data):
    """Returns the unpacked streams of a PDF, after a check that its table tells where each object begins."""
    start = int(re.search(rb"startxref\n(\d+)\n", data).group(1))
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n", data[start:])]
    for number, place in enumerate(places, start=1):
        assert data[place:].startswith(b"%d 0 obj\n" % number)
    found = []
    for head in re.finditer(rb"/Length (\d+) >>\nstream\n", data):
        found.append(zlib.decompress(data[head.end() : head.end() + int(head.group(1))]))
    return found


def test_pdf_has_text_as_text_and_pictures_with_their_own_pixels():
    data = sheet.pdf(SHEET)
    assert data.startswith(b"%PDF-1.4\n") and data.endswith(b"%%EOF\n") and b"/MediaBox [0 0 144.000 72.000]" in data
    content, picture = streams(data)
    assert rb"(a \(b\) & c) Tj" in content and b"(up) Tj" in content and b"0 -1 -1 0 " in content
    assert b"/Width 4 /Height 2" in data and picture == IMAGE.tobytes()
    assert b"q 12 0 0 -6 10 11 cm /P0 Do Q" in content


@pytest.mark.parametrize("text", ["верх", "上"])
def test_letters_that_helvetica_lacks_are_painted_in_a_pdf(text):
    content, picture = streams(sheet.pdf(Sheet(100, 20, 1.0, [Text(0, 0, 100, 12, text, BLACK)])))
    assert b"Tj" not in content and b"/P0 Do" in content and min(picture) < 255


def test_long_text_is_made_smaller_not_cut():
    long = Text(0, 0, 40, 10, "W" * 30, BLACK)
    _, size, length = long.fitted()
    assert size < 3 and length == pytest.approx(40)
    (text,) = ET.fromstring(sheet.svg(Sheet(40, 14, 1.0, [long]))).iter("{http://www.w3.org/2000/svg}text")
    assert float(text.get("textLength")) == pytest.approx(40)
    letters, scale = re.search(rb"/F ([\d.]+) Tf.*\((W+)\)", streams(sheet.pdf(Sheet(40, 14, 1.0, [long])))[0]).groups()
    assert 30 * 0.944 * float(letters) <= 40.01 and len(scale) == 30
