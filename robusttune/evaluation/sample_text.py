"""Samples in pictures: their selection, and the wording of their text, image and classes."""

from __future__ import annotations

from collections.abc import Sequence

NO_IMAGE, NO_TEXT, NO_LABEL, NO_CLASS = "no image", "no text", "no label", "none"


def names_or_none(names: Sequence[str] | None) -> str:
    """Return the names of a sample's classes, or of the predicted ones, joined by commas.

    Args:
        names: Names of the classes, possibly none; None for a sample that is not labelled.

    Example:
        >>> names_or_none(["soup", "stew"]), names_or_none([]), names_or_none(None)
        ('soup, stew', 'none', 'no label')
    """
    return NO_LABEL if names is None else ", ".join(names) or NO_CLASS


def text_or_none(text: str | None) -> str:
    """Return a sample's text on one line, or ``no text`` if it is absent or blank.

    Example:
        >>> text_or_none("two\\nlines"), text_or_none(None)
        ('two lines', 'no text')
    """
    return " ".join((text or "").split()) or NO_TEXT


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return the rows of a selection of samples that is spread evenly over all of them.

    Args:
        total: Number of samples.
        count: Number of samples to select; all of them if there are fewer.

    Example:
        >>> evenly_spaced(total=10, count=4), evenly_spaced(total=2, count=4)
        ([0, 2, 5, 7], [0, 1])
    """
    step = max(1, total / count)
    return [int(number * step) for number in range(min(count, total))]
