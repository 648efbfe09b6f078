"""Packing of texts of different lengths without padding, with their common prefix stored once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from robusttune.types import Tokens


@dataclass
class Packed:
    """The packed states of ``C`` texts: ``p`` of their common prefix, then the other ``S``, one text after the other.

    Each text has at least one token that is not shared. ``m`` is the largest number of such tokens in a text.

    Attributes:
        shared: States of the common prefix, the tokens that all texts begin with, at least the start token, shape
            (p, d).
        states: States of all other tokens, text by text, shape (S, d).
        slots: Row in ``states`` of each position of each text, shape (C, m). Positions after the end of a text hold the
            row of its last token.
        rows: Position of each row of ``states`` in the flattened ``slots``, from 0 to C m - 1, shape (S,).
        end: Row in ``states`` of each text's last token, shape (C,).

    Example:
        >>> import torch
        >>> states, mask = torch.zeros(2, 4, 8), torch.tensor([[True, True, True, True], [True, True, False, False]])
        >>> packed = Packed.of(states, mask, shared=torch.zeros(1, 8))
        >>> packed.lengths.tolist(), tuple(packed.states.shape)
        ([3, 1], (4, 8))
    """

    shared: Tensor
    states: Tensor
    slots: Tensor
    rows: Tensor
    end: Tensor

    @classmethod
    def of(cls, states: Tensor, mask: Tensor, shared: Tensor) -> Self:
        """Pack padded states. The sizes depend on the mask, so this waits for its device.

        Args:
            states: States of all texts, shape (C, n, d).
            mask: Mask of the tokens, shape (C, n), bool. Padding is on the right.
            shared: States of the tokens that all texts begin with, shape (p, d). Each text has at least one token more.
        """
        own = mask[:, len(shared) :]
        lengths = own.sum(1)
        end = lengths.cumsum(0) - 1
        width = int(lengths.max()) if len(lengths) else 0
        place = torch.arange(width, device=mask.device)
        slots = (end - lengths + 1).unsqueeze(1) + torch.minimum(place, lengths.unsqueeze(1) - 1)
        rows = own[:, :width].flatten().nonzero().squeeze(1)
        return cls(shared, states[:, len(shared) :][own], slots, rows, end)

    @classmethod
    def with_padding(cls, states: Tensor, mask: Tensor, shared: Tensor) -> Self:
        """Pack states together with their padding, so that no size depends on the mask; this never waits for a device.

        Attention is causal, so the padding behind the end of a text does not affect it.

        Args:
            states: States of all texts, shape (C, n, d).
            mask: Mask of the tokens, shape (C, n), bool. Padding is on the right.
            shared: States of the tokens that all texts begin with, shape (p, d). Each text has at least one token more.

        Example:
            >>> import torch
            >>> mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
            >>> packed = Packed.with_padding(torch.zeros(2, 4, 8), mask, shared=torch.zeros(1, 8))
            >>> packed.lengths.tolist(), tuple(packed.states.shape)
            ([3, 1], (6, 8))
        """
        own = mask[:, len(shared) :]
        count, width = own.shape
        rows = torch.arange(count * width, device=mask.device)
        slots = rows.view(count, width)
        return cls(shared, states[:, len(shared) :].flatten(0, 1), slots, rows, slots[:, 0] + own.sum(1) - 1)

    @property
    def lengths(self) -> Tensor:
        """Return the number of tokens of each text that are not shared, shape (C,)."""
        count, width = self.slots.shape
        return self.rows[self.end] + 1 - width * torch.arange(count, device=self.end.device)

    def pad(self, values: Tensor, shared: Tensor | None = None) -> Tensor:
        """Pad packed values to a rectangle.

        Args:
            values: Packed values, shape (S, d).
            shared: Values that are put before those of each text, shape (p, d), or None.

        Returns:
            Padded values, shape (C, m, d), or (C, p + m, d) with shared values.
        """
        padded = values.index_select(0, self.slots.flatten()).view(*self.slots.shape, values.shape[-1])
        return padded if shared is None else torch.cat([shared.expand(len(padded), -1, -1), padded], 1)

    def unpad(self, values: Tensor) -> Tensor:
        """Pack padded values, from shape (C, m, d) to (S, d)."""
        return values.flatten(0, 1).index_select(0, self.rows)

    def mask(self, inserted: int) -> Tensor:
        """Return the causal attention mask of the tokens that are not shared, shape (m, inserted + p + m), bool.

        Args:
            inserted: Number of tokens that are inserted before the text, which every token attends to.
        """
        width = self.slots.shape[1]
        common = torch.ones(width, inserted + len(self.shared), dtype=torch.bool, device=self.slots.device)
        own = torch.ones(width, width, dtype=torch.bool, device=self.slots.device).tril()
        return torch.cat([common, own], 1)

    def mask_of_end(self, inserted: int) -> Tensor:
        """Return the attention mask of the last token of each text, shape (C, inserted + p + m), bool.

        Args:
            inserted: Number of tokens that are inserted before the text.
        """
        return self.mask(inserted)[self.lengths - 1]


def common_prefix_length(tokens: Tokens) -> int:
    """Return the length of the common prefix of all texts, in tokens, such that each text has at least one token more.

    Args:
        tokens: Tokenised texts with padding on the right, shape (C, n).
    """
    same = (tokens.input_ids == tokens.input_ids[:1]).all(0) & tokens.attention_mask.all(0)
    return min(int(same.long().cumprod(0).sum()), int(tokens.attention_mask.sum(1).min()) - 1)
