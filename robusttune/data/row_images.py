"""The images of the rows of a table of records, of which a row may have several."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


def row_images(table: pa.Table) -> list[list[str]]:
    """Return the names of the images of each row; an empty list for a row without one.

    Args:
        table: Records, with the columns of `SCHEMA`.

    Example:
        >>> row_images(pa.table({"image": ["a", None, "b"], "more_images": [None, ["c"], ["d"]]}))
        [['a'], [], ['b', 'd']]
    """
    rows = zip(table["image"].to_pylist(), table["more_images"].to_pylist(), strict=True)
    return [[] if first is None else [first, *(more or [])] for first, more in rows]


def image_names(tables: Sequence[pa.Table]) -> list[str]:
    """Return the names of all images of some tables, each once, in order.

    Args:
        tables: Tables of records, with the columns of `SCHEMA`.

    Example:
        >>> image_names([pa.table({"image": ["a", None, "b"], "more_images": [["b"], ["c"], None]})])
        ['a', 'b']
    """
    return list(dict.fromkeys(name for table in tables for names in row_images(table) for name in names))
