"""Texts of different lengths without padding, and without what they all begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from robusttune.types import Tokens


@dataclass
class Packed:
    """States of ``C`` texts: what they share once, then of one text after the other what is its own.

    Attributes:
        shared: (p, d) of the tokens that all texts begin with, at least the start token.
        states: (S, d) of all other tokens, those of a text together.
        slots: (C, m) for each place of a text its row in ``states``; any row where the text is shorter.
        rows: (S,) the inverse, for each row its place in (C * m).
        end: (C,) row of each text's last token.
    """

    shared: Tensor
    states: Tensor
    slots: Tensor
    rows: Tensor
    end: Tensor

    @classmethod
    def of(cls, states: Tensor, mask: Tensor, shared: Tensor) -> Self:
        """Pack padded states.

        Args:
            states: (C, n, d).
            mask: (C, n) bool, True on tokens, which stand on the left.
            shared: (p, d), what all of them begin with; each has at least one token more.
        """
        own = mask[:, len(shared) :]
        lengths = own.sum(1)
        end = lengths.cumsum(0) - 1
        width = int(lengths.max()) if len(lengths) else 0
        place = torch.arange(width, device=mask.device)
        slots = (end - lengths + 1).unsqueeze(1) + torch.minimum(place, lengths.unsqueeze(1) - 1)
        rows = own[:, :width].flatten().nonzero().squeeze(1)
        return cls(shared, states[:, len(shared) :][own], slots, rows, end)

    @property
    def lengths(self) -> Tensor:
        """(C,) number of tokens of each text's own."""
        return torch.diff(self.end, prepend=self.end.new_full((1,), -1))

    def pad(self, values: Tensor, shared: Tensor | None = None) -> Tensor:
        """(S, d) -> (C, m, d), or, with shared values (p, d) before those of each text, (C, p + m, d)."""
        padded = values.index_select(0, self.slots.flatten()).view(*self.slots.shape, values.shape[-1])
        return padded if shared is None else torch.cat([shared.expand(len(padded), -1, -1), padded], 1)

    def unpad(self, values: Tensor) -> Tensor:
        """(C, m, d) -> (S, d)."""
        return values.flatten(0, 1).index_select(0, self.rows)

    def mask(self, inserted: int) -> Tensor:
        """(m, inserted + p + m) bool: which keys each place looks at, after those that are shared or inserted."""
        width = self.slots.shape[1]
        seen = torch.ones(width, inserted + len(self.shared), dtype=torch.bool, device=self.slots.device)
        own = torch.ones(width, width, dtype=torch.bool, device=self.slots.device).tril()
        return torch.cat([seen, own], 1)

    def mask_of_end(self, inserted: int) -> Tensor:
        """(C, inserted + p + m) bool: which keys the last token of each text looks at."""
        return self.mask(inserted)[self.lengths - 1]


def shared_tokens(tokens: Tokens) -> int:
    """How many tokens all texts begin with; each has at least one more."""
    same = (tokens.input_ids == tokens.input_ids[:1]).all(0) & tokens.attention_mask.all(0)
    return min(int(same.long().cumprod(0).sum()), int(tokens.attention_mask.sum(1).min()) - 1)
