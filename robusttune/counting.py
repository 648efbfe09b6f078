"""Formatting of counts in messages."""

from __future__ import annotations


def counted(number: float, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 sample``, ``1,024 samples``.

    Args:
        number: Number of things. A float is written with four significant digits.
        singular: Noun for one of them.
        plural: Noun for several. Default: ``singular`` with an s at the end.

    Example:
        >>> counted(1024, "sample")
        '1,024 samples'
        >>> counted(1, "class", "classes")
        '1 class'
    """
    written = f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"
    return f"{written} {singular if number == 1 else plural or f'{singular}s'}"
