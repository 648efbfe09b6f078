"""The picture of samples and predictions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from robusttune.evaluation.cards import HEIGHT, RIGHT, WIDTH, WRONG, Card, Prediction, draw_cards
from robusttune.evaluation.drawing import fit, wrap

PREDICTIONS = [Prediction("complete", "pie", 0.9, True), Prediction("no_image", "soup", 0.4, False)]
LONG = "a very long title of a dish that goes on and on " * 20


def has_colour(image: Image.Image, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(np.asarray(image).astype(int) - wanted).max(2) < 8).any())


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_sheet_has_room_for_all(number: int) -> None:
    sheet = draw_cards([Card(Image.new("RGB", (40, 30)), "text", "pie", PREDICTIONS)] * number, "title")
    assert sheet.height > -(-number // 3) * HEIGHT
    assert sheet.width > 3 * WIDTH


def test_right_and_wrong_are_marked() -> None:
    both, right = (
        draw_cards([Card(None, None, "pie", some)], "t").crop((170, 60, 480, 250))
        for some in (PREDICTIONS, PREDICTIONS[:1])
    )
    assert has_colour(both, RIGHT)
    assert has_colour(both, WRONG)
    assert has_colour(right, RIGHT)
    assert not has_colour(right, WRONG)


@pytest.mark.parametrize("image", [None, *(Image.new(mode, size) for mode, size in
                                           [("L", (1, 900)), ("RGBA", (900, 1)), ("P", (3, 3))])])  # fmt: skip
@pytest.mark.parametrize("text", [None, "", LONG, "x" * 900, "\u98df\u7269 \U0001f355"])
def test_anything_can_be_drawn(image: Image.Image | None, text: str | None) -> None:
    """Nothing reaches over the edge of its card, to where the next begins."""
    predictions = [Prediction("complete" * 20, LONG, 1.0, True)] * 3
    sheet = draw_cards([Card(image, text, LONG, predictions)], LONG)
    assert (np.asarray(sheet)[60:, WIDTH + 2 :] == 255).all()


def test_texts_are_cut_to_their_room() -> None:
    assert fit("short", 200, 14) == "short"
    assert fit(LONG, 200, 14).endswith("...")
    assert wrap("one two", 400, lines=3) == ["one two"]
    lines = wrap(LONG, 200, lines=3)
    assert len(lines) == 3
    assert LONG.startswith(" ".join(lines[:2]))
