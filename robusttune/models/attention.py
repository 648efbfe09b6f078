"""Attention and averages over masked tokens, defined even if all tokens of a row are masked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Compute scaled dot-product attention (Vaswani et al. 2017), with zeros for rows whose keys are all masked.

    Args:
        queries: Queries, shape (B, heads, n, d / heads).
        keys: Keys, shape (B, heads, m, d / heads).
        values: Values, shape (B, heads, m, d / heads). Masked values must be finite, too.
        mask: Mask of the keys, shape (B, m), bool, True on keys that are attended to.

    Returns:
        Attention output with the heads concatenated, shape (B, n, d).

    Example:
        >>> import torch
        >>> queries, keys = torch.zeros(2, 1, 1, 4), torch.ones(2, 1, 3, 4)
        >>> mask = torch.tensor([[True, True, False], [False, False, False]])
        >>> attend(queries, keys, keys, mask).sum(2).tolist()
        [[4.0], [0.0]]
    """
    has_keys = mask.any(1, keepdim=True)
    # A softmax over no keys is NaN. Replacing the NaN afterwards would leave its gradient NaN, so rows without keys
    # attend to all keys, and their output is replaced by zeros.
    visible = (mask | ~has_keys)[:, None, None, :]
    attended = functional.scaled_dot_product_attention(queries, keys, values, visible)
    return torch.where(has_keys.unsqueeze(2), attended.transpose(1, 2).flatten(2), 0.0)


def split(projected: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Divide projected tokens into parts (queries, keys, values) and attention heads.

    Args:
        projected: Projected tokens, shape (B, n, parts x d).
        parts: Number of parts.
        heads: Number of attention heads.

    Returns:
        ``parts`` tensors of shape (B, heads, n, d / heads).
    """
    batch, tokens = projected.shape[:2]
    return tuple(part.reshape(batch, tokens, heads, -1).transpose(1, 2) for part in projected.chunk(parts, dim=2))


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over unmasked tokens, shape (B, d), with zeros for rows whose tokens are all masked.

    Args:
        tokens: Tokens, shape (B, n, d).
        mask: Mask of the tokens, shape (B, n), bool, True on tokens that count.

    Example:
        >>> import torch
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    weights = mask.unsqueeze(2).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
