"""Class names that look alike: they differ only in case, Unicode form, spaces or number format."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

SHOWN = 3


def plain_form(name: str) -> str:
    """Return a normalised form of a name: NFC, case-folded, with single spaces, and numbers in one format.

    Two names with the same form probably mean the same class.

    Example:
        >>> plain_form("Pizza") == plain_form("pizza "), plain_form("0") == plain_form("0.0")
        (True, True)
    """
    folded = " ".join(unicodedata.normalize("NFC", name).casefold().split())
    try:
        number = float(folded)
    except ValueError:
        return folded
    return repr(number) if math.isfinite(number) else folded


def written_out(name: str, other: str) -> str:
    r"""Return a name in quotes; non-ASCII characters are escaped if the other name looks exactly the same.

    Args:
        name: Name to quote.
        other: Name that it is compared with. The two look the same if their NFC forms are equal.

    Example:
        >>> written_out("crème", "creme")
        "'crème'"
        >>> print(written_out("cr\u00e8me", "cre\u0300me"))
        'cr\xe8me'
    """
    same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return ascii(name) if same else repr(name)


def look_alikes(names: Iterable[str]) -> str | None:
    """Return a sentence about class names that look alike, or None if there are none.

    Args:
        names: Names of classes, each once.

    Example:
        >>> look_alikes(["pie", "Pizza", "pizza"])
        "of 3 classes 2 differ from another in case, Unicode form, spaces or number format alone: 'Pizza' and 'pizza'"
    """
    groups: dict[str, list[str]] = {}
    names = list(names)
    for name in names:
        groups.setdefault(plain_form(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return None
    shown = "; ".join(
        " and ".join(written_out(name, group[name == group[0]]) for name in group) for group in alike[:SHOWN]
    )
    return (
        f"of {len(names)} classes {sum(map(len, alike))} differ from another in case, Unicode form, spaces or number "
        f"format alone: {shown}{'; ...' * (len(alike) > SHOWN)}"
    )
