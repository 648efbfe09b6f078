"""Columns of the input that are copied to the predictions, with the types of the input where it has types."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robusttune.data.sources.image_cells import holds_content
from robusttune.data.sources.table_files import ending_of
from robusttune.errors import RobustTuneError

CHUNK = 4096  # rows whose types are inferred together


def chosen_columns(given: Sequence[str] | str | None, table: Sequence[str], left_out: Collection[str]) -> list[str]:
    """Return the names of the columns to copy.

    Args:
        given: Names, or names joined by commas, or ``all``; None for no columns.
        table: Names of all columns of the input.
        left_out: Names that ``all`` does not include.

    Raises:
        RobustTuneError: A name is given twice, or the input has no such column.

    Example:
        >>> chosen_columns("price,shop", ["id", "shop", "price"], []), chosen_columns("all", ["id", "shop"], ["id"])
        (['price', 'shop'], ['shop'])
    """
    if given is None:
        return []
    if given == "all":
        return [name for name in table if name not in left_out]
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    unknown = [name for name in names if name not in table]
    if unknown:
        raise RobustTuneError(
            f"the input has no column {unknown[0]!r:.80} (it has {', '.join(map(repr, table)):.300}): correct --columns"
        )
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise RobustTuneError(f"--columns names {twice[0]!r:.80} twice: name each column once")
    return names


def stored_types(file: Path) -> dict[str, pa.DataType] | None:
    """Return the types of the columns of a Parquet or Arrow file by name, or None for a text format or Excel."""
    ending = ending_of(file)
    if ending == ".parquet":
        return {field.name: field.type for field in pq.read_schema(file)}
    if ending not in (".arrow", ".feather"):
        return None
    with pa.memory_map(str(file)) as mapped:
        try:
            schema = pa.ipc.open_file(mapped).schema
        except pa.ArrowInvalid:
            mapped.seek(0)
            schema = pa.ipc.open_stream(mapped).schema
        return {field.name: field.type for field in schema}


def image_columns(types: Mapping[str, pa.DataType] | None) -> set[str]:
    """Return the names of the columns that hold the content of images."""
    return {name for name, kind in (types or {}).items() if holds_content(kind)}


def inferred_types(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, pa.DataType]:
    """Return the types of columns by name, from the values in all rows.

    Values of several types that no common type has become JSON texts.

    Args:
        rows: Cells of each row by column name.
        columns: Names of the columns.

    Example:
        >>> inferred_types([{"price": 3}, {"price": 2.5}], ["price"])
        {'price': DataType(double)}
    """
    types, rest = {name: pa.null() for name in columns}, iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        for name in columns:
            types[name] = _common(types[name], [cells.get(name) for cells in chunk])
    return {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in types.items()}


def _common(known: pa.DataType, values: list[Any]) -> pa.DataType:
    """Return a type for values of a known type and for further ones."""
    try:
        found = pa.array(values).type
        schemas = [pa.schema([("value", kind)]) for kind in (known, found)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowException, ValueError, OverflowError):  # UnicodeEncodeError is a ValueError
        return pa.string()


def kept_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return the values of a column as an array of a type. Other values than texts become JSON in a column of texts.

    Example:
        >>> kept_array([{"a": 1}, "b", None], pa.string()).to_pylist()
        ['{"a": 1}', 'b', None]
    """
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.array([None if value is None else _text(value) for value in values], kind)
    return pa.array(values, kind)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # A lone surrogate, which JSON allows, is no Unicode.
