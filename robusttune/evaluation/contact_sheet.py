"""Pictures of samples with their image and text, both clean and with noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image, ImageDraw

from robusttune.evaluation.drawing import GREY, INK, LINE, MARGIN, fit, font, new_sheet
from robusttune.evaluation.sample_text import NO_IMAGE, NO_TEXT, text_or_none

THUMBNAIL = 124  # pixels
COLUMNS = 8


class Strip(NamedTuple):
    """A sample with all variants of its image and text.

    Attributes:
        id: Id of the sample.
        label: Names of its classes, see `names_or_none`.
        images: Images by variant (``clean``, or the name of a noise); empty if the sample has no image.
        texts: Texts by variant; empty if the sample has no text.
        problem: Reason why the image cannot be read, or None.

    Example:
        >>> Strip("7", "cup", images={}, texts={"clean": "a red cup", "truncation": "a red"}).texts["truncation"]
        'a red'
    """

    id: str
    label: str
    images: Mapping[str, Image.Image]
    texts: Mapping[str, str]
    problem: str | None = None


def draw_strips(strips: list[Strip], title: str) -> Image.Image:
    """Draw samples below each other, each with its named images above its texts.

    Args:
        strips: Samples.
        title: Title of the picture.

    Returns:
        RGB image.

    Example:
        >>> strip = Strip("sample-1", "cup", images={}, texts={"clean": "a red cup"})
        >>> draw_strips([strip], "Demo").mode
        'RGB'
    """
    width = COLUMNS * (THUMBNAIL + MARGIN) + MARGIN
    head = 2 * MARGIN + LINE
    sheet, draw = new_sheet(width, head + sum(map(_height, strips)), title)
    top = head
    for strip in strips:
        _draw_strip(sheet, draw, strip, top)
        top += _height(strip)
    return sheet


def _height(strip: Strip) -> int:
    image = (THUMBNAIL + LINE) * -(-len(strip.images) // COLUMNS) if strip.images else LINE
    return LINE + 6 + image + LINE * max(1, len(strip.texts)) + 2 * MARGIN


def _draw_strip(sheet: Image.Image, draw: ImageDraw.ImageDraw, strip: Strip, top: int) -> None:
    room = sheet.width - 2 * MARGIN
    draw.line((MARGIN, top, sheet.width - MARGIN, top), fill="#cccccc")
    top += 6
    draw.text((MARGIN, top), fit(f"{strip.label}   ({strip.id})", room, 15), INK, font(15))
    top += LINE + 2
    if not strip.images:
        draw.text((MARGIN, top), fit(strip.problem or NO_IMAGE, room, 13), GREY, font(13))
        top += LINE
    for number, (name, image) in enumerate(strip.images.items()):
        left = MARGIN + number % COLUMNS * (THUMBNAIL + MARGIN)
        down = top + number // COLUMNS * (THUMBNAIL + LINE)
        sheet.paste(image.convert("RGB").resize((THUMBNAIL, THUMBNAIL)), (left, down))
        draw.text((left, down + THUMBNAIL + 1), name.replace("_", " "), GREY, font(13))
    top += (THUMBNAIL + LINE) * -(-len(strip.images) // COLUMNS)
    if not strip.texts:
        draw.text((MARGIN, top), NO_TEXT, GREY, font(13))
    for number, (name, text) in enumerate(strip.texts.items()):
        draw.text((MARGIN, top + number * LINE), name.replace("_", " "), GREY, font(13))
        line = fit(text_or_none(text), room - 90, 13)
        draw.text((MARGIN + 90, top + number * LINE), line, INK, font(13))
