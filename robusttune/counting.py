"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: float, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 sample``, ``1,024 samples``.

    Args:
        number: Number of things; one that is not whole is rounded to four digits.
        singular: Noun for one of them.
        plural: Noun for several; by default with an s at the end.
    """
    written = f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"
    return f"{written} {singular if number == 1 else plural or f'{singular}s'}"
