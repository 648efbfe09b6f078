"""The forms in which a caller passes samples: one pair, lists of rows, columns, pandas and Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from robusttune.errors import RobustTuneError

FORMS = (
    "give image=... and text=... for one pair, images=[...] and texts=[...], or a list of pairs or dictionaries, a "
    "pandas or an Arrow table with the columns image and text"
)


class GivenRows(NamedTuple):
    """Samples as a caller has passed them.

    Attributes:
        images: Image of each sample, of any kind that `read_given` reads; None for a missing one.
        texts: Text of each sample; None for a missing one.
        single: True if one pair was passed instead of a list.
        index: Index of the pandas table that the samples come from, or None.
        columns: All columns of the table or the dictionaries, by name.
    """

    images: list[Any]
    texts: list[str | None]
    single: bool = False
    index: Any = None
    columns: dict[str, list[Any]] | None = None


def one_pair(image: Any, text: Any) -> GivenRows:
    """Return one pair of image and text as samples, see `GivenRows`."""
    return GivenRows([_present(image)], [_text(text, "text")], single=True)


def columns_of(images: Sequence[Any] | None, texts: Sequence[Any] | None) -> GivenRows:
    """Return columns of images and texts as samples; None for a column that is missing.

    Raises:
        RobustTuneError: The columns are empty or differ in length, or a text is no string.

    Example:
        >>> columns_of(None, ["a red circle", ""]).texts
        ['a red circle', None]
    """
    lengths = {len(column) for column in (images, texts) if column is not None}
    if len(lengths) > 1:
        raise RobustTuneError(
            f"{len(images or ())} images and {len(texts or ())} texts were given: give one of each for every sample, "
            "None where it is missing"
        )
    number = lengths.pop() if lengths else 0
    if number == 0:
        raise RobustTuneError(f"no samples were given: {FORMS}")
    own_images = map(_present, [None] * number if images is None else images)
    own_texts = enumerate([None] * number if texts is None else texts)
    return GivenRows([*own_images], [_text(text, f"text {row}") for row, text in own_texts])


def rows_of(rows: Any) -> GivenRows:
    """Return a list or a table as samples.

    Args:
        rows: List of pairs (image, text), list of dictionaries with the keys ``image`` and ``text``, pandas
            DataFrame, Arrow table, or dictionary of columns. A table has at least one of the columns.

    Raises:
        RobustTuneError: The rows have another form, or see `columns_of`.

    Example:
        >>> rows_of([(None, "a red circle"), ("circle.png", None)]).images
        [None, 'circle.png']
    """
    if isinstance(rows, Mapping):
        return _from_columns({str(name): list(column) for name, column in rows.items()})
    module = type(rows).__module__.partition(".")[0]
    if module == "pyarrow" and hasattr(rows, "column_names"):
        return _from_columns(rows.to_pydict())
    if module == "pandas" and hasattr(rows, "columns"):
        return _from_columns({str(name): rows[name].tolist() for name in rows})._replace(index=rows.index)
    if not isinstance(rows, list | tuple):
        raise RobustTuneError(f"samples of the type {type(rows).__name__} are not read: {FORMS}")
    if rows and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(str(name) for row in rows for name in row)
        return _from_columns({name: [row.get(name) for row in rows] for name in names})
    for place, row in enumerate(rows):
        if not (isinstance(row, list | tuple) and len(row) == 2):
            raise RobustTuneError(f"row {place} is of the type {type(row).__name__}, no pair (image, text): {FORMS}")
    return columns_of([row[0] for row in rows], [row[1] for row in rows])


def _from_columns(columns: dict[str, list[Any]]) -> GivenRows:
    """Return named columns as samples.

    Raises:
        RobustTuneError: There is neither a column ``image`` nor ``text``, or see `columns_of`.
    """
    if not columns.keys() & {"image", "text"}:
        known = ", ".join(map(repr, [*columns][:5])) or "none"
        raise RobustTuneError(f"the columns are {known}: name that of the images image, and that of the texts text")
    return columns_of(columns.get("image"), columns.get("text"))._replace(columns=columns)


def _present(value: Any) -> Any:
    """Return a value, or None for what stands for a missing one: None, NaN, pandas' NA, and an empty text."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, str | bytes) and not value.strip() else value


def _text(value: Any, called: str) -> str | None:
    """Return a text, or None for a missing one.

    Raises:
        RobustTuneError: The value is of another type.
    """
    present = _present(value)
    if present is None or isinstance(present, str):
        return present
    raise RobustTuneError(f"{called} is of the type {type(value).__name__}: give a string, or None where it is missing")
