"""Samples as a picture: each with its image, its text, and the answer under every condition."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from math import ceil
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from robusttune.escaping import visible

WIDTH, HEIGHT, MARGIN, THUMBNAIL, LINE = 480, 190, 12, 150, 19  # pixels
COLUMNS = 3
INK, GREY, RIGHT, WRONG = "#222222", "#8a8a8a", "#0072b2", "#d55e00"  # the colours of Okabe and Ito


class Answer(NamedTuple):
    """What a model says under one condition.

    Attributes:
        condition: its name.
        said: the classes, joined by commas.
        probability: of the likeliest class, in [0, 1].
        right: whether that is the sample's label.
    """

    condition: str
    said: str
    probability: float
    right: bool


class Card(NamedTuple):
    """A sample and what a model says of it.

    Attributes:
        image: None where it is absent.
        text: None where it is absent.
        label: its classes, joined by commas.
        answers: one a condition.
    """

    image: Image.Image | None
    text: str | None
    label: str
    answers: list[Answer]


def draw_cards(cards: list[Card], title: str) -> Image.Image:
    """A sheet of cards, three a row, under a title; right answers have a dot, wrong ones a cross."""
    rows = -(-len(cards) // COLUMNS)
    head = 2 * MARGIN + 2 * LINE
    sheet = Image.new("RGB", (COLUMNS * WIDTH + MARGIN, head + rows * HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), fit(title, sheet.width - 2 * MARGIN, 16), INK, font(16))
    _mark(draw, MARGIN, MARGIN + LINE + 6, right=True)
    draw.text((MARGIN + 16, MARGIN + LINE + 4), "right", INK, font(13))
    _mark(draw, MARGIN + 70, MARGIN + LINE + 6, right=False)
    draw.text((MARGIN + 86, MARGIN + LINE + 4), "wrong", INK, font(13))
    for number, card in enumerate(cards):
        _draw_card(sheet, card, MARGIN + number % COLUMNS * WIDTH, head + number // COLUMNS * HEIGHT)
    return sheet


def _draw_card(sheet: Image.Image, card: Card, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    box = (left, top, left + THUMBNAIL, top + THUMBNAIL)
    if card.image is None:
        draw.rectangle(box, outline=GREY)
        draw.text((left + 45, top + THUMBNAIL // 2 - 8), "no image", GREY, font(13))
    else:
        scale = THUMBNAIL / max(card.image.size)
        size = tuple(max(1, round(side * scale)) for side in card.image.size)
        way = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
        sheet.paste(card.image.convert("RGB").resize((size[0], size[1]), way), (left, top))
    across, room = left + THUMBNAIL + MARGIN, WIDTH - THUMBNAIL - 3 * MARGIN
    for line in wrap(card.text or "no text", room, lines=3):
        draw.text((across, top), line, INK if card.text else GREY, font(14))
        top += LINE
    top += 4
    draw.text((across, top), fit(f"is: {card.label}", room, 14), INK, font(14))
    top += LINE + 4
    for answer in card.answers:
        _mark(draw, across, top + 3, answer.right)
        share = f" {answer.probability:.2f}"
        said = fit(f"{answer.condition}: {answer.said}", int(room - 16 - font(14).getlength(share)), 14)
        draw.text((across + 16, top), said + share, INK, font(14))
        top += LINE


def _mark(draw: ImageDraw.ImageDraw, left: int, top: int, right: bool) -> None:
    if right:
        draw.ellipse((left, top, left + 10, top + 10), fill=RIGHT)
        return
    draw.line((left, top, left + 10, top + 10), fill=WRONG, width=3)
    draw.line((left, top + 10, left + 10, top), fill=WRONG, width=3)


def wrap(text: str, room: int, lines: int, size: int = 14) -> list[str]:
    """The text in lines of ``room`` pixels at most; what is beyond the last ends in dots."""
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
    """The text in one line, cut where it would be wider than ``room`` pixels."""
    text = visible(text)
    letters_of = font(size)
    if len(text) <= room and letters_of.getlength(text) <= room:  # a letter is wider than a pixel
        return text
    kept = bisect_right(range(room), room, key=lambda letters: ceil(letters_of.getlength(text[:letters] + "...")))
    return text[: max(0, kept - 1)] + "..."


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of pictures, of so many pixels."""
    return ImageFont.load_default(size)
