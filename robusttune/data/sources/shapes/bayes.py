"""The best possible accuracy: that of Bayes' rule with every distribution known, by enumeration, not by drawing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from robusttune.data.sources.shapes.factors import FACTORS, INDEX
from robusttune.data.sources.shapes.world import World
from robusttune.errors import RobustTuneError


def best_accuracy(
    world: World, caption_lengths: Mapping[int, float], image: bool = True, text: bool = True, word_dropout: float = 0.0
) -> float:
    """Expected accuracy of the answer with the greatest posterior probability, in [0, 1].

    Args:
        world: that samples are drawn from.
        caption_lengths: probability of each number of words that a caption may have.
        image: whether the image is seen.
        text: whether the text is.
        word_dropout: probability that a word of the text is left out, where one word always stays.

    Raises:
        RobustTuneError: that is no probability.
    """
    if not 0 <= word_dropout <= 1:
        raise RobustTuneError(f"word_dropout is {word_dropout}: give a probability from 0 to 1")
    told = _told(world.factors, caption_lengths, word_dropout) if text else {(): 1.0}
    return sum(share * _accuracy(world, image, factors) for factors, share in told.items() if share > 0)


def _told(factors: tuple[str, ...], lengths: Mapping[int, float], word_dropout: float) -> dict[tuple[str, ...], float]:
    """How probable it is that the words of exactly these factors stay. Which words stay says nothing of the class.

    A caption has one word for each factor, so as many words as factors at least.
    """
    # Where all n words were to go, one stays, each of them as likely.
    rescued = sum(share * word_dropout**n / n for n, share in lengths.items())
    found: dict[tuple[str, ...], float] = {}
    for kept in range(len(factors) + 1):
        probability = (1 - word_dropout) ** kept * word_dropout ** (len(factors) - kept)
        probability += {0: -len(factors) * rescued, 1: rescued}.get(kept, 0.0)
        probability = max(probability, 0.0)  # rounding may leave -1e-17
        found |= dict.fromkeys(itertools.combinations(factors, kept), probability)
    return found


def _accuracy(world: World, image: bool, told: tuple[str, ...]) -> float:
    """Where the image is seen or not, and the text's words for exactly these factors are."""
    values = np.array(world.combinations)
    tables = [
        _outcomes(world, len(FACTORS[INDEX[name]].values), image, name in told)[:, values[:, i]]
        for i, name in enumerate(world.factors)
    ]
    noise, others = world.label_noise, len(values) - 1

    def best(joint: np.ndarray, rest: list[np.ndarray]) -> float:
        """Of (N, C) joint probabilities of what was seen so far and the class, what the best answers sum to."""
        if not rest:
            labelled = (1 - noise) * joint + noise / others * (joint.sum(1, keepdims=True) - joint)
            return float(labelled.max(1).sum())
        if len(joint) * len(rest[0]) > 4096:  # piece by piece, to bound the memory
            return sum(best(joint * row, rest[1:]) for row in rest[0])
        return best((joint[:, None] * rest[0][None]).reshape(-1, joint.shape[1]), rest[1:])

    return best(world.class_prior[None], tables)


def _outcomes(world: World, count: int, image: bool, told: bool) -> np.ndarray:
    """(outcomes, count): how likely each thing that may be seen of a factor is, by its value.

    What is seen is a value or nothing in the image, and a value or nothing in the text.
    """
    in_image_only, in_text_only, in_both = world.visibility.shares
    own = np.eye(count + 1)[:count]  # (value, shown), where the last is the neutral one
    if world.hidden == "neutral":
        hides = np.tile(np.eye(count + 1)[count], (count, 1))
    else:
        hides = np.tile(np.append(np.full(count, 1 / count), 0.0), (count, 1))
    ways = [(in_image_only, own, hides), (in_text_only, hides, own), (in_both, own, own)]
    joint = sum(p * np.einsum("vi,vt->itv", in_image, in_text) for p, in_image, in_text in ways)
    seen = joint if image else joint.sum(0, keepdims=True)
    seen = seen if told else seen.sum(1, keepdims=True)
    return _merged(seen.reshape(-1, count))


def _merged(outcomes: np.ndarray) -> np.ndarray:
    """Outcomes that say the same of the value are one: rows that are multiples of each other are added."""
    weight = outcomes.sum(1)
    shares = (outcomes[weight > 0] / weight[weight > 0, None]).round(12)
    groups, group = np.unique(shares, axis=0, return_inverse=True)
    merged = np.zeros_like(groups)
    np.add.at(merged, group.reshape(-1), outcomes[weight > 0])
    return merged
