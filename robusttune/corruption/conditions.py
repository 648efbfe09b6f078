"""Evaluation conditions: how the same samples are shown to a model, each described completely by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from robusttune.corruption.grammar import HOW, STANDARD_CONDITIONS, kind_and_severity, parse
from robusttune.corruption.missing import Missing, draw_mask
from robusttune.corruption.noise import ImageNoise, TextNoise
from robusttune.errors import RobustTuneError
from robusttune.types import View

T = TypeVar("T")


class Conditions:
    """The conditions of an evaluation.

    A missing rate draws its samples as `Missing` does with that rate and type. Noise is that of `ImageNoise` and
    `TextNoise` with a single kind and severity, on every sample.

    Args:
        names: Names of the conditions, without duplicates. The parts of a name, joined by ``+``, are ``complete``,
            ``no_image``, ``no_text``, ``missing_<image|text|both>_<percent>``, ``noisy_image_<kind>_<severity>`` and
            ``noisy_text_<kind>_<severity>``.
        seed: Seed of the samples that a missing rate affects.

    Attributes:
        all: Conditions, in the order of the names.
        views: Distinct views of all conditions. Features and logits are computed once for each of them.

    Raises:
        RobustTuneError: A name is not valid, the list is empty, or two names mean the same condition.

    Example:
        >>> conditions = Conditions(["complete", "no_image", "missing_text_70"])
        >>> [(view.image, view.text) for view in conditions.views]
        [('clean', 'clean'), (None, 'clean'), ('clean', None)]
    """

    def __init__(self, names: Sequence[str] = STANDARD_CONDITIONS, seed: int = 0) -> None:
        if not names:
            raise RobustTuneError(f"there is no condition in data.evaluation.conditions: give one or more of {HOW}")
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise RobustTuneError(f"{twice[0]!r} comes twice in data.evaluation.conditions: leave one out")
        self.seed = seed
        self.all = [parse(name) for name in names]
        for condition in self.all:
            same = next(other for other in self.all if other[1:] == condition[1:])
            if same is not condition:
                raise RobustTuneError(f"{same.name!r} and {condition.name!r} are one condition: leave one out")
        self.views = list(dict.fromkeys(view for condition in self.all for view in condition.views))

    @property
    def names(self) -> list[str]:
        """Return the names of the conditions, in order."""
        return [condition.name for condition in self.all]

    @cached_property
    def noise(self) -> tuple[dict[str, ImageNoise], dict[str, TextNoise]]:
        """Return the noise of each variant of the images, and of each variant of the texts, without ``clean``."""
        images, texts = ([view[column] for view in self.views] for column in (0, 1))
        return _noise_of(ImageNoise, images), _noise_of(TextNoise, texts)

    def with_views(self, views: Iterable[View]) -> Conditions:
        """Return a copy of the conditions that has these views, too.

        Args:
            views: Views to add. Those that exist already are not repeated.
        """
        more = copy(self)
        more.views = list(dict.fromkeys([*self.views, *views]))
        return more

    def view_indices(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of the view that each sample has under each condition.

        Args:
            ids: Ids of N samples, sorted.

        Returns:
            Indices into ``views``, shape (number of conditions, N), int64.

        Example:
            >>> Conditions(["complete", "no_text"]).view_indices(["a", "b"]).tolist()
            [[0, 0], [1, 1]]
        """
        view_indices = np.empty((len(self.all), len(ids)), np.int64)
        for row, condition in enumerate(self.all):
            complete, without_image, without_text = (self.views.index(view) for view in condition.views)
            view_indices[row] = complete
            if condition.missing is not None:
                kind, percent = condition.missing
                shown = draw_mask(ids, Missing(rate=percent / 100, type=kind, seed=self.seed)).present
                view_indices[row, ~shown[:, 0]], view_indices[row, ~shown[:, 1]] = without_image, without_text
        return view_indices


def _noise_of(settings: Callable[..., T], variants: Iterable[str | None]) -> dict[str, T]:
    """Return the noise settings of each noisy variant."""
    noisy = {variant: kind_and_severity(variant) for variant in variants if variant not in ("clean", None)}
    return {variant: settings([kind], [severity]) for variant, (kind, severity) in noisy.items()}
