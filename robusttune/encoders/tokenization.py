"""Tokenisation of texts: truncation, padding, and bounded reading of long texts.

Only the beginning of a text that determines the first ``max_length`` tokens is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import tokenizers
import torch
from tokenizers.models import BPE, Unigram

from robusttune.errors import RobustTuneError
from robusttune.types import Tokens

CHARACTERS = 16  # characters read per token at first; English has about 5 per token
GROWTH = 4  # factor by which the number of characters grows if it was too small
MARGIN = 256  # characters between the last kept token and the cut; longer than any token
LONGEST_TOKEN = 64  # characters; SentencePiece's default is 16
PIECE = 1 << 16  # characters of a piece that is tokenised separately to count its tokens
BLOCK = 1 << 22  # characters tokenised at once, to bound memory
ROWS = 1024  # texts tokenised at once
WORD_END = re.compile(r"(?<=\S)(?=\s)")
NO_DIGIT = re.compile(r"(?!\d)")


class Tokenized(NamedTuple):
    """Tokenised texts, and a flag for each text that was truncated.

    Attributes:
        tokens: Token ids and attention mask, shape (B, n).
        cut: Flags of length B, True if the text had more tokens than were kept.
    """

    tokens: Tokens
    cut: list[bool]


class Tokenizer:
    """A batched fast tokenizer that truncates to ``max_length`` tokens and pads on the right.

    A text without any token gets one padding token, so that every text has a state to pool.

    Args:
        backend: Tokenizer of the Rust library ``tokenizers``, so that loader workers need not import transformers.
        max_length: Maximum number of tokens per text, special tokens included.
        pad_id: Id of the padding token.
        pads_left: True if a model that needs every text at one length expects the padding first.

    Raises:
        RobustTuneError: The backend inserts special tokens within a text.

    Example:
        >>> from tokenizers import Tokenizer as Backend, models, pre_tokenizers
        >>> backend = Backend(models.WordLevel({"[UNK]": 0, "a": 1, "red": 2, "cup": 3}, unk_token="[UNK]"))
        >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> Tokenizer(backend, max_length=2, pad_id=0)(["a red cup", "cup"]).cut
        [True, False]
    """

    def __init__(self, backend: tokenizers.Tokenizer, max_length: int, pad_id: int, pads_left: bool = False) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self.backend = backend
        self.max_length = max_length
        self.pad_id = pad_id
        self.pads_left = pads_left
        self.before, self.after = _special_tokens(backend)
        self.room = max_length - len(self.before) - len(self.after)  # tokens kept, special ones excluded

    def __call__(self, texts: list[str]) -> Tokenized:
        own = self._encode(texts)
        rows = [[*self.before, *ids[: self.room], *self.after] or [self.pad_id] for ids in own]
        longest = max(map(len, rows), default=0)
        tokens = Tokens(
            torch.tensor([ids + [self.pad_id] * (longest - len(ids)) for ids in rows], dtype=torch.int64),
            torch.arange(longest) < torch.tensor([len(ids) for ids in rows], dtype=torch.int64).unsqueeze(1),
        )
        tokens = tokens.map(lambda tensor: tensor.reshape(len(texts), longest))
        return Tokenized(tokens, [len(ids) > self.room for ids in own])

    def lengths(self, texts: list[str]) -> list[int]:
        """Return the number of tokens that each text keeps after truncation, special tokens included."""
        blocks = (texts[start : start + ROWS] for start in range(0, len(texts), ROWS))
        return [self._with_special(min(len(ids), self.room)) for block in blocks for ids in self._encode(block)]

    def full_lengths(self, texts: list[str]) -> list[int]:
        """Return the number of tokens that each text has before truncation, special tokens included."""
        lengths = [0] * len(texts)
        for block in _blocks(texts):
            encoded = self.backend.encode_batch_fast([piece for _, piece in block], add_special_tokens=False)
            for (row, _), piece in zip(block, encoded, strict=True):
                lengths[row] += len(piece)
        return [self._with_special(length) for length in lengths]

    def _with_special(self, own: int) -> int:
        return len(self.before) + own + len(self.after) or 1

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text without special tokens: at least those that are kept.

        A text that has more tokens than are kept returns more than ``room`` ids. Only the beginning of a long text is
        read, as much as is needed to determine the tokens that are kept.
        """
        size = max(CHARACTERS * self.max_length, 4 * MARGIN)
        ends = [_cut(text, size) for text in texts]
        heads = [text[:end] for text, end in zip(texts, ends, strict=True)]
        encoded: list[tokenizers.Encoding] = self.backend.encode_batch(heads, add_special_tokens=False)
        for row, (text, end) in enumerate(zip(texts, ends, strict=True)):
            length = size
            while end < len(text) and not self._is_decided(encoded[row], text, end):
                length *= GROWTH
                end = _cut(text, length)
                encoded[row] = self.backend.encode(text[:end], add_special_tokens=False)
        return [text.ids for text in encoded]

    def _is_decided(self, head: tokenizers.Encoding, text: str, end: int) -> bool:
        """Return True if the first ``room`` tokens of ``text[:end]`` are certainly those of the whole text.

        This is certain if they end well before the cut, in a different word than the last one. Within one long word
        (Chinese has no spaces) it is certain if shortening the text by any number of characters up to the longest token
        leaves them unchanged: in the whole text, one token ends at one of these places, and the best segmentation up to
        there does not depend on the text that follows.
        """
        last = self.room - 1
        if len(head) <= self.room or head.offsets[last][1] + MARGIN > end:
            return False
        if text[end].isspace() or head.word_ids[last] != head.word_ids[-1]:
            return True
        # In other models (word pieces) the last character of a word may decide whether the whole word is unknown.
        if not isinstance(self.backend.model, (BPE, Unigram)):
            return False
        cuts = [text[: end - less] for less in range(1, LONGEST_TOKEN)]
        kept = head.ids[: self.room]
        return all(
            cut.ids[: self.room] == kept for cut in self.backend.encode_batch_fast(cuts, add_special_tokens=False)
        )


def _special_tokens(backend: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids of the special tokens that a tokenizer puts before and after a text.

    Raises:
        RobustTuneError: The tokenizer puts them elsewhere.
    """
    number = backend.num_special_tokens_to_add(False)
    for word in ("a", "the", "1", *backend.get_vocab()):
        own, whole = (backend.encode(word, add_special_tokens=special).ids for special in (False, True))
        for start in range(number + 1) if own else ():
            if whole[start : len(whole) - number + start] == own:
                return whole[:start], whole[start + len(own) :]
    raise RobustTuneError("the tokenizer puts special tokens within a text: choose another model")


def _cut(text: str, size: int) -> int:
    """Return where to cut a text that is longer than ``size`` characters: at ``size`` characters or later.

    The cut is at the end of a word if there is one within the next ``size`` characters. Otherwise it is outside of
    numbers, because some tokenizers divide a number from its end.
    """
    if len(text) <= size:
        return len(text)
    found = WORD_END.search(text, size, 2 * size) or NO_DIGIT.search(text, size)
    return found.start() if found else len(text)


def _pieces(text: str) -> Iterator[str]:
    """Divide a text at ends of words into pieces of at least `PIECE` characters."""
    start = 0
    while len(text) - start > PIECE and (found := WORD_END.search(text, start + PIECE)):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _blocks(texts: list[str]) -> Iterator[list[tuple[int, str]]]:
    """Yield blocks of (row of the text, piece of it), each small enough to tokenise at once."""
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
