"""Readers of JSON Lines and of JSON files with one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robusttune.data.problems import Problems
from robusttune.data.sources.compression import open_text
from robusttune.data.sources.rows import Row, Rows, TableOptions
from robusttune.errors import RobustTuneError

LAYOUTS = 'a list of objects, {"data": [objects]}, or pandas\' {column: {row: value}}'


def read_jsonl(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read a file with one JSON object per line. Blank lines are ignored."""
    del options
    names: dict[str, None] = {}
    found: list[str] = []
    return Rows(_lines(path, bad, columns, names, found), found)


def read_json_array(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read a file with one JSON value that holds all rows.

    It is a list of objects, an object whose ``data`` is such a list, or the default of pandas' ``to_json``: an object
    for each column, with the same keys in the same order. A file with one object per line is read as JSON Lines.

    Raises:
        RobustTuneError: If the file cannot be read, is not JSON, or has another layout.
    """
    with open_text(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _starts_with_lines(text):
            return read_jsonl(path, bad, columns, options)._replace(decision="JSON Lines")
        raise RobustTuneError(f"{path} is not JSON ({error!s:.120}): fetch or write it again") from None
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, dict):
        objects = _from_columns(content)
        if objects is None and all(not isinstance(value, dict | list) for value in content.values()):
            return read_jsonl(path, bad, columns, options)._replace(decision="JSON Lines")  # with one line
    else:
        objects = content if isinstance(content, list) else None
    if objects is None or (objects and not any(isinstance(value, dict) for value in objects)):
        raise RobustTuneError(f"{path} holds no table: write {LAYOUTS}, or one object a line (.jsonl)")
    names: dict[str, None] = {}
    found: list[str] = []
    return Rows(_objects(objects, bad, columns, names, found), found)


def _lines(path: Path, bad: Problems, columns: set[str], names: dict[str, None], found: list[str]) -> Iterator[Row]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                bad.add(f"line {number}, {error}", "are not JSON")
                continue
            if isinstance(cells, dict):
                names.update(dict.fromkeys(cells))
                yield Row(f"line {number}", {name: cells[name] for name in columns & cells.keys()})
            else:
                bad.add(f"line {number}", "are not JSON objects", "write one object a line")
    found.extend(sorted(names))


def _objects(
    objects: list[Any], bad: Problems, columns: set[str], names: dict[str, None], found: list[str]
) -> Iterator[Row]:
    for number, cells in enumerate(objects, 1):
        if isinstance(cells, dict):
            names.update(dict.fromkeys(cells))
            yield Row(f"entry {number}", {name: cells[name] for name in columns & cells.keys()})
        else:
            bad.add(f"entry {number}", "are not JSON objects", "write one object for each sample")
    found.extend(sorted(names))


def _starts_with_lines(text: str) -> bool:
    """Return whether the first line that is not blank is a JSON object of its own."""
    first = text.lstrip().split("\n", 1)[0]
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _from_columns(content: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of an object that holds an object for each column, or None for another layout."""
    values = list(content.values())
    if not values or not all(isinstance(value, dict) for value in values):
        return None
    keys = list(values[0])
    if any(list(value) != keys for value in values):
        return None
    return [{name: column[key] for name, column in content.items()} for key in keys]
