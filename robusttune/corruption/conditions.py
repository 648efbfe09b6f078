"""Conditions: ways to look at the same samples, each known by a name that says all of it."""

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
    """A way to look at samples.

    Attributes:
        name: by which it is asked for, and under which it is reported.
        shown: what is seen of a sample that lacks nothing.
        missing: which side how many samples lack beside that, in percent, or None.
    """

    name: str
    shown: View
    missing: tuple[MissingType, float] | None = None

    @property
    def views(self) -> list[View]:
        """What is shown of samples that lose nothing, their image, and their text; the same for one that cannot be."""
        kind = None if self.missing is None else self.missing[0]
        without_image = self.shown if kind in (None, "text") else self.shown._replace(image=None)
        without_text = self.shown if kind in (None, "image") else self.shown._replace(text=None)
        return [self.shown, without_image, without_text]


class Conditions:
    """The conditions of an evaluation.

    A missing rate draws its samples as `Missing` does with that rate and type, and noise is that of `ImageNoise` and
    `TextNoise` with that one kind and severity, on every sample.

    Args:
        names: of conditions, each once.
        seed: of missing sides.

    Attributes:
        views: all that is shown of samples under any of them, each once.

    Raises:
        RobustTuneError: a name is none of a condition, or there is none, or it comes twice.
    """

    def __init__(self, names: Sequence[str] = DEFAULT, seed: int = 0) -> None:
        if not names:
            raise RobustTuneError(f"there is no condition in data.conditions: give one or more of {HOW}")
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise RobustTuneError(f"{twice[0]!r} comes twice in data.conditions: leave one out")
        self.seed = seed
        self.all = [parse(name) for name in names]
        for condition in self.all:
            same = next(other for other in self.all if other[1:] == condition[1:])
            if same is not condition:
                raise RobustTuneError(f"{same.name!r} and {condition.name!r} are one condition: leave one out")
        self.views = list(dict.fromkeys(view for condition in self.all for view in condition.views))

    @property
    def names(self) -> list[str]:
        """Of the conditions."""
        return [condition.name for condition in self.all]

    @cached_property
    def noise(self) -> tuple[dict[str, ImageNoise], dict[str, TextNoise]]:
        """By variant, what makes it of clean images, and of clean texts."""
        images = {view.image: None for view in self.views if view.image not in ("clean", None)}
        texts = {view.text: None for view in self.views if view.text not in ("clean", None)}
        return (
            {variant: ImageNoise(*_kind_and_severity(variant)) for variant in images if variant},
            {variant: TextNoise(*_kind_and_severity(variant)) for variant in texts if variant},
        )

    def with_views(self, views: Iterable[View]) -> Conditions:
        """The same conditions with more views."""
        more = copy(self)
        more.views = list(dict.fromkeys([*self.views, *views]))
        return more

    def seen(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Which of the views is seen of each sample under each condition.

        Args:
            ids: of N samples, sorted.

        Returns:
            (conditions, N) numbers of views.
        """
        found = np.empty((len(self.all), len(ids)), np.int64)
        for row, condition in enumerate(self.all):
            numbers = np.array([self.views.index(view) for view in condition.views])
            found[row] = numbers[0]
            if condition.missing is not None:
                kind, percent = condition.missing
                shown = draw_mask(ids, Missing(rate=percent / 100, type=kind, seed=self.seed)).shown
                found[row, ~shown[:, 0]], found[row, ~shown[:, 1]] = numbers[1], numbers[2]
        return found


def parse(name: str) -> Condition:
    """The condition of a name.

    Raises:
        RobustTuneError: it is none, or two of its parts contradict each other.
    """
    sides: dict[str, str | None] = {}
    missing: tuple[MissingType, float] | None = None
    for part in [] if name == "complete" else name.split("+"):
        if withheld := re.fullmatch(r"no_(image|text)", part):
            changed: tuple[str, str | None] = (withheld[1], None)
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
        if changed[0] in sides:
            raise RobustTuneError(f"{name!r} is no condition: it says twice what becomes of the {changed[0]}")
        sides[changed[0]] = changed[1]
    if missing is not None and missing[0] in sides and sides[missing[0]] is None:
        raise RobustTuneError(f"{name!r} is no condition: no {missing[0]} is left that could be missing")
    return Condition(name, View(**sides), missing)


def _kind_and_severity(variant: str) -> tuple[list, list[int]]:  # type: ignore[type-arg]
    kind, _, severity = variant.rpartition("_")
    return [kind], [int(severity)]
