"""Kinds of text noise, each in five severities, as pure functions of the text and a random generator.

White space separates words. Kinds that damage words join the remaining words by single spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

TextNoiseKind = Literal["typos", "deletion", "swap", "masking", "truncation", "ocr", "other_text"]

MASK = "[MASK]"  # a single token for BERT's tokenizers
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # each row is half a key to the right of the one above
LOOK_ALIKE = (
    *("rn m", "cl d", "vv w", "li h", "l 1", "l I", "I 1", "i j", "i l", "o 0", "O 0", "O Q", "o a", "s 5", "S 5"),
    *("B 8", "e c", "h b", "g 9", "G 6", "G C", "z 2", "Z 2", "t f", "n u", "v y", "E F", "P R", "T 7", "A 4"),
)


def corrupt_text(text: str, kind: TextNoiseKind, severity: int, rng: np.random.Generator, other: str | None) -> str:
    """Return the text with one kind of noise. The result is never blank, and a blank text stays unchanged.

    Args:
        text: Any text. Its words stay if the kind finds nothing to damage.
        kind: Kind of noise, a key of `TEXT_NOISE`.
        severity: Severity, from 1 (mild) to 5.
        rng: Random generator of the noise.
        other: Text of another sample, from where the kind ``other_text`` takes words. Without it, that kind leaves
            words out.

    Example:
        >>> corrupt_text("a slice of apple pie", "truncation", 3, np.random.default_rng(0), None)
        'a slice'
    """
    if not text.strip():
        return text
    damage, parameters = TEXT_NOISE[kind]
    noisy = damage(text, parameters[severity - 1], rng, other or "")
    return noisy if noisy.strip() else text


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Return the text without some of its words, joined by single spaces. At least one word stays.

    Args:
        text: Any text; one without words is returned unchanged.
        rate: Probability that a word is left out, in [0, 1].
        rng: Random generator of the draw.

    Example:
        >>> drop_words("apple  pie", 0.0, np.random.default_rng(0))
        'apple pie'
    """
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= rate]
    return " ".join(kept or words[int(rng.integers(len(words))) :][:1]) if words else text


def _typos(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    """Mistype letters, each with probability ``rate``."""
    characters = list(text)
    for index in np.flatnonzero(rng.random(len(text)) < rate):
        marked = unicodedata.category(text[index + 1 : index + 2] or " ").startswith("M")
        if text[index].isalpha() and not marked:  # an accent must not end up on another letter
            characters[index] = _mistype(text[index], rng)
    return "".join(characters)


def _mistype(letter: str, rng: np.random.Generator) -> str:
    """Replace the letter by a neighbouring key, add one, leave the letter out, or double it.

    A letter that is not on the keyboard counts as its own neighbour.
    """
    near = _pick(NEIGHBOURS.get(letter.lower(), letter), rng)
    near = near.upper() if letter.isupper() else near
    return _pick((near, near + letter, "", letter + letter), rng)


def _deletion(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    """Leave words out, each with probability ``rate``."""
    return drop_words(text, rate, rng)


def _swap(text: str, reach: float, rng: np.random.Generator, other: str) -> str:
    """Move each word towards the beginning by a random distance below ``reach``, and sort the words by position."""
    words = text.split()
    positions = np.arange(len(words)) - rng.uniform(0, reach, len(words))
    return " ".join(words[index] for index in np.argsort(positions))


def _masking(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    """Replace words by `MASK`, each with probability ``rate``. At least one word stays."""
    words = text.split()
    draws = rng.random(len(words))
    rate = min(rate, draws.max())  # the word with the greatest draw always stays
    return " ".join(MASK if draw < rate else word for word, draw in zip(words, draws, strict=True))


def _truncation(text: str, share: float, rng: np.random.Generator, other: str) -> str:
    """Keep the first words, a share ``share`` of them, at least one."""
    words = text.split()
    return " ".join(words[: max(1, round(share * len(words)))])


def _ocr(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    """Misread characters as text recognition does, each confusable string with probability ``rate``."""

    def misread(found: re.Match[str]) -> str:
        """Return a string that looks similar, with probability ``rate``."""
        return _pick(CONFUSIONS[found[0]], rng) if rng.random() < rate else found[0]

    return CONFUSABLE.sub(misread, text)


def _other_text(text: str, share: float, rng: np.random.Generator, other: str) -> str:
    """Replace a share of the words by the same share of the other text's words, at about their relative positions."""
    if not other.strip():
        return drop_words(text, share, rng)
    mixed = _some_words(text, 1 - share, rng) + _some_words(other, share, rng)
    return " ".join(word for _, word in sorted(mixed, key=lambda placed: placed[0]))


def _some_words(text: str, share: float, rng: np.random.Generator) -> list[tuple[float, str]]:
    """Draw words of a text, each with probability ``share``; return them with their relative positions in [0, 1)."""
    words = text.split()
    draws = rng.random(len(words))
    return [(index / len(words), word) for index, word in enumerate(words) if draws[index] < share]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one option with equal probability."""
    return options[int(rng.integers(len(options)))]


def _neighbours() -> dict[str, str]:
    """Return a dictionary from each letter to the letters on adjacent keys."""
    keys = {key: (row, column + row / 2) for row, line in enumerate(KEYBOARD) for column, key in enumerate(line)}

    def touch(key: str, other: str) -> bool:
        """Return whether two different keys are at most one row and one column apart."""
        return key != other and all(abs(a - b) <= 1 for a, b in zip(keys[key], keys[other], strict=True))

    return {key: "".join(other for other in keys if touch(key, other)) for key in keys}


def _confusions() -> dict[str, list[str]]:
    """Return a dictionary from each confusable string to the strings that it can be misread as."""
    found = defaultdict(list)
    for pair in LOOK_ALIKE:
        one, two = pair.split()
        found[one].append(two)
        found[two].append(one)
    return dict(found)


NEIGHBOURS, CONFUSIONS = _neighbours(), _confusions()
CONFUSABLE = re.compile("|".join(sorted(CONFUSIONS, key=len, reverse=True)))  # longer strings first: rn before n

Damage = Callable[[str, float, np.random.Generator, str], str]
# The function of each kind, and its parameter for the severities 1 to 5.
TEXT_NOISE: dict[TextNoiseKind, tuple[Damage, tuple[float, float, float, float, float]]] = {
    "typos": (_typos, (0.03, 0.06, 0.10, 0.16, 0.25)),  # probability that a letter is mistyped
    "deletion": (_deletion, (0.10, 0.20, 0.35, 0.50, 0.70)),  # probability that a word is left out
    "swap": (_swap, (1.5, 2.0, 3.0, 5.0, 10.0)),  # greatest distance in words
    "masking": (_masking, (0.10, 0.20, 0.35, 0.50, 0.70)),  # probability that a word is masked
    "truncation": (_truncation, (0.80, 0.65, 0.50, 0.35, 0.20)),  # share of the words that is kept
    "ocr": (_ocr, (0.04, 0.08, 0.14, 0.22, 0.35)),  # probability that a confusable string is misread
    "other_text": (_other_text, (0.15, 0.30, 0.50, 0.75, 1.00)),  # share of the words that is replaced
}
