"""What a scene may vary in, and how each value is said; everything a sample's label can depend on is here."""

from __future__ import annotations

from typing import NamedTuple


class Factor(NamedTuple):
    """Something that varies between scenes.

    A value is said in one word, which stands for no other value of any factor, so that a word that is left out takes
    nothing else with it.

    Attributes:
        name: of the factor.
        values: the words for each value; the first is its name.
        neutral: the words that are said of a value that the text hides.
    """

    name: str
    values: tuple[tuple[str, ...], ...]
    neutral: tuple[str, ...]


FACTORS = (
    Factor("size", (("small", "little"), ("large", "big")), ("medium", "ordinary")),
    Factor(
        "texture",
        (("plain", "solid"), ("striped", "lined"), ("dotted", "spotted"), ("checked", "chequered")),
        ("textured", "patterned"),
    ),
    Factor(
        "colour",
        (
            ("red", "crimson", "scarlet"),
            ("orange", "tangerine"),
            ("yellow", "lemon", "golden"),
            ("green", "emerald"),
            ("cyan", "turquoise", "aqua"),
            ("blue", "navy", "sapphire"),
            ("purple", "violet"),
            ("pink", "rosy"),
        ),
        ("coloured", "painted"),
    ),
    Factor(
        "shape",
        (
            ("circle", "disc", "round"),
            ("square", "box", "quadrate"),
            ("triangle", "wedge"),
            ("star", "asterisk"),
            ("cross", "plus"),
            ("heart", "valentine"),
        ),
        ("shape", "thing"),
    ),
    Factor("count", (("once", "singly"), ("twice", "doubly"), ("thrice", "triply")), ("repeatedly", "sometimes")),
    Factor(
        "position",
        (("left", "leftwards"), ("right", "rightwards"), ("high", "upwards"), ("low", "downwards")),
        ("somewhere", "anywhere"),
    ),
)
INDEX = {factor.name: i for i, factor in enumerate(FACTORS)}
HIDDEN = -1  # stands for the value of a factor that a side hides
