"""The grammar of the names of evaluation conditions, such as ``no_image+noisy_text_typos_3``.

Every name is read here: settings, reports and plots use `parse`.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from robusttune.corruption.noise import SEVERITIES, ImageNoiseKind, TextNoiseKind
from robusttune.errors import RobustTuneError
from robusttune.types import View

MissingType = Literal["image", "text", "both"]
MISSING_TYPES: tuple[MissingType, ...] = get_args(MissingType)
COMPLETE = "complete"
STANDARD_CONDITIONS = (COMPLETE, "no_image", "no_text")
KINDS = {"image": get_args(ImageNoiseKind), "text": get_args(TextNoiseKind)}
HOW = (
    "complete, no_image, no_text, missing_<image|text|both>_<percent>, noisy_image_<kind>_<severity>, "
    "noisy_text_<kind>_<severity>, or several joined by +"
)


class NoiseLevel(NamedTuple):
    """One kind of noise on one modality.

    Attributes:
        modality: Noisy modality, ``image`` or ``text``.
        kind: Kind of noise, such as ``gaussian``.
        severity: Severity, 1 to 5.

    Example:
        >>> NoiseLevel("image", "blur", severity=3).kind
        'blur'
    """

    modality: str
    kind: str
    severity: int


class Condition(NamedTuple):
    """An evaluation condition: the variants of a sample that a model gets.

    Attributes:
        name: Name in the settings and in reports, such as ``no_image+noisy_text_typos_3``.
        view: View of a sample that is not affected by a missing rate.
        missing: Modality that some samples lack in addition, and their share in percent, in (0, 100]; None for no
            missing rate.

    Example:
        >>> parse("missing_image_30").missing_rate("image"), parse("noisy_text_ocr_2").noise_alone
        (0.3, NoiseLevel(modality='text', kind='ocr', severity=2))
    """

    name: str
    view: View
    missing: tuple[MissingType, float] | None = None

    @property
    def views(self) -> list[View]:
        """Return three views: of samples that lose nothing, of those that lose the image, and the text.

        A modality that the condition never removes leaves the first view in its place.
        """
        kind = None if self.missing is None else self.missing[0]
        without_image = self.view if kind in (None, "text") else self.view._replace(image=None)
        without_text = self.view if kind in (None, "image") else self.view._replace(text=None)
        return [self.view, without_image, without_text]

    @property
    def parts(self) -> int:
        """Return the number of changes to a complete sample that the condition combines, 0 to 3."""
        return (self.view.image != "clean") + (self.view.text != "clean") + (self.missing is not None)

    @property
    def noise_alone(self) -> NoiseLevel | None:
        """Return the noise if the condition has noise on one modality and nothing else, or None."""
        if self.parts != 1 or self.missing is not None:
            return None
        modality, variant = ("image", self.view.image) if self.view.image != "clean" else ("text", self.view.text)
        return None if variant is None else NoiseLevel(modality, *kind_and_severity(variant))

    def missing_rate(self, missing_type: MissingType) -> float | None:
        """Return the missing rate of a missing type, in [0, 1], or None if the condition has another type or noise.

        A complete sample has the rate 0 of every type. A modality that is always missing has the rate 1 of its own.

        Args:
            missing_type: Modality that is missing, or ``both`` for either of them.
        """
        if self.missing is not None:
            own_type, percent = self.missing
            return percent / 100 if own_type == missing_type and self.view == View() else None
        rates = {View(): 0.0, View(image=None): 1.0 if missing_type == "image" else None}
        rates[View(text=None)] = 1.0 if missing_type == "text" else None
        return rates.get(self.view)


def parse(name: str) -> Condition:
    """Parse the name of a condition.

    Args:
        name: Name of a condition, see `Conditions`.

    Raises:
        RobustTuneError: The name is not valid, or two of its parts contradict each other.

    Example:
        >>> parse("no_image+noisy_text_typos_3").view
        View(image=None, text='typos_3')
        >>> parse("missing_both_50").missing
        ('both', 50.0)
    """
    variants: dict[str, str | None] = {}
    missing: tuple[MissingType, float] | None = None
    for part in [] if name == COMPLETE else name.split("+"):
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
            raise RobustTuneError(f"{name!r} is no condition: it has two parts about the {changed[0]}")
        variants[changed[0]] = changed[1]
    if missing is not None and missing[0] in variants and variants[missing[0]] is None:
        raise RobustTuneError(f"{name!r} is no condition: it hides every {missing[0]} already")
    return Condition(name, View(**variants), missing)


def kind_and_severity(variant: str) -> tuple[str, int]:
    """Split the name of a noisy variant into its kind and its severity.

    Example:
        >>> kind_and_severity("low_resolution_3")
        ('low_resolution', 3)
    """
    kind, _, severity = variant.rpartition("_")
    return kind, int(severity)
