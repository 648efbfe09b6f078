"""Which scenes there are and how likely: classes, their prior, what each side shows. No pixels, no words."""

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

MOST_FACTORS = 4  # with more, the best possible accuracy takes minutes to enumerate


@dataclass(frozen=True)
class Visibility:
    """Where a factor shows: drawn for each sample and factor alone, so three probabilities that sum to 1.

    ``text: 0`` makes images complete: each shows every factor, and texts alone may hide some.

    Args:
        image: probability that only the image shows it.
        text: probability that only the text does.
        both: probability that both do.
    """

    image: float = 0.2
    text: float = 0.2
    both: float = 0.6

    def __post_init__(self) -> None:
        refuse_off_simplex("visibility (image, text, both)", (self.image, self.text, self.both))

    @property
    def shares(self) -> tuple[float, float, float]:
        """The three, to the last digit summing to 1."""
        total = self.image + self.text + self.both
        return self.image / total, self.text / total, self.both / total


class Scene(NamedTuple):
    """What a sample is about. Values are numbers within their factor, in the order of `FACTORS`.

    Attributes:
        label: number of the class that it is labelled with, which label noise may have changed.
        image: of each factor the value that the image shows, or `HIDDEN`.
        text: of each factor the value that the text tells, or `HIDDEN`.
    """

    label: int
    image: tuple[int, ...]
    text: tuple[int, ...]


@dataclass(frozen=True)
class World:
    """A distribution of scenes. A class is a combination of the values of some factors; the other factors are noise.

    Half of the combinations are base, half are new, like the fields of a chess board: where two factors or more make a
    class, base classes have every value, and no new combination.

    Args:
        factors: that make a class, one to four of size, texture, colour, shape, count and position.
        part: which combinations may be classes.
        classes: how many of them are, the first of an order in which all values come early; at least 2, None for all.
        prior: probability of each class, in their order, which sum to 1; None for uniform.
        visibility: where a factor shows.
        hidden: how a side draws a factor that it hides: as a ``neutral`` value that nothing else is drawn as, or, which
            is harder, as a ``distractor``, a value drawn at random.
        label_noise: probability in [0, 1] that a label is another class's, drawn uniformly.

    Raises:
        RobustTuneError: no such scenes can be.
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
        """Of each class, the value of each factor that makes it."""
        return self._combinations()[: self.classes]

    @cached_property
    def class_names(self) -> list[str]:
        """A phrase for each class, such as ``red circle``, in label order."""
        order = sorted(range(len(self.factors)), key=lambda i: INDEX[self.factors[i]])
        made = [FACTORS[INDEX[self.factors[i]]] for i in order]
        return [
            " ".join(factor.values[values[i]][0] for i, factor in zip(order, made, strict=True))
            for values in self.combinations
        ]

    @cached_property
    def class_prior(self) -> np.ndarray:
        """(C,) probability of each class before label noise."""
        count = len(self.combinations)
        prior: np.ndarray = np.ones(count) if self.prior is None else np.array(self.prior)
        prior /= prior.sum()
        return prior

    def scene(self, seed: int, split: str, index: int) -> Scene:
        """One scene; the same for the same arguments."""
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
        """All of the part, in an order in which every value comes early."""
        counts = [len(FACTORS[INDEX[name]].values) for name in self.factors]
        every = itertools.product(*map(range, counts))
        found = [values for values in every if self.part == "all" or sum(values) % 2 == (self.part == "new")]
        first = max(counts)
        return sorted(found, key=lambda values: ([(value - values[0]) % first for value in values[1:]], values))


def refuse_off_simplex(what: str, probabilities: Sequence[float]) -> None:
    """Check that they are probabilities that sum to 1.

    Raises:
        RobustTuneError: they do not.
    """
    total = sum(probabilities)
    if not (all(0 <= p <= 1 for p in probabilities) and abs(total - 1) < 1e-6):  # not a number is none of it
        shown = ", ".join(f"{p:g}" for p in probabilities[:6]) + ", ..." * (len(probabilities) > 6)
        raise RobustTuneError(f"{what} {shown} sums to {total:g}: give probabilities from 0 to 1 that sum to 1")
