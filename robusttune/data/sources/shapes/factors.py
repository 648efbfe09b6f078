"""The factors that vary between scenes, such as colour and shape, and the words for their values.

A sample's label depends on these factors only.
"""

from __future__ import annotations

from typing import NamedTuple


class Factor(NamedTuple):
    """A property of a scene that varies, such as its colour.

    A caption expresses a value in one word, and no word stands for two values of any factors. So a dropped word removes
    exactly one value from the caption.

    Attributes:
        name: Name of the factor.
        values: Synonyms for each value, shape (values, synonyms); the first synonym is the value's name.
        neutral: Words used in place of a value that the text hides.

    Example:
        >>> FACTORS[INDEX["size"]].values
        (('small', 'little'), ('large', 'big'))
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
HIDDEN = -1  # marks a factor that a modality hides, in place of its value's index
