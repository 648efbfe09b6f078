"""What the rooms hand each other: variants of inputs, and views of batches."""

from __future__ import annotations

import pytest
import torch
from fakes import random_batch
from torch import Tensor

from robusttune.types import Encoded, EncoderInputs, Tokens, Variants, View

NAMES = ["clean", "blur_1", "shot_5"]


def inputs_of(rows: int) -> list[EncoderInputs]:
    """Images, texts, and what an encoder has made of either."""
    torch.manual_seed(0)
    mask = torch.arange(5) < torch.randint(1, 6, (rows, 1))
    tokens = [torch.randn(rows, 5, width) for width in (4, 6)]
    return [
        torch.randint(0, 256, (rows, 3, 4, 4), dtype=torch.uint8),
        Tokens(torch.randint(1, 9, (rows, 5)), mask),
        Encoded(torch.randn(rows, 3), tokens, [mask, mask]),
    ]


def tensors(inputs: EncoderInputs) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    found: list[Tensor] = []
    inputs.map(lambda tensor: found.append(tensor) or tensor)
    return found


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_variants_are_picked_by_name_in_any_order(rows: int, kind: int) -> None:
    whole = inputs_of(len(NAMES) * rows)[kind]
    variants = Variants(NAMES, whole)
    assert len(variants) == rows
    for asked in (NAMES, NAMES[::-1], ["shot_5"], ["clean", "shot_5"], ["blur_1", "clean"]):
        for given, picked in zip(tensors(whole), tensors(variants.pick(asked)), strict=True):
            parts = dict(zip(NAMES, given.split(rows) if rows else [given] * 3, strict=True))
            assert torch.equal(picked, torch.cat([parts[name] for name in asked]))
    for one, picked in zip(tensors(variants["clean"]), tensors(variants.pick(["clean"])), strict=True):
        assert torch.equal(one, picked)


def test_a_view_shows_what_is_there_and_not_removed() -> None:
    batch = random_batch()  # row 1 has no image, row 2 no text, row 3 neither
    for view in (View(), View("blur_3", None), View(None, "typos_1"), View(None, None)):
        image, text = (shown.tolist() for shown in view.present(batch.image_present, batch.text_present))
        assert image == [view.image is not None and row not in (1, 3) for row in range(6)]
        assert text == [view.text is not None and row not in (2, 3) for row in range(6)]
