"""Evaluation conditions: how the same samples are shown to a model, each described completely by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import copy
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from robusttune.corruption.missing import Missing, draw_mask
from robusttune.corruption.noise import SEVERITIES, ImageNoise, ImageNoiseKind, TextNoise, TextNoiseKind
from robusttune.errors import RobustTuneError
from robusttune.types import View

MissingType = Literal["image", "text", "both"]
DEFAULT = ("complete", "no_image", "no_text")
KINDS = {"image": get_args(ImageNoiseKind), "text": get_args(TextNoiseKind)}
HOW = (
    "complete, no_image, no_text, missing_<image|text|both>_<percent>, noisy_image_<kind>_<severity>, "
    "noisy_text_<kind>_<severity>, or several joined by +"
)


class Condition(NamedTuple):
    """An evaluation condition: the variants of a sample that a model gets.

    Attributes:
        name: Name in the settings and in reports, such as ``no_image+noisy_text_typos_3``.
        shown: View of a sample that is not affected by a missing rate.
        missing: Modality that some samples lack in addition, and their share in percent, in (0, 100]; None for no
            missing rate.
    """

    name: str
    shown: View
    missing: tuple[MissingType, float] | None = None

    @property
    def views(self) -> list[View]:
        """Return three views: of samples that lose nothing, of those that lose the image, and the text.

        A modality that the condition never removes leaves the first view in its place.
        """
        kind = None if self.missing is None else self.missing[0]
        without_image = self.shown if kind in (None, "text") else self.shown._replace(image=None)
        without_text = self.shown if kind in (None, "image") else self.shown._replace(text=None)
        return [self.shown, without_image, without_text]


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

    def __init__(self, names: Sequence[str] = DEFAULT, seed: int = 0) -> None:
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
        images = {view.image: None for view in self.views if view.image not in ("clean", None)}
        texts = {view.text: None for view in self.views if view.text not in ("clean", None)}
        return (
            {variant: ImageNoise(*_kind_and_severity(variant)) for variant in images if variant},
            {variant: TextNoise(*_kind_and_severity(variant)) for variant in texts if variant},
        )

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
                shown = draw_mask(ids, Missing(rate=percent / 100, type=kind, seed=self.seed)).shown
                view_indices[row, ~shown[:, 0]], view_indices[row, ~shown[:, 1]] = without_image, without_text
        return view_indices


def parse(name: str) -> Condition:
    """Parse the name of a condition.

    Args:
        name: Name of a condition, see `Conditions`.

    Raises:
        RobustTuneError: The name is not valid, or two of its parts contradict each other.

    Example:
        >>> parse("no_image+noisy_text_typos_3").shown
        View(image=None, text='typos_3')
        >>> parse("missing_both_50").missing
        ('both', 50.0)
    """
    variants: dict[str, str | None] = {}
    missing: tuple[MissingType, float] | None = None
    for part in [] if name == "complete" else name.split("+"):
        if absent := re.fullmatch(r"no_(image|text)", part):
            changed: tuple[str, str | None] = (absent[1], None)
        elif noisy := re.fullmatch(r"noisy_(image|text)_([a-z_]+)_(\d+)", part):
            changed = (noisy[1], f"{noisy[2]}_{noisy[3]}")
            if noisy[2] not in KINDS[noisy[1]] or noisy[3] not in map(str, SEVERITIES):
                raise RobustTuneError(
                    f"{name!r} is no condition: the kinds of {noisy[1]} noise are {', '.join(KINDS[noisy[1]])}, "
                    "and severities go from 1 to 5"
                )
        elif rate := re.fullmatch(r"missing_(image|text|both)_(\d+(?:\.\d+)?)", part):
            if missing is not None or not 0 < float(rate[2]) <= 100:
                raise RobustTuneError(f"{name!r} is no condition: give one missing rate, of more than 0 to 100 percent")
            missing = (rate[1], float(rate[2]))  # type: ignore[assignment]
            continue
        else:
            raise RobustTuneError(f"{name!r} is no condition: give {HOW}")
        if changed[0] in variants:
            raise RobustTuneError(f"{name!r} is no condition: it says twice what becomes of the {changed[0]}")
        variants[changed[0]] = changed[1]
    if missing is not None and missing[0] in variants and variants[missing[0]] is None:
        raise RobustTuneError(f"{name!r} is no condition: no {missing[0]} is left that could be missing")
    return Condition(name, View(**variants), missing)


def _kind_and_severity(variant: str) -> tuple[list, list[int]]:  # type: ignore[type-arg]
    """Split the name of a variant, such as ``typos_3``, into a list of its kind and a list of its severity."""
    kind, _, severity = variant.rpartition("_")
    return [kind], [int(severity)]
