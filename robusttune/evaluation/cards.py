"""Pictures of samples with their image, their text, and the prediction under every condition."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image, ImageDraw

from robusttune.evaluation.drawing import GREY, INK, LINE, MARGIN, fit, font, new_sheet, wrap
from robusttune.evaluation.sample_text import NO_IMAGE, text_or_none

WIDTH, HEIGHT, THUMBNAIL = 480, 190, 150  # pixels
COLUMNS = 3
RIGHT, WRONG = "#0072b2", "#d55e00"  # from the colour-blind safe palette of Okabe and Ito


class Prediction(NamedTuple):
    """The prediction for a sample under one condition.

    Attributes:
        condition: Name of the condition.
        predicted: Names of the predicted classes, see `names_or_none`.
        probability: Probability of the most likely class, in [0, 1].
        right: True if the prediction equals the sample's label.

    Example:
        >>> Prediction("no_image", "soup, stew", probability=0.8, right=False).condition
        'no_image'
    """

    condition: str
    predicted: str
    probability: float
    right: bool


class Card(NamedTuple):
    """A sample and its predictions.

    Attributes:
        image: Image, or None if it is absent.
        text: Text, or None if it is absent.
        label: Names of the true classes, see `names_or_none`.
        predictions: Predictions, one per condition.

    Example:
        >>> Card(image=None, text="a red bowl", label="bowl", predictions=[]).text
        'a red bowl'
    """

    image: Image.Image | None
    text: str | None
    label: str
    predictions: list[Prediction]


def draw_cards(cards: list[Card], title: str) -> Image.Image:
    """Draw cards in rows of three below a title. Right predictions are marked by a dot, wrong ones by a cross.

    Args:
        cards: Samples with their predictions.
        title: Title of the picture.

    Returns:
        RGB image.

    Example:
        >>> card = Card(None, "a red bowl", "bowl", [Prediction("no_image", "bowl", 0.9, right=True)])
        >>> draw_cards([card], "Demo").mode
        'RGB'
    """
    rows = -(-len(cards) // COLUMNS)
    head = 2 * MARGIN + 2 * LINE
    sheet, draw = new_sheet(COLUMNS * WIDTH + MARGIN, head + rows * HEIGHT, title)
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
        draw.text((left + 45, top + THUMBNAIL // 2 - 8), NO_IMAGE, GREY, font(13))
    else:
        scale = THUMBNAIL / max(card.image.size)
        size = tuple(max(1, round(length * scale)) for length in card.image.size)
        resampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
        sheet.paste(card.image.convert("RGB").resize((size[0], size[1]), resampling), (left, top))
    text_left, room = left + THUMBNAIL + MARGIN, WIDTH - THUMBNAIL - 3 * MARGIN
    for line in wrap(text_or_none(card.text), room, lines=3):
        draw.text((text_left, top), line, INK if card.text else GREY, font(14))
        top += LINE
    top += 4
    draw.text((text_left, top), fit(f"label: {card.label}", room, 14), INK, font(14))
    top += LINE + 4
    for prediction in card.predictions:
        _mark(draw, text_left, top + 3, prediction.right)
        probability = f" {prediction.probability:.2f}"
        text = fit(
            f"{prediction.condition}: {prediction.predicted}", int(room - 16 - font(14).getlength(probability)), 14
        )
        draw.text((text_left + 16, top), text + probability, INK, font(14))
        top += LINE


def _mark(draw: ImageDraw.ImageDraw, left: int, top: int, right: bool) -> None:
    if right:
        draw.ellipse((left, top, left + 10, top + 10), fill=RIGHT)
        return
    draw.line((left, top, left + 10, top + 10), fill=WRONG, width=3)
    draw.line((left, top + 10, left + 10, top), fill=WRONG, width=3)
