"""The states of inputs without content in the towers of a CLIP, which stand in for absent modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from robusttune.encoders.clip import FrozenCLIPImage, FrozenCLIPText


@torch.no_grad()
def blank_states(image: FrozenCLIPImage, text: FrozenCLIPText) -> tuple[Tensor, Tensor]:
    """Return the states of a white image, shape (n, d_v), and of an empty text, shape (2, d_t).

    They are the states that enter the first layer of an adapter. They never change, so that they can be computed once,
    while the encoders have their weights.

    Args:
        image: Vision tower.
        text: Text tower; its empty text has a start and an end token.
    """
    white = torch.full((1, 3, image.side, image.side), 255, dtype=torch.uint8)
    empty = text.prompt_tokenizer([""]).tokens
    of_image, of_text = image.compute(white, False), text.compute(empty, False)
    return of_image.tokens[0][0], of_text.tokens[0][0]
