"""Drawing of text into pictures of samples: font, colours, and cutting to the available width."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

from robusttune.escaping import visible

MARGIN, LINE = 12, 19  # pixels
INK, GREY = "#222222", "#8a8a8a"


def new_sheet(width: int, height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a white RGB image with a title in its first line, and the object to draw into it.

    Args:
        width: Width, in pixels.
        height: Height, in pixels.
        title: Title; it is cut to the width.
    """
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), fit(title, width - 2 * MARGIN, 16), INK, font(16))
    return sheet, draw


def tiled(images: Sequence[Image.Image]) -> Image.Image:
    """Return one image, or several in a square grid with the size of the first.

    Args:
        images: Images, at least one.

    Example:
        >>> tiled([Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]).getpixel((10, 50))
        (0, 0, 255)
    """
    if len(images) == 1:
        return images[0]
    columns = ceil(sqrt(len(images)))
    width, height = (max(1, length // columns) for length in images[0].size)
    grid = Image.new("RGB", (columns * width, columns * height), "white")
    for number, image in enumerate(images):
        place = (number % columns * width, number // columns * height)
        grid.paste(image.convert("RGB").resize((width, height)), place)
    return grid


def wrap(text: str, room: int, lines: int, size: int = 14) -> list[str]:
    """Break a text into lines of at most ``room`` pixels.

    Args:
        text: Text to break at spaces.
        room: Maximum width of a line, in pixels.
        lines: Maximum number of lines. A longer text is cut, and ends in dots.
        size: Font size, in pixels.

    Example:
        >>> wrap("a bowl of rice", room=1000, lines=2)
        ['a bowl of rice']
    """
    found, line = [], ""
    for word in text[: lines * room].split():
        longer = f"{line} {word}".strip()
        if line and font(size).getlength(longer) > room:
            found.append(line)
            line = word
        else:
            line = longer
    found.append(line)
    if len(found) > lines:
        found = [*found[: lines - 1], " ".join(found[lines - 1 :])]
    return [fit(line, room, size) for line in found]


def fit(text: str, room: int, size: int) -> str:
    """Cut a text to one line of at most ``room`` pixels, ending in dots if it was cut.

    Args:
        text: Text; control characters are made visible.
        room: Maximum width, in pixels.
        size: Font size, in pixels.
    """
    text = visible(text)
    text_font = font(size)
    # A letter is wider than a pixel, so a text with more letters than pixels need not be measured.
    if len(text) <= room and text_font.getlength(text) <= room:
        return text
    kept = bisect_right(range(room), room, key=lambda letters: ceil(text_font.getlength(text[:letters] + "...")))
    return text[: max(0, kept - 1)] + "..."


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of all pictures in the given size, in pixels."""
    return ImageFont.load_default(size)
