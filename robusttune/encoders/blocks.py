"""The layers of frozen CLIP towers, in the pieces that an adapter takes apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import QuickGELUActivation

QUICK_GELU = 1.702


class Block(nn.Module):
    """A frozen pre-norm transformer layer, to be run on whichever tokens are asked for.

    The same as transformers' ``CLIPEncoderLayer``, but for rounding. Keys and values come out of one product and have
    no bias: that of keys adds the same to all that a softmax compares, and that of values goes through attention as it
    is, and so into the bias that follows. Quick GELU, x sigmoid(1.702 x), is SiLU with its factor moved into the
    products before and after it.

    Args:
        layer: a ``CLIPEncoderLayer``, of which the weights are taken.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads = attention.num_heads
        self.norm1, self.norm2 = layer.layer_norm1, layer.layer_norm2
        self.query, self.out = attention.q_proj, attention.out_proj
        self.key_value = nn.Linear(attention.embed_dim, 2 * attention.embed_dim, bias=False)
        self.fc1, self.fc2, self.activation = layer.mlp.fc1, layer.mlp.fc2, layer.mlp.activation_fn
        with torch.no_grad():
            self.key_value.weight.copy_(torch.cat([attention.k_proj.weight, attention.v_proj.weight]))
            self.out.bias.add_(self.out.weight @ attention.v_proj.bias)
            if isinstance(self.activation, QuickGELUActivation):
                self.activation = nn.SiLU()
                self.fc1.weight.mul_(QUICK_GELU)
                self.fc1.bias.mul_(QUICK_GELU)
                self.fc2.weight.div_(QUICK_GELU)
        self.requires_grad_(False)

    def forward(self, states: Tensor, causal: bool = False) -> Tensor:
        """All tokens (B, n, d), each looking at all, or, if causal, at those up to itself."""
        normed = self.norm1(states)
        attended = self.attend(self.query(normed), self.key_value(normed), causal=causal)
        return self.finish(states, attended)

    def attend(self, query: Tensor, key_value: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Multi-head attention.

        Args:
            query: (B, q, d).
            key_value: (B, n, 2 d).
            mask: (q, n) bool, True where a query looks at a key.
            causal: each query looks at the keys up to its own place.

        Returns:
            (B, q, d).
        """
        size = query.shape[-1] // self.heads
        split, key, value = (
            tokens.view(*tokens.shape[:2], self.heads, size).transpose(1, 2)
            for tokens in (query, *key_value.chunk(2, -1))
        )
        attended = functional.scaled_dot_product_attention(split, key, value, mask, is_causal=causal)
        return attended.transpose(1, 2).flatten(2)

    def read(self, asking: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Multi-head attention of few tokens, without keys and values of all that they look at.

        Scores are products of queries, put through the keys' weights, with the tokens themselves; values are made of
        their weighted means.

        Args:
            asking: (B, r, d) normed tokens that look.
            tokens: (B, n, d) normed tokens that are looked at.
            mask: (B, n) bool, True on those that are.

        Returns:
            (B, r, d).
        """
        size = asking.shape[-1] // self.heads
        key, value = self.key_value.weight.view(2, self.heads, size, -1)
        query = self.query(asking).view(*asking.shape[:2], self.heads, size) * size**-0.5
        scores = torch.einsum("brhs,hsd->bhrd", query, key).flatten(1, 2) @ tokens.mT
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        seen = scores.softmax(-1).to(tokens.dtype) @ tokens
        seen = seen.view(len(seen), self.heads, asking.shape[1], seen.shape[-1])
        return torch.einsum("bhrd,hsd->brhs", seen, value).flatten(2)

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        """What the layer makes of tokens (..., d) and of what these have looked at (..., d)."""
        states = states + self.out(attended)
        change: Tensor = self.fc2(self._activate(self.fc1(self.norm2(states))))
        return states + change

    def _activate(self, hidden: Tensor) -> Tensor:
        if isinstance(self.activation, nn.SiLU):  # in place saves memory, where no gradient needs what was there
            return functional.silu(hidden, inplace=not torch.is_grad_enabled())
        activated: Tensor = self.activation(hidden)
        return activated
