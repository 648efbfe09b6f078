"""Texts to tokens: truncated, padded, and never read further than ``max_length`` tokens need."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import tokenizers
import torch

from robusttune.types import Tokens

CHARACTERS = 16  # characters per token that are read at first; English has about 5
GROWTH = 4  # factor by which more is read where these were too few
MARGIN = 256  # characters between the last kept token and the cut; no token reaches that far
PIECE = 1 << 16  # characters that are counted at once
BLOCK = 1 << 22  # characters that are tokenised at once, to bound memory
ROWS = 1024  # texts that are tokenised at once
WORD_END = re.compile(r"(?<=\S)(?=\s)")
NO_DIGIT = re.compile(r"(?!\d)")


class Tokenized(NamedTuple):
    """Texts as tokens, and for each text whether it was cut."""

    tokens: Tokens
    cut: list[bool]


class Tokenizer:
    """A batched fast tokenizer that truncates to ``max_length`` tokens and pads on the right.

    A text without any token gets one padding token, so that every text has a state to pool.

    Args:
        backend: The Rust tokenizer itself, so that loader workers need not import transformers.
        max_length: Maximum number of tokens per text, special tokens included.
        pad_id: Id of the padding token.
        pads_left: Whether a model that needs every text at one length expects the padding first.
    """

    def __init__(self, backend: tokenizers.Tokenizer, max_length: int, pad_id: int, pads_left: bool = False) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
        backend.enable_truncation(max_length)
        self.backend = backend
        self.max_length = max_length
        self.pad_id = pad_id
        self.pads_left = pads_left

    def __call__(self, texts: list[str]) -> Tokenized:
        encoded = self._encode(texts)
        rows = [text.ids or [self.pad_id] for text in encoded]
        longest = max(map(len, rows), default=0)
        tokens = Tokens(
            torch.tensor([ids + [self.pad_id] * (longest - len(ids)) for ids in rows], dtype=torch.int64),
            torch.arange(longest) < torch.tensor([len(ids) for ids in rows], dtype=torch.int64).unsqueeze(1),
        )
        return Tokenized(
            tokens.map(lambda tensor: tensor.reshape(len(texts), longest)), [bool(text.overflowing) for text in encoded]
        )

    def lengths(self, texts: list[str]) -> list[int]:
        """Return the number of tokens that each text keeps."""
        blocks = (texts[start : start + ROWS] for start in range(0, len(texts), ROWS))
        return [len(text.ids) or 1 for block in blocks for text in self._encode(block)]

    def full_lengths(self, texts: list[str]) -> list[int]:
        """Return the number of tokens that each whole text has, special tokens included."""
        lengths = [self.backend.num_special_tokens_to_add(False)] * len(texts)
        self.backend.no_truncation()
        try:
            for block in _blocks(texts):
                encoded = self.backend.encode_batch_fast([piece for _, piece in block], add_special_tokens=False)
                for (row, _), piece in zip(block, encoded, strict=True):
                    lengths[row] += len(piece)
        finally:
            self.backend.enable_truncation(self.max_length)
        return [length or 1 for length in lengths]

    def _encode(self, texts: list[str]) -> list[tokenizers.Encoding]:
        """Tokenise the beginning of each text, as far as it certainly decides the tokens that are kept."""
        size = max(CHARACTERS * self.max_length, 4 * MARGIN)
        ends = [_cut(text, size) for text in texts]
        encoded: list[tokenizers.Encoding] = self.backend.encode_batch(
            [text[:end] for text, end in zip(texts, ends, strict=True)]
        )
        for row, (text, end) in enumerate(zip(texts, ends, strict=True)):
            length = size
            while end < len(text) and not _is_decided(encoded[row], text, end):
                length *= GROWTH
                end = _cut(text, length)
                encoded[row] = self.backend.encode(text[:end])
        return encoded


def _cut(text: str, size: int) -> int:
    """Return where to cut a text that is longer than ``size`` characters, at least that far in.

    A cut is at the end of a word where there is one within the next ``size`` characters, else outside of numbers,
    which some tokenizers divide from their end.
    """
    if len(text) <= size:
        return len(text)
    found = WORD_END.search(text, size, 2 * size) or NO_DIGIT.search(text, size)
    return found.start() if found else len(text)


def _is_decided(head: tokenizers.Encoding, text: str, end: int) -> bool:
    """Return whether the tokens kept of ``text[:end]`` are those of the whole text.

    They are if they end well before the cut, in another word than the one that may be cut.
    """
    if not head.overflowing or max(stop for _, stop in head.offsets) + MARGIN > end:
        return False
    return text[end].isspace() or _last_word(head) < max(map(_last_word, head.overflowing))


def _last_word(part: tokenizers.Encoding) -> int:
    """Return the number of the last word (pre-token) that has a token here, -1 where there is none."""
    return max((word for word in part.word_ids if word is not None), default=-1)


def _pieces(text: str) -> Iterator[str]:
    """Divide a text at ends of words into pieces of at least `PIECE` characters."""
    start = 0
    while len(text) - start > PIECE and (found := WORD_END.search(text, start + PIECE)):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _blocks(texts: list[str]) -> Iterator[list[tuple[int, str]]]:
    """Yield pieces of texts with the number of their text, as many at a time as memory allows."""
    block: list[tuple[int, str]] = []
    size = 0
    for row, text in enumerate(texts):
        for piece in _pieces(text):
            if block and (size + len(piece) > BLOCK or len(block) == ROWS):
                yield block
                block, size = [], 0
            block.append((row, piece))
            size += len(piece)
    if block:
        yield block
