"""Attention in which a row may have nothing to look at."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017), zeros for a row that has nothing to look at.

    Args:
        queries: (B, heads, n, d / heads).
        keys: (B, heads, m, d / heads).
        values: likewise; finite also where they are masked.
        mask: (B, m) bool, True on keys that are looked at.

    Returns:
        (B, n, d).
    """
    something = mask.any(1, keepdim=True)
    # A softmax over nothing is not a number, and what is put in its place afterwards leaves its slope so.
    visible = (mask | ~something)[:, None, None, :]
    told = functional.scaled_dot_product_attention(queries, keys, values, visible)
    return torch.where(something.unsqueeze(2), told.transpose(1, 2).flatten(2), 0.0)


def split(projected: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, n, parts x d) -> as many of (B, heads, n, d / heads)."""
    batch, tokens = projected.shape[:2]
    return tuple(part.reshape(batch, tokens, heads, -1).transpose(1, 2) for part in projected.chunk(parts, dim=2))


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, n, d) and (B, n) -> (B, d), the mean over unmasked tokens; zeros where there are none."""
    weights = mask.unsqueeze(2).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
