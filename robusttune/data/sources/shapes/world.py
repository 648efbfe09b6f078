"""The distribution of scenes: classes, their prior, and the values that each modality shows. No pixels, no words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from robusttune.corruption.dropout import sample_generator
from robusttune.data.sources.shapes.factors import FACTORS, HIDDEN, INDEX
from robusttune.errors import RobustTuneError

MOST_FACTORS = 4  # with more, the Bayes accuracy takes minutes to enumerate


@dataclass(frozen=True)
class Visibility:
    """The probabilities that a factor is visible in the image only, in the text only, or in both.

    The choice is drawn independently for each sample and factor. With ``text: 0``, images are complete: they show every
    factor, and only texts may hide some.

    Args:
        image: Probability that only the image shows the factor.
        text: Probability that only the text shows the factor.
        both: Probability that both show the factor.

    Raises:
        RobustTuneError: If the numbers are no probabilities that sum to 1.

    Example:
        >>> Visibility(image=0.5, text=0.5, both=0.0).shares
        (0.5, 0.5, 0.0)
    """

    image: float = 0.2
    text: float = 0.2
    both: float = 0.6

    def __post_init__(self) -> None:
        refuse_off_simplex("visibility (image, text, both)", (self.image, self.text, self.both))

    @property
    def shares(self) -> tuple[float, float, float]:
        """Return the probabilities (image, text, both), normalised to remove rounding errors in their sum."""
        total = self.image + self.text + self.both
        return self.image / total, self.text / total, self.both / total


class Scene(NamedTuple):
    """The content of a sample: its label, and the values of the factors in each modality.

    Attributes:
        label: Index of the class, which label noise may have changed.
        image: Index of the value that the image shows for each factor, or `HIDDEN`, in the order of `FACTORS`.
        text: Index of the value that the text mentions for each factor, or `HIDDEN`, in the order of `FACTORS`.

    Example:
        >>> World().scene(seed=0, split="train", index=0).label in range(24)
        True
    """

    label: int
    image: tuple[int, ...]
    text: tuple[int, ...]


@dataclass(frozen=True)
class World:
    """A distribution of scenes, where a class is a combination of values of some factors, and the others are noise.

    Half of the combinations are base classes and half are new classes, alternating like the squares of a chessboard. So
    with two or more factors, base classes cover every value, but none of the new combinations.

    Args:
        factors: Names of the factors that define a class, one to four of size, texture, colour, shape, count and
            position.
        part: Combinations that may be classes: ``base``, ``new`` or ``all``.
        classes: Number of classes, at least 2; None for all combinations. The combinations are ordered so that a small
            number of classes already covers all values.
        prior: Probability of each class, in their order, summing to 1; None for a uniform prior.
        visibility: Probabilities that a factor is visible in the image only, in the text only, or in both.
        hidden: Rendering of a factor that a modality hides: ``neutral``, a value used for nothing else, or the harder
            ``distractor``, a value drawn at random.
        label_noise: Probability in [0, 1] that a label is replaced by another class, drawn uniformly.

    Raises:
        RobustTuneError: If the factors, the number of classes or a probability is invalid.

    Example:
        >>> World(factors=("colour",), part="all", classes=3).class_names
        ['red', 'orange', 'yellow']
    """

    factors: tuple[str, ...] = ("colour", "shape")
    part: Literal["base", "new", "all"] = "base"
    classes: int | None = None
    prior: tuple[float, ...] | None = None
    visibility: Visibility = field(default_factory=Visibility)
    hidden: Literal["neutral", "distractor"] = "neutral"
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.factors if name not in INDEX]
        if unknown or not 1 <= len(self.factors) <= MOST_FACTORS or len(set(self.factors)) < len(self.factors):
            raise RobustTuneError(
                f"factors {', '.join(self.factors) or 'none'} do not work: "
                f"give 1 to {MOST_FACTORS} different ones of {', '.join(INDEX)}"
            )
        most = len(self._combinations())
        classes = most if self.classes is None else self.classes
        if not 2 <= classes <= most:
            sizes = " x ".join(f"{len(FACTORS[INDEX[name]].values)} {name}" for name in self.factors)
            raise RobustTuneError(
                f"classes {classes} do not fit the {self.part} combinations of {sizes}, of which there are {most}: "
                f"give 2 or more, and no more than there are, or other factors"
            )
        if self.prior is not None:
            if len(self.prior) != len(self.combinations):
                raise RobustTuneError(
                    f"the prior has {len(self.prior)} numbers for {len(self.combinations)} classes: give one each"
                )
            refuse_off_simplex("prior", self.prior)
        if not 0 <= self.label_noise <= 1:
            raise RobustTuneError(f"label_noise is {self.label_noise}: give a probability from 0 to 1")

    @cached_property
    def combinations(self) -> list[tuple[int, ...]]:
        """Return the values of the class factors for each class, as indices, shape (classes, factors)."""
        return self._combinations()[: self.classes]

    @cached_property
    def class_names(self) -> list[str]:
        """Return a phrase for each class, such as ``red circle``, in the order of label indices."""
        order = sorted(range(len(self.factors)), key=lambda i: INDEX[self.factors[i]])
        factors = [FACTORS[INDEX[self.factors[i]]] for i in order]
        return [
            " ".join(factor.values[values[i]][0] for i, factor in zip(order, factors, strict=True))
            for values in self.combinations
        ]

    @cached_property
    def class_prior(self) -> np.ndarray:
        """Return the probability of each class before label noise, shape (C,), float64."""
        count = len(self.combinations)
        prior: np.ndarray = np.ones(count) if self.prior is None else np.array(self.prior)
        prior /= prior.sum()
        return prior

    def scene(self, seed: int, split: str, index: int) -> Scene:
        """Draw a scene. The same arguments always give the same scene.

        Args:
            seed: Random seed, at least 0.
            split: Name of the split.
            index: Index of the sample within the split.
        """
        draw = iter(sample_generator(seed, 0, f"{split}/{index}", "scene").random(3 + 4 * len(FACTORS)).tolist())
        chosen = min(int(np.searchsorted(self._cumulative, next(draw), side="right")), len(self.combinations) - 1)
        own = dict(zip(self.factors, self.combinations[chosen], strict=True))
        label, noise, other = chosen, next(draw), next(draw)
        if noise < self.label_noise:
            label = int(other * (len(self.combinations) - 1))
            label += label >= chosen
        in_image_only, in_text_only, _ = self.visibility.shares
        image, text = [], []
        for factor in FACTORS:
            count = len(factor.values)
            drawn = int(next(draw) * count)
            value = own.get(factor.name, drawn)
            shown, in_image, in_text = next(draw), int(next(draw) * count), int(next(draw) * count)
            if self.hidden == "neutral":
                in_image = in_text = HIDDEN
            only_image = shown < in_image_only
            only_text = in_image_only <= shown < in_image_only + in_text_only
            image.append(in_image if only_text else value)
            text.append(in_text if only_image else value)
        return Scene(label, tuple(image), tuple(text))

    @cached_property
    def _cumulative(self) -> np.ndarray:
        return np.cumsum(self.class_prior)

    def _combinations(self) -> list[tuple[int, ...]]:
        """Return all combinations of the part, ordered so that every value of every factor occurs early."""
        counts = [len(FACTORS[INDEX[name]].values) for name in self.factors]
        every = itertools.product(*map(range, counts))
        found = [values for values in every if self.part == "all" or sum(values) % 2 == (self.part == "new")]
        first = max(counts)
        return sorted(found, key=lambda values: ([(value - values[0]) % first for value in values[1:]], values))


def refuse_off_simplex(what: str, probabilities: Sequence[float]) -> None:
    """Check that numbers are probabilities that sum to 1.

    Args:
        what: Name of the numbers, for the message.
        probabilities: Numbers to check.

    Raises:
        RobustTuneError: If a number is not in [0, 1], or the sum differs from 1 by 1e-6 or more.

    Example:
        >>> refuse_off_simplex("prior", (0.25, 0.75))
    """
    total = sum(probabilities)
    if not (all(0 <= p <= 1 for p in probabilities) and abs(total - 1) < 1e-6):  # written so that NaN fails, too
        shown = ", ".join(f"{p:g}" for p in probabilities[:6]) + ", ..." * (len(probabilities) > 6)
        raise RobustTuneError(f"{what} {shown} sums to {total:g}: give probabilities from 0 to 1 that sum to 1")
