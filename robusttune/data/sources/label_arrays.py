"""Conversion of whole label columns: `LabelColumn` and `LabelColumns` read each distinct cell once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from robusttune.data.sources.label_cells import LabelColumn, PlainLabel
from robusttune.data.sources.label_columns import LabelColumns, as_flag
from robusttune.data.sources.text_arrays import UnusualCellsError, Update, plain_texts

NAMES = pa.list_(pa.string())
REMEMBERED = 1 << 20  # distinct cells whose class names are remembered


class LabelArrays:
    """The conversion of the label columns of a table, batch by batch.

    Args:
        labels: Parser of single rows, which also gets the counts of the rows that are converted here.
    """

    def __init__(self, labels: LabelColumn | LabelColumns | None) -> None:
        self.labels = labels
        self._known: dict[Any, PlainLabel | None] = {}

    def read(self, columns: Mapping[str, pa.Array], rows: int, updates: list[Update]) -> pa.Array:
        """Return the class names of each row, null where the sample is unlabelled.

        Args:
            columns: Columns of the table by name.
            rows: Number of rows.
            updates: List that is extended by counts for `labels`.

        Raises:
            UnusualCellsError: A cell needs to be looked at by itself.
        """
        if self.labels is None or not any(column in columns for column in self.labels.columns):
            return pa.nulls(rows, NAMES)
        if isinstance(self.labels, LabelColumns):
            return _flagged(self.labels, columns, updates)
        cells = columns[self.labels.column]
        if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
            return _lists(self.labels, cells)
        return self._single(self.labels, cells, updates)

    def _single(self, labels: LabelColumn, cells: pa.Array, updates: list[Update]) -> pa.Array:
        """Return the class names of cells with a text or a number each."""
        if not (pa.types.is_integer(cells.type) or pa.types.is_boolean(cells.type)):
            cells = plain_texts(cells)
        encoded = cells.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        plain = [self._plain(labels, value) for value in values]
        indices = pc.fill_null(encoded.indices, len(values))
        counts = np.bincount(indices.to_numpy(zero_copy_only=False), minlength=len(values))
        updates.append(partial(labels.count, list(zip(plain, counts.tolist(), strict=False))))
        return pa.array([*(label.names for label in plain), labels.of_blank], NAMES).take(indices)

    def _plain(self, labels: LabelColumn, value: Any) -> PlainLabel:
        """Return the class names of a cell; those of many cells are remembered."""
        key = (type(value), value)
        if key not in self._known:
            if len(self._known) > REMEMBERED:
                self._known.clear()
            self._known[key] = labels.plain(value)
        found = self._known[key]
        if found is None or (found.marker is not None and labels.column not in labels.blanks.found):
            raise UnusualCellsError
        return found


def _lists(labels: LabelColumn, cells: pa.Array) -> pa.Array:
    """Return the class names of cells with a list each.

    Raises:
        UnusualCellsError: A list may be a multi-hot code, has an entry that is no class, or repeats a class.
    """
    if labels.may_be_codes or not labels.multilabel or labels.names is not None:
        raise UnusualCellsError
    items = pc.utf8_trim_whitespace(plain_texts(pc.list_flatten(cells)))
    if items.null_count or pc.any(pc.equal(items, "")).as_py():
        raise UnusualCellsError
    lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy(zero_copy_only=False)
    codes = items.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if len(np.unique(np.repeat(np.arange(len(lengths)), lengths) * (len(codes) + 1) + codes)) < len(codes):
        raise UnusualCellsError
    return _of_lengths(lengths, items)


def _flagged(labels: LabelColumns, columns: Mapping[str, pa.Array], updates: list[Update]) -> pa.Array:
    """Return the class names of columns of zeros and ones.

    Raises:
        UnusualCellsError: A cell is neither, or a sample has not exactly one 1 in single-label data.
    """
    if any(name not in columns for name in labels.columns):
        raise UnusualCellsError
    flags = np.stack([_flags(columns[name]) for name in labels.columns], axis=1)
    if not labels.multilabel and (flags.sum(axis=1) != 1).any():
        raise UnusualCellsError
    names = pa.array(labels.columns, pa.string())
    used = [labels.columns[number] for number in np.flatnonzero(flags.any(axis=0)).tolist()]
    updates.append(partial(labels.use, used))
    return _of_lengths(flags.sum(axis=1), names.take(pa.array(np.nonzero(flags)[1])))


def _flags(cells: pa.Array) -> NDArray[np.bool_]:
    """Return a column of zeros and ones as flags, see `as_flag`."""
    is_number = any(is_kind(cells.type) for is_kind in (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating))
    encoded = (cells if is_number else plain_texts(cells)).dictionary_encode()
    flags = [as_flag(value) for value in encoded.dictionary.to_pylist()]
    if None in flags or encoded.indices.null_count:
        raise UnusualCellsError
    found: NDArray[np.bool_] = np.array(flags, dtype=bool)[encoded.indices.to_numpy(zero_copy_only=False)]
    return found


def _of_lengths(lengths: NDArray[Any], items: pa.Array) -> pa.Array:
    """Return the array of lists of some lengths with some items."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items)
