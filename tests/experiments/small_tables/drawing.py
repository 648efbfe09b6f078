"""Pictures of vector drawings and letters, as the content of PNG files."""

from __future__ import annotations

import io
import re
from pathlib import Path

import resvg_py
from PIL import Image, ImageDraw, ImageFont

SIZE = 128  # pixels on a side
STRING_OR_PROPERTY = re.compile(r"'((?:[^'\\]|\\.)*)'|props\.(\w+)(?:\[(\d)\])?")
ICON_PARK = {"size": str(SIZE), "strokeWidth": "4", "strokeLinecap": "round", "strokeLinejoin": "round", "id": "icon"}
ICON_PARK_COLOURS = ("#333", "#2F88FF", "#FFF", "#43CCF8")  # the set's own theme of four colours


def rasterise(svg: str) -> bytes:
    """Draw an SVG on white; its longer side is 128 pixels, and what has no colour of its own is black."""
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, background="white", skip_system_fonts=True)
    return squared(drawn)


def squared(image: bytes) -> bytes:
    """Place an image in the middle of a white square, so that no encoder cuts a part off."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SIZE, SIZE))
    square = Image.new("RGB", (SIZE, SIZE), "white")
    square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return to_png(square)


def to_png(picture: Image.Image) -> bytes:
    """Return the content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def letter(font: Path, character: str) -> bytes:
    """Draw a character in black on white, as large as the picture allows."""
    face = ImageFont.truetype(font, 72)
    square = Image.new("RGB", (SIZE, SIZE), "white")
    ImageDraw.Draw(square).text((SIZE / 2, SIZE / 2), character, "black", face, anchor="mm")
    return to_png(square)


def icon_park_svg(script: str) -> str:
    """Return the SVG of a script of IconPark, which joins strings and properties, in the theme of four colours."""
    body = script.split("  return ", 1)[1]
    parts = []
    for text, name, index in STRING_OR_PROPERTY.findall(body):
        parts.append((ICON_PARK_COLOURS[int(index)] if name == "colors" else ICON_PARK[name]) if name else text)
    return "".join(parts)
