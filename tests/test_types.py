"""What the rooms hand each other: encoder inputs put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import random_batch, tiny_text_encoder
from torch import Tensor

from robusttune.types import Encoded, EncoderInputs, Tokens, Variants, View, joined

LENGTHS = (3, 0, 5, 4)  # of the longest text of each part


def tokens_of(rows: int, length: int) -> Tokens:
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1)) if length else torch.zeros(rows, 0).bool()
    return Tokens(torch.randint(1, 9, (rows, length)), mask)


def encoded_of(rows: int, length: int) -> Encoded:
    masks = [tokens_of(rows, length + more).attention_mask for more in (0, 2)]
    tokens = [torch.randn(*mask.shape, width) for mask, width in zip(masks, (4, 6), strict=True)]
    return Encoded(torch.randn(rows, 3), tokens, masks)


def tensors(inputs: EncoderInputs) -> list[Tensor]:
    found: list[Tensor] = []
    assert not isinstance(inputs, Tensor)
    inputs.map(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


@pytest.mark.parametrize("make", [tokens_of, encoded_of])
def test_parts_come_one_after_the_other_and_the_rest_is_padding(make: Callable[[int, int], EncoderInputs]) -> None:
    """Rows are those of the parts; what is added holds nothing, and no mask says otherwise."""
    torch.manual_seed(0)
    parts = [make(0 if length == 0 else 2, length) for length in LENGTHS]
    whole = joined(parts)
    assert type(whole) is type(parts[0])
    assert len(whole) == 6
    for number, tensor in enumerate(tensors(whole)):
        rows = iter(tensor)
        for part in map(tensors, parts):
            for row in part[number]:
                found = next(rows)
                assert found.dtype == row.dtype
                assert torch.equal(found[: len(row)], row)
                assert not found[len(row) :].any()
    assert joined(parts[:1]) is parts[0]


def test_images_have_no_padding() -> None:
    parts = [torch.randint(0, 256, (rows, 3, 4, 4), dtype=torch.uint8) for rows in (2, 0, 1)]
    whole = joined(parts)
    assert isinstance(whole, Tensor)
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("rows", [0, 2])
def test_variants_are_picked_by_name_in_any_order(rows: int) -> None:
    torch.manual_seed(0)
    names = ["clean", "blur_1", "shot_5"]
    parts = {name: torch.randint(0, 256, (rows, 3, 4, 4), dtype=torch.uint8) for name in names}
    texts = {name: tokens_of(rows, length) for name, length in zip(names, (2, 5, 3), strict=True)}
    images, longest = Variants.of(parts), Variants.of(texts)
    assert (images.names, len(images), len(longest)) == (names, rows, rows)
    for asked in (names, names[::-1], ["shot_5"], ["clean", "shot_5"], ["blur_1", "clean"]):
        picked = images.pick(asked)
        assert isinstance(picked, Tensor)
        assert torch.equal(picked, torch.cat([parts[name] for name in asked]))
        found = tensors(longest.pick(asked))
        for number, tensor in enumerate(found):
            assert tensor.shape == (rows * len(asked), 5)
            for block, name in zip(tensor.split(max(rows, 1)), asked, strict=rows > 0):
                given = tensors(texts[name])[number]
                assert torch.equal(block[:, : given.shape[1]], given)
                assert not block[:, given.shape[1] :].any()
    assert torch.equal(images.map(lambda tensor: tensor + 1).pick(["blur_1"]), parts["blur_1"] + 1)


def test_texts_of_other_lengths_are_encoded_together_as_apart(text_folder: Path) -> None:
    torch.manual_seed(0)
    encoder, parts = tiny_text_encoder(text_folder).load(), [tokens_of(2, length) for length in (7, 2, 4)]
    whole = encoder(joined(parts))
    apart = joined([encoder(part) for part in parts])
    assert isinstance(apart, Encoded)
    torch.testing.assert_close(whole.pooled, apart.pooled)
    for mask, other in zip(whole.mask, apart.mask, strict=True):
        assert torch.equal(mask, other)
    for layer, other, mask in zip(whole.tokens, apart.tokens, whole.mask, strict=True):
        torch.testing.assert_close(layer[mask], other[mask])


def test_a_view_shows_what_is_there_and_not_withheld() -> None:
    batch = random_batch()  # row 1 has no image, row 2 no text, row 3 neither
    for view in (View(), View("blur_3", None), View(None, "typos_1"), View(None, None)):
        image, text = (shown.tolist() for shown in view.presence(batch))
        assert image == [view.image is not None and row not in (1, 3) for row in range(6)]
        assert text == [view.text is not None and row not in (2, 3) for row in range(6)]
