"""Captions of scenes: sentences from a small grammar that depend only on the values visible in the text."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from robusttune.data.sources.shapes.factors import FACTORS, HIDDEN, Factor
from robusttune.data.sources.shapes.world import Scene

OPENINGS = ("", "a drawing of the", "look here,", "picture 12:", "this shows the", "one more", "scene with the", "my")
SENTENCES = (
    "{size} {texture} {colour} {shape} placed {position} and drawn {count}",
    "{colour} {shape} {position}, {size} and {texture}, drawn {count}",
    "{texture} {shape} in {colour}, {size}, to be seen {count}, {position}",
    "{size} {colour} {shape} that is {texture} and appears {count} {position}",
    "{count} a {colour} {size} {shape} with {texture} filling, put {position}",
)
CLOSINGS = ("", "on paper", "for the children", "as we saw it yesterday", "(draft)", "in the old book", "again")
WORDS = tuple(word for factor in FACTORS for words in (*factor.values, factor.neutral) for word in words)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return a random caption with one word per factor. Its length and filler words are independent of the scene.

    Args:
        scene: Scene to describe; only ``scene.text`` is used.
        rng: Random generator. Every call uses the same number of draws.

    Example:
        >>> scene = Scene(label=0, image=(0,) * 6, text=(1, 0, 5, 0, 0, 2))
        >>> len(caption(scene, np.random.default_rng(0)).split()) in caption_lengths()
        True
    """
    draw = iter(rng.random(3 + len(FACTORS)).tolist())
    opening, sentence, closing = (
        choices[int(next(draw) * len(choices))] for choices in (OPENINGS, SENTENCES, CLOSINGS)
    )
    words = {factor.name: _word(factor, value, next(draw)) for factor, value in zip(FACTORS, scene.text, strict=True)}
    return " ".join(part for part in (opening, sentence.format(**words), closing) if part)


@cache
def caption_lengths() -> dict[int, float]:
    """Return the probability of each caption length, by number of words."""
    lengths = [sum(len(part.split()) for part in parts) for parts in itertools.product(OPENINGS, SENTENCES, CLOSINGS)]
    return {length: lengths.count(length) / len(lengths) for length in sorted(set(lengths))}


def _word(factor: Factor, value: int, draw: float) -> str:
    """Return a synonym for a value, chosen by a number in [0, 1)."""
    words = factor.neutral if value == HIDDEN else factor.values[value]
    return words[int(draw * len(words))]
