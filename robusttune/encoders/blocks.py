"""Transformer layers of frozen CLIP or SigLIP towers, split into steps that an adapter such as MMRL can call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import QuickGELUActivation

QUICK_GELU = 1.702
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")  # of an attention, by their names in transformers


class Block(nn.Module):
    """A frozen pre-norm transformer layer whose attention and MLP can be run on chosen tokens.

    It computes the same as ``CLIPEncoderLayer`` and ``SiglipEncoderLayer`` of transformers, up to rounding, with fewer
    operations:

    * Keys and values come from one matrix product without bias. A bias of the keys shifts all scores of a softmax
      equally, so it has no effect. The bias of the values passes through attention unchanged, so it is folded into the
      bias of the output projection.
    * Quick GELU, ``x sigmoid(1.702 x)``, is computed as SiLU. The factor 1.702 is folded into the linear layers before
      and after it.

    Args:
        layer: Layer of transformers, whose weights are taken over. Its tensors are modified in place.

    Attributes:
        value_bias: Bias of the values, shape (d,).
        out_bias: Bias of the output projection before that of the values was folded into it, shape (d,).
    """

    value_bias: Tensor
    out_bias: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads = attention.num_heads
        self.norm1, self.norm2 = layer.layer_norm1, layer.layer_norm2
        self.query, self.out = attention.q_proj, attention.out_proj
        self.key_value = nn.Linear(attention.embed_dim, 2 * attention.embed_dim, bias=False)
        self.fc1, self.fc2, self.activation = layer.mlp.fc1, layer.mlp.fc2, layer.mlp.activation_fn
        self.register_buffer("value_bias", attention.v_proj.bias.detach().clone(), persistent=False)
        self.register_buffer("out_bias", self.out.bias.detach().clone(), persistent=False)
        with torch.no_grad():
            self.key_value.weight.copy_(torch.cat([attention.k_proj.weight, attention.v_proj.weight]))
            self.out.bias.add_(self.out.weight @ self.value_bias)
            if isinstance(self.activation, QuickGELUActivation):
                self.activation = nn.SiLU()
                self.fc1.weight.mul_(QUICK_GELU)
                self.fc1.bias.mul_(QUICK_GELU)
                self.fc2.weight.div_(QUICK_GELU)
        self.requires_grad_(False)

    def forward(self, states: Tensor, causal: bool = False, front: Tensor | None = None) -> Tensor:
        """Run the whole layer on all tokens.

        Args:
            states: Token states, shape (B, n, d).
            causal: If True, each token attends only to itself and the tokens before it.
            front: Keys and values (`keys_and_values`) of tokens that stand in front of the others and whose own states
                after the layer are not needed, such as inserted tokens that the next layer replaces, shape (B, f, 2 d).
                All tokens attend to them.

        Returns:
            Token states after the layer, shape (B, n, d).
        """
        normed = self.norm1(states)
        query, key_value = self.query(normed), self.key_value(normed)
        if front is None:
            return self.finish(states, self.attend(query, key_value, causal=causal))
        mask = causal_mask(front.shape[1], states) if causal else None
        return self.finish(states, self.attend(query, torch.cat([front, key_value], 1), mask))

    @property
    def width(self) -> int:
        """Return the width ``d`` of the tokens."""
        return len(self.value_bias)

    def weight(self, projection: str) -> Tensor:
        """Return the weight of a projection in `PROJECTIONS`, shape (d, d)."""
        key, value = self.key_value.weight.chunk(2)
        found: Tensor = dict(zip(PROJECTIONS, (self.query.weight, key, value, self.out.weight), strict=True))[
            projection
        ]
        return found

    def keys_and_values(self, tokens: Tensor) -> Tensor:
        """Return the keys and values of token states (..., d), concatenated, shape (..., 2 d)."""
        key_value: Tensor = self.key_value(self.norm1(tokens))
        return key_value

    def read_some(self, states: Tensor, asking: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run the layer for some of its tokens, few or all; the last layer of a tower is read at few.

        Args:
            states: States that enter the layer, shape (B, n, d).
            asking: States of the tokens that are read, shape (B, r, d).
            mask: Mask of the tokens that they attend to, shape (B, n), bool; None for all.

        Returns:
            States of the tokens after the layer, shape (B, r, d).
        """
        normed, normed_asking = self.norm1(states), self.norm1(asking)
        if mask is None and asking.shape[1] == states.shape[1]:
            attended = self.attend(self.query(normed_asking), self.key_value(normed))
        else:
            attended = self.attend_few(normed_asking, normed, mask)
        return self.finish(asking, attended)

    def attend(self, query: Tensor, key_value: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Compute multi-head attention, without the output projection.

        Args:
            query: Queries, shape (B, q, d).
            key_value: Keys and values, concatenated, shape (B, n, 2 d).
            mask: Attention mask, shape (q, n), bool, True where a query attends to a key.
            causal: If True, query number i attends to the keys 1 to i.

        Returns:
            Attention output, shape (B, q, d).
        """
        key, value = key_value.chunk(2, -1)
        return self.attend_to(query, key, value, mask, causal)

    def attend_to(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Compute the same as `attend` from separate keys and values, shape (B, n, d) each."""
        size = query.shape[-1] // self.heads
        split, key, value = (
            tokens.view(*tokens.shape[:2], self.heads, size).transpose(1, 2) for tokens in (query, key, value)
        )
        attended = functional.scaled_dot_product_attention(split, key, value, mask, is_causal=causal)
        return attended.transpose(1, 2).flatten(2)

    def attend_few(self, asking: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute multi-head attention of a few query tokens without computing the keys and values of all tokens.

        The queries are multiplied by the key weights and compared with the tokens themselves. The value weights are
        applied to the weighted means of the tokens. For few queries this is cheaper than `attend`.

        Args:
            asking: Normalised query tokens, shape (B, r, d).
            tokens: Normalised tokens that are attended to, shape (B, n, d).
            mask: Mask of ``tokens``, shape (B, n), bool, False on tokens that are ignored.

        Returns:
            Attention output, without the output projection, shape (B, r, d).
        """
        key, value = self.key_value.weight.chunk(2)
        return self.attend_with(self.query(asking), (tokens, key), (tokens, value), mask)

    def attend_with(
        self, query: Tensor, keys: tuple[Tensor, Tensor], values: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        """Compute the same as `attend_few` with given weights.

        Args:
            query: Queries, shape (B, r, d).
            keys: Tokens, shape (B, n, d), and the weight that turns them into keys, shape (d, d).
            values: Tokens, shape (B, n, d), and the weight that turns them into values, shape (d, d).
            mask: Mask of the tokens, shape (B, n), bool, False on tokens that are ignored; None for none.

        Returns:
            Attention output, without the output projection, shape (B, r, d).
        """
        size = query.shape[-1] // self.heads
        key, value = (weight.view(self.heads, size, -1) for _, weight in (keys, values))
        split = query.view(*query.shape[:2], self.heads, size) * size**-0.5
        scores = torch.einsum("brhs,hsd->bhrd", split, key).flatten(1, 2) @ keys[0].mT
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        context = scores.softmax(-1).to(values[0].dtype) @ values[0]
        context = context.view(len(context), self.heads, query.shape[1], context.shape[-1])
        return torch.einsum("bhrd,hsd->brhs", context, value).flatten(2)

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        """Apply the output projection, the residual connections and the MLP.

        Args:
            states: Token states before the layer, shape (..., d).
            attended: Attention output of the same tokens, shape (..., d).

        Returns:
            Token states after the layer, shape (..., d).
        """
        return self.feed_forward(states + self.out(attended))

    def feed_forward(self, states: Tensor) -> Tensor:
        """Apply the MLP and its residual connection to token states after attention, shape (..., d)."""
        change: Tensor = self.fc2(self._activate(self.fc1(self.norm2(states))))
        return states + change

    def _activate(self, hidden: Tensor) -> Tensor:
        if isinstance(self.activation, nn.SiLU):
            # Without a gradient the input is not needed any more, and working in place saves memory.
            return functional.silu(hidden, inplace=not torch.is_grad_enabled())
        activated: Tensor = self.activation(hidden)
        return activated


def causal_mask(front: int, states: Tensor) -> Tensor:
    """Return the mask of causal attention if further tokens stand in front, shape (n, f + n), bool.

    Args:
        front: Number ``f`` of tokens in front, which all tokens attend to.
        states: States of the ``n`` tokens behind them, shape (B, n, d).

    Example:
        >>> causal_mask(1, torch.zeros(1, 2, 4)).int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    count = states.shape[1]
    return torch.ones(count, front + count, dtype=torch.bool, device=states.device).tril(front)
