"""The prompts of DCP: correlated over layers and modalities, common to both towers, and dynamic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.models.clip_network import IMAGE_ALONE, PATTERNS, TEXT_ALONE

REDUCTION = 16  # of the hidden layers


class LayerPrompts(NamedTuple):
    """Prompts of one tower for each pattern of present modalities.

    Attributes:
        correlated: Prompts that layers 1 to ``J`` insert, shape (J, 3, n, d).
        common: Prompts that the first layer inserts behind them, shape (3, n, d).
    """

    correlated: Tensor
    common: Tensor


class CorrelatedPrompts(nn.Module):
    """Prompts that each layer derives from those of the layer before in both towers, and prompts that both share.

    Source: DCP (arXiv 2410.06558). They depend on the pattern of present modalities alone, so they are computed for
    three patterns, not for each sample.

    Args:
        count: Number ``n`` of prompts of each kind.
        depth: Number ``J`` of layers with prompts of their own.
        image: Width ``d_v`` of the vision tower.
        text: Width ``d_t`` of the text tower.

    Attributes:
        image_start: Image prompts that the first layer's are derived from: image present, image missing, shape
            (2, n, d_v).
        text_start: The same for texts, shape (2, n, d_t).
        common: Prompts of both towers, by pattern, shape (3, n, d_t).

    Example:
        >>> prompts = CorrelatedPrompts(2, depth=3, image=48, text=32)()
        >>> prompts[0].correlated.shape, prompts[1].common.shape
        (torch.Size([3, 3, 2, 48]), torch.Size([3, 2, 32]))
    """

    def __init__(self, count: int, depth: int, image: int, text: int) -> None:
        super().__init__()
        self.image_start = nn.Parameter(torch.randn(2, count, image) * 0.02)
        self.text_start = nn.Parameter(torch.randn(2, count, text) * 0.02)
        self.common = nn.Parameter(torch.randn(PATTERNS, count, text) * 0.02)
        both = image + text
        self.image_maps, self.text_maps = (_equal_maps(depth, both, both // REDUCTION, out) for out in (image, text))
        self.image_common, self.text_common = (_map(text, text // REDUCTION, out) for out in (image, text))

    def forward(self) -> tuple[LayerPrompts, LayerPrompts]:
        """Return the prompts of the vision tower and of the text tower."""
        image = self.image_start[[int(pattern == TEXT_ALONE) for pattern in range(PATTERNS)]]
        text = self.text_start[[int(pattern == IMAGE_ALONE) for pattern in range(PATTERNS)]]
        layers = []
        for of_image, of_text in zip(self.image_maps, self.text_maps, strict=True):
            both = torch.cat([image, text], -1)
            image, text = of_image(both), of_text(both)
            layers.append((image, text))
        images, texts = (torch.stack(each) for each in zip(*layers, strict=True))
        return (
            LayerPrompts(images, self.image_common(self.common)),
            LayerPrompts(texts, self.text_common(self.common)),
        )


class DynamicPrompts(nn.Module):
    """Prompts of a sample: queries of its pattern attend, with one head, to the tokens that enter the first layer.

    Source: DCP (arXiv 2410.06558). The published code neither trains nor stores the queries.

    Args:
        count: Number ``n`` of prompts.
        width: Width ``d`` of the tower.
        train_queries: True to train the queries; False to keep their random start, which the checkpoint stores.

    Attributes:
        queries: Queries by pattern, shape (3, n, d).
    """

    queries: Tensor

    def __init__(self, count: int, width: int, train_queries: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads=1, batch_first=True)
        nn.init.uniform_(self.attention.out_proj.weight, -(width**-0.5), width**-0.5)
        queries = torch.empty(PATTERNS, count, width)
        if train_queries:
            self.queries = nn.Parameter(queries)
        else:
            self.register_buffer("queries", queries)
        self.draw_queries()

    @torch.no_grad()
    def draw_queries(self) -> None:
        """Draw the start of the queries, from N(0, 0.02^2)."""
        self.queries.normal_(std=0.02)

    def forward(self, tokens: Tensor, pattern: Tensor) -> Tensor:
        """Return the prompts of ``B`` samples, shape (B, n, d).

        Queries are compared with the tokens themselves, and values are computed from means of tokens: it takes no
        product with all tokens. The bias of the keys changes no weight of a softmax, so it has no effect.

        Args:
            tokens: Tokens that enter the first layer, shape (B, m, d).
            pattern: Pattern of present modalities of each sample, shape (B,).
        """
        width = tokens.shape[-1]
        query, key, value = self.attention.in_proj_weight.chunk(3)
        of_query, of_key, of_value = self.attention.in_proj_bias.chunk(3)
        asked = (nn.functional.linear(self.queries, query, of_query) * width**-0.5) @ key
        # Its gradient is zero; with the term, it is not None.
        asked = asked + 0.0 * of_key
        weights = (asked[pattern] @ tokens.mT).softmax(-1).to(tokens.dtype)
        found: Tensor = self.attention.out_proj(nn.functional.linear(weights @ tokens, value, of_value))
        return found


def _map(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


def _equal_maps(depth: int, width: int, hidden: int, out: int) -> nn.ModuleList:
    """Build the maps of all layers of a tower, each after a layer norm of its own; they start equal."""
    first = _map(width, hidden, out)
    maps = [_map(width, hidden, out) for _ in range(depth)]
    for each in maps:
        each.load_state_dict(first.state_dict())
    return nn.ModuleList(nn.Sequential(nn.LayerNorm(width), *each) for each in maps)
