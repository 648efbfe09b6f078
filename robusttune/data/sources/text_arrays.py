"""Conversion of whole columns to texts, wherever it is certain that the row-by-row reader would do the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from robusttune.data.sources.blanks import Blanks

Update = Callable[[], None]  # a count that is only added when the whole batch can be converted


class UnusualCellsError(Exception):
    """A batch has cells that only the row-by-row reader can convert, or refuse with their location."""


def plain_texts(cells: pa.Array) -> pa.Array:
    """Return a column of texts or whole numbers as valid Unicode texts, null where a cell is null.

    Args:
        cells: Column of any type.

    Raises:
        UnusualCellsError: The column has another type, or a text is not valid.

    Example:
        >>> plain_texts(pa.array([7, None])).to_pylist()
        ['7', None]
    """
    kind = cells.type
    if pa.types.is_null(kind):
        return pa.nulls(len(cells), pa.string())
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_integer(kind)):
        raise UnusualCellsError
    try:
        texts = cells.cast(pa.string())
        texts.validate(full=True)
    except (pa.ArrowException, OSError):
        raise UnusualCellsError from None
    return texts


def filled_texts(cells: pa.Array, column: str, blanks: Blanks, updates: list[Update]) -> pa.Array:
    """Return a column as texts, null where a cell is blank, as `cell_text` does for one cell.

    Args:
        cells: Column of any type.
        column: Name of the column.
        blanks: Test for blank cells.
        updates: List that is extended by counts of cells that look blank.

    Raises:
        UnusualCellsError: A cell is no text, or the first one of the column that only looks blank.
    """
    texts = plain_texts(cells)
    trimmed = pc.utf8_trim_whitespace(texts)
    longest = max(map(len, blanks.texts))  # case folding never makes a text shorter
    short = pc.fill_null(pc.less_equal(pc.utf8_length(trimmed), longest), False)
    if not short.true_count:
        return texts
    doubtful = _doubtful(trimmed.filter(short), blanks)
    empty = [text for text in doubtful if blanks.marker(text) is None]
    for text in doubtful:
        plain = blanks.marker(text)
        if plain is not None:
            if column not in blanks.found:  # warnings come in the order of the first such cells
                raise UnusualCellsError
            updates.append(partial(blanks.count, plain, column, doubtful[text]))
    if not empty:
        return texts
    return pc.if_else(pc.is_in(trimmed, pa.array(empty, pa.string())), pa.scalar(None, pa.string()), texts)


def _doubtful(trimmed: pa.Array, blanks: Blanks) -> dict[str, int]:
    """Return the short texts that are blank or look so, with their counts, in the order of their first appearance."""
    listed = pc.is_in(pc.ascii_lower(trimmed), pa.array(sorted(blanks.texts), pa.string()))
    chosen = pc.or_(listed, pc.invert(pc.string_is_ascii(trimmed)))  # only Python folds other cases as Python does
    counts = pc.value_counts(trimmed.filter(chosen))
    texts, numbers = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
    return {
        text: number
        for text, number in zip(texts, numbers, strict=True)
        if blanks.marker(text) is not None or blanks.is_empty(text)
    }
