"""Kinds of text noise, each in five severities: pure functions of the text and a random generator.

Words are what white space separates; kinds that damage words join what there is then by single spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

TextNoiseKind = Literal["typos", "deletion", "swap", "masking", "truncation", "ocr", "other_text"]

MASK = "[MASK]"  # a token of its own to BERT's tokenizers
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # each row is half a key to the right of the one above
LOOK_ALIKE = (
    *("rn m", "cl d", "vv w", "li h", "l 1", "l I", "I 1", "i j", "i l", "o 0", "O 0", "O Q", "o a", "s 5", "S 5"),
    *("B 8", "e c", "h b", "g 9", "G 6", "G C", "z 2", "Z 2", "t f", "n u", "v y", "E F", "P R", "T 7", "A 4"),
)


def corrupt_text(text: str, kind: TextNoiseKind, severity: int, rng: np.random.Generator, other: str | None) -> str:
    """The text with one kind of noise; it does not become blank, and a blank one stays as it is.

    Args:
        text: any text; one in which the kind finds nothing to damage keeps its words.
        kind: of noise.
        severity: from 1, mild, to 5.
        rng: that the noise is drawn from.
        other: another sample's text, which `other_text` takes words from; without it that kind leaves words out.
    """
    if not text.strip():
        return text
    damage, parameters = TEXT_NOISE[kind]
    noisy = damage(text, parameters[severity - 1], rng, other or "")
    return noisy if noisy.strip() else text


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """The text without some of its words, joined by single spaces; one word always stays."""
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= rate]
    return " ".join(kept or words[int(rng.integers(len(words))) :][:1]) if words else text


def _typos(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    characters = list(text)
    for place in np.flatnonzero(rng.random(len(text)) < rate):
        marked = unicodedata.category(text[place + 1 : place + 2] or " ").startswith("M")
        if text[place].isalpha() and not marked:  # an accent must not end up on another letter
            characters[place] = _mistype(text[place], rng)
    return "".join(characters)


def _mistype(letter: str, rng: np.random.Generator) -> str:
    """Another key instead, another key as well, none, or the same twice; a letter of no key is its own neighbour."""
    near = _pick(NEIGHBOURS.get(letter.lower(), letter), rng)
    near = near.upper() if letter.isupper() else near
    return _pick((near, near + letter, "", letter + letter), rng)


def _deletion(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    return drop_words(text, rate, rng)


def _swap(text: str, reach: float, rng: np.random.Generator, other: str) -> str:
    """Each word moves back by less than the reach, and so past those before it that moved less."""
    words = text.split()
    places = np.arange(len(words)) - rng.uniform(0, reach, len(words))
    return " ".join(words[place] for place in np.argsort(places))


def _masking(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    words = text.split()
    draws = rng.random(len(words))
    rate = min(rate, draws.max())  # the word of the greatest draw stays
    return " ".join(MASK if draw < rate else word for word, draw in zip(words, draws, strict=True))


def _truncation(text: str, share: float, rng: np.random.Generator, other: str) -> str:
    words = text.split()
    return " ".join(words[: max(1, round(share * len(words)))])


def _ocr(text: str, rate: float, rng: np.random.Generator, other: str) -> str:
    def read(found: re.Match[str]) -> str:
        return _pick(CONFUSIONS[found[0]], rng) if rng.random() < rate else found[0]

    return CONFUSABLE.sub(read, text)


def _other_text(text: str, share: float, rng: np.random.Generator, other: str) -> str:
    """A share of the words goes and the same share of the other's comes, in about the places that they had there."""
    if not other.strip():
        return drop_words(text, share, rng)
    mixed = _some_words(text, 1 - share, rng) + _some_words(other, share, rng)
    return " ".join(word for _, word in sorted(mixed, key=lambda placed: placed[0]))


def _some_words(text: str, share: float, rng: np.random.Generator) -> list[tuple[float, str]]:
    """Words drawn from a text, each with its place in [0, 1)."""
    words = text.split()
    draws = rng.random(len(words))
    return [(place / len(words), word) for place, word in enumerate(words) if draws[place] < share]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _neighbours() -> dict[str, str]:
    """Of each letter, those whose keys touch its own."""
    keys = {key: (row, column + row / 2) for row, line in enumerate(KEYBOARD) for column, key in enumerate(line)}

    def touch(key: str, other: str) -> bool:
        return key != other and all(abs(a - b) <= 1 for a, b in zip(keys[key], keys[other], strict=True))

    return {key: "".join(other for other in keys if touch(key, other)) for key in keys}


def _confusions() -> dict[str, list[str]]:
    """Of each string that can be misread, what it is taken for."""
    found = defaultdict(list)
    for pair in LOOK_ALIKE:
        one, two = pair.split()
        found[one].append(two)
        found[two].append(one)
    return dict(found)


NEIGHBOURS, CONFUSIONS = _neighbours(), _confusions()
CONFUSABLE = re.compile("|".join(sorted(CONFUSIONS, key=len, reverse=True)))  # rn before n

Damage = Callable[[str, float, np.random.Generator, str], str]
# Of each kind, what does it, and the parameter that it takes by severity.
TEXT_NOISE: dict[TextNoiseKind, tuple[Damage, tuple[float, float, float, float, float]]] = {
    "typos": (_typos, (0.03, 0.06, 0.10, 0.16, 0.25)),  # share of the letters
    "deletion": (_deletion, (0.10, 0.20, 0.35, 0.50, 0.70)),  # share of the words
    "swap": (_swap, (1.5, 2.0, 3.0, 5.0, 10.0)),  # words
    "masking": (_masking, (0.10, 0.20, 0.35, 0.50, 0.70)),  # share of the words
    "truncation": (_truncation, (0.80, 0.65, 0.50, 0.35, 0.20)),  # share of the words that stays
    "ocr": (_ocr, (0.04, 0.08, 0.14, 0.22, 0.35)),  # share of what can be misread
    "other_text": (_other_text, (0.15, 0.30, 0.50, 0.75, 1.00)),  # share of the words
}
