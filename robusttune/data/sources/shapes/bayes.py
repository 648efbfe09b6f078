"""The Bayes accuracy of a `World`, the best that any model can reach, computed exactly by enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from robusttune.data.sources.shapes.factors import FACTORS, INDEX
from robusttune.data.sources.shapes.world import World
from robusttune.errors import RobustTuneError


def bayes_accuracy(
    world: World, caption_lengths: Mapping[int, float], image: bool = True, text: bool = True, word_dropout: float = 0.0
) -> float:
    """Return the expected accuracy, in [0, 1], of predicting the class with the highest posterior probability.

    Args:
        world: Distribution of the samples.
        caption_lengths: Probability of each caption length, by number of words.
        image: Flag, True if the image is present.
        text: Flag, True if the text is present.
        word_dropout: Probability in [0, 1] that a word of the text is dropped. If all words were to be dropped, one
            word, drawn uniformly, is kept.

    Raises:
        RobustTuneError: If ``word_dropout`` is not a probability.

    Example:
        >>> from robusttune.data.sources.shapes.world import Visibility
        >>> world = World(visibility=Visibility(image=0, text=0, both=1))
        >>> bayes_accuracy(world, {6: 1.0}), round(bayes_accuracy(world, {6: 1.0}, image=False, text=False), 3)
        (1.0, 0.042)
    """
    if not 0 <= word_dropout <= 1:
        raise RobustTuneError(f"word_dropout is {word_dropout}: give a probability from 0 to 1")
    kept = _kept_words(world.factors, caption_lengths, word_dropout) if text else {(): 1.0}
    return sum(p * _accuracy(world, image, factors) for factors, p in kept.items() if p > 0)


def _kept_words(
    factors: tuple[str, ...], lengths: Mapping[int, float], word_dropout: float
) -> dict[tuple[str, ...], float]:
    """Return the probability that the words of exactly these factors are kept, for each subset of the factors.

    The kept words are independent of the class. A caption has one word per factor, so its length is at least the number
    of factors.
    """
    # Probability that all n words were to be dropped and a given one of them was kept instead.
    rescued = sum(p * word_dropout**n / n for n, p in lengths.items())
    found: dict[tuple[str, ...], float] = {}
    for kept in range(len(factors) + 1):
        probability = (1 - word_dropout) ** kept * word_dropout ** (len(factors) - kept)
        probability += {0: -len(factors) * rescued, 1: rescued}.get(kept, 0.0)
        probability = max(probability, 0.0)  # rounding may leave -1e-17
        found |= dict.fromkeys(itertools.combinations(factors, kept), probability)
    return found


def _accuracy(world: World, image: bool, kept: tuple[str, ...]) -> float:
    """Return the Bayes accuracy if the text has words for exactly the factors ``kept``.

    Args:
        world: Distribution of the samples.
        image: Flag, True if the image is present.
        kept: Names of the factors whose words are in the text.
    """
    values = np.array(world.combinations)
    tables = [
        _outcomes(world, len(FACTORS[INDEX[name]].values), image, name in kept)[:, values[:, i]]
        for i, name in enumerate(world.factors)
    ]
    noise, others = world.label_noise, len(values) - 1

    def best(joint: np.ndarray, rest: list[np.ndarray]) -> float:
        """Return the summed probability of the best predictions.

        Args:
            joint: Joint probabilities of the observed outcomes so far and the class, shape (N, C).
            rest: Tables of the remaining factors: likelihood of each outcome given the class, shape (outcomes, C).
        """
        if not rest:
            labelled = (1 - noise) * joint + noise / others * (joint.sum(1, keepdims=True) - joint)
            return float(labelled.max(1).sum())
        if len(joint) * len(rest[0]) > 4096:  # one outcome at a time, to bound the memory
            return sum(best(joint * row, rest[1:]) for row in rest[0])
        return best((joint[:, None] * rest[0][None]).reshape(-1, joint.shape[1]), rest[1:])

    return best(world.class_prior[None], tables)


def _outcomes(world: World, count: int, image: bool, has_word: bool) -> np.ndarray:
    """Return the likelihood of each observable outcome of a factor given its value, shape (outcomes, count).

    An outcome is a pair of the value (or the neutral one) in the image and the value (or the neutral one) in the text.

    Args:
        world: Distribution of the samples.
        count: Number of values of the factor.
        image: Flag, True if the image is present.
        has_word: Flag, True if the text has a word for the factor.
    """
    in_image_only, in_text_only, in_both = world.visibility.shares
    visible = np.eye(count + 1)[:count]  # (value, observed value), where the last column is the neutral value
    if world.hidden == "neutral":
        hidden = np.tile(np.eye(count + 1)[count], (count, 1))
    else:
        hidden = np.tile(np.append(np.full(count, 1 / count), 0.0), (count, 1))
    cases = [(in_image_only, visible, hidden), (in_text_only, hidden, visible), (in_both, visible, visible)]
    joint = sum(p * np.einsum("vi,vt->itv", in_image, in_text) for p, in_image, in_text in cases)
    observed = joint if image else joint.sum(0, keepdims=True)
    observed = observed if has_word else observed.sum(1, keepdims=True)
    return _merged(observed.reshape(-1, count))


def _merged(outcomes: np.ndarray) -> np.ndarray:
    """Add up outcomes with the same posterior of the value, that is, rows that are multiples of each other."""
    weight = outcomes.sum(1)
    posteriors = (outcomes[weight > 0] / weight[weight > 0, None]).round(12)
    groups, group = np.unique(posteriors, axis=0, return_inverse=True)
    merged = np.zeros_like(groups)
    np.add.at(merged, group.reshape(-1), outcomes[weight > 0])
    return merged
