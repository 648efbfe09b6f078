"""Parsing of lists that were written as text into a table cell, in Python's, JSON's or NumPy's notation."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

BRACKETS = ("[]", "()", "{}")
LONGEST = 100_000  # characters; longer cells are not parsed
# One element of an array, a quoted text or a number, as NumPy prints it.
ITEM = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|True|False|-?\d+(?:\.\d*)?)(?=[\s'"]|$)""", re.DOTALL)


class UnreadableListError(ValueError):
    """Error for a text that begins and ends like a list of quoted names, but cannot be parsed."""


def parse_list(text: str) -> list[Any] | None:
    """Parse a text as a list, or return None where it is not a list.

    The notations are JSON (``["a", "b"]``), Python (``['a', 'b']``, ``('a',)``, ``{'a'}``) and NumPy (``['a' 'b']``,
    ``[1 0 1]``). Parentheses and braces make a list only around quoted texts, so the interval ``(0, 10)`` is no list.

    Args:
        text: Content of a table cell. Texts of more than `LONGEST` characters are not parsed.

    Raises:
        UnreadableListError: If the text looks like a list of quoted names and cannot be parsed.

    Example:
        >>> parse_list("['a' 'b']"), parse_list("soup (hot)")
        (['a', 'b'], None)
    """
    text = text.strip()
    if text[:1] + text[-1:] not in BRACKETS or len(text) < 2:
        return None
    found = _parse(text)
    if found is None and re.match(r"\[\s*['\"]", text):
        raise UnreadableListError(text)
    if found is None or (text[0] != "[" and not all(isinstance(item, str) for item in found)):
        return None
    return found


def _parse(text: str) -> list[Any] | None:
    if len(text) > LONGEST:
        return None
    # Python concatenates adjacent string literals, so NumPy's notation must be tried before Python's.
    for parse in (json.loads, _numpy, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, set):
            return sorted(value, key=str)
        return list(value) if isinstance(value, list | tuple) else None
    return None


def _numpy(text: str) -> list[Any]:
    """Parse a NumPy array such as ``['a' 'b']``, which may span several lines.

    Raises:
        ValueError: If the text is not in NumPy's notation.
    """
    inner, items, position = text[1:-1].strip(), [], 0
    while position < len(inner):
        item = ITEM.match(inner, position)
        if item is None or text[0] != "[":
            raise ValueError("not a NumPy array")
        items.append(ast.literal_eval(item[1]))
        position = item.end()
    return items
