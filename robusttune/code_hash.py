"""Identify code by its syntax tree: comments, docstrings and formatting do not count."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_hash(*files: Path) -> str:
    """Return the SHA-256 of the syntax trees of source files without docstrings, as hexadecimal digits.

    Cached data whose keys contain it stay valid when only words change.

    Args:
        files: Python source files, in a fixed order.

    Raises:
        SyntaxError: A file is not Python.
    """
    trees = [_without_docstrings(ast.parse(path.read_text(encoding="utf-8"))) for path in files]
    return hashlib.sha256("\n".join(map(ast.dump, trees)).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree
