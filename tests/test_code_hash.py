"""Cached features stay valid when words change, and not when code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.code_hash import code_hash

CODE = '''"""A module."""


class Scale:
    """A scale."""

    def by(self, value: float) -> float:
        """Return twice the value."""
        return 2 * value  # the factor
'''


def hash_of(folder: Path, text: str) -> str:
    (folder / "code.py").write_text(text)
    return code_hash(folder / "code.py")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another\nmodule."""'),
        ('    """A scale."""\n\n', ""),
        ("twice the value", "the doubled value"),
        ("# the factor", "# a factor that was found by measuring"),
        ("return 2 * value", "return (2 * value)"),
        ("\n\n\nclass", "\n\n\n\n# Scales\nclass"),
    ],
)
def test_words_and_form_do_not_count(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    assert hash_of(tmp_path, CODE.replace(old, new)) == hash_of(tmp_path, CODE)


@pytest.mark.parametrize(
    ("old", "new"), [("2 * value", "3 * value"), ("def by", "def of"), ("value: float)", "value: float = 1)")]
)
def test_code_counts(tmp_path: Path, old: str, new: str) -> None:
    assert old in CODE
    assert hash_of(tmp_path, CODE.replace(old, new)) != hash_of(tmp_path, CODE)
