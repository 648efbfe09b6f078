"""A template that joins several text columns: ``{title}. {description}``."""

from __future__ import annotations

from collections.abc import Callable
from string import Formatter

import pyarrow as pa
import pyarrow.compute as pc

from robusttune.errors import RobustTuneError


class TextTemplate:
    """A template with the names of columns in braces. ``{{`` and ``}}`` are literal braces.

    A name is only ever the name of a column: nothing is looked up in it, so ``{a.b}`` is the column ``a.b``.

    The text between two columns stands only where both are filled, the text before the first and after the last column
    only where that is filled. Where columns in the middle are blank, the text before the next filled one stands.

    Args:
        template: Template with at least one column.

    Attributes:
        columns: Names of the columns, each once.

    Raises:
        RobustTuneError: The template has no column, an unmatched brace, a blank name, or a format (``{a:>5}``).

    Example:
        >>> template = TextTemplate("{title}. {description}")
        >>> template.fill({"title": "Pho", "description": None}.get)
        'Pho'
    """

    def __init__(self, template: str) -> None:
        problem = "has no column in braces"
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            parts, problem = [], f"cannot be read ({error})"
        self._fields: list[tuple[str, str]] = []  # the literal text before each column, and the column
        literal = ""
        for before, name, form, conversion in parts:
            literal += before
            if name is None:
                continue
            if form or conversion or not name.strip():
                at = f"{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
                self._refuse(template, f"has {{{at}}}, which is not just the name of a column")
            self._fields.append((literal, name))
            literal = ""
        self._suffix = literal
        if not self._fields:
            self._refuse(template, problem)
        self.columns = list(dict.fromkeys(name for _, name in self._fields))

    def fill(self, text_of: Callable[[str], str | None]) -> str | None:
        """Return the text of a sample, or None where all columns are blank.

        Args:
            text_of: Function from the name of a column to its text, or to None where it is blank.
        """
        texts = [text_of(name) for _, name in self._fields]
        filled = ""
        for number, ((before, _), text) in enumerate(zip(self._fields, texts, strict=True)):
            if text is not None:
                filled += (before if filled or number == 0 else "") + text.strip()
        return (filled + (self._suffix if texts[-1] is not None else "")) or None

    def fill_columns(self, texts_of: Callable[[str], pa.Array]) -> pa.Array:
        """Return the texts of many samples, null where all columns are blank, as `fill` does for one sample.

        Args:
            texts_of: Function from the name of a column to its texts, null where a cell is blank.
        """
        columns = [pc.utf8_trim_whitespace(texts_of(name)) for _, name in self._fields]
        filled = pa.array([""] * len(columns[0]), pa.string())
        for number, ((before, _), texts) in enumerate(zip(self._fields, columns, strict=True)):
            lead = before if number == 0 else pc.if_else(pc.equal(filled, ""), "", before)
            added = pc.binary_join_element_wise(lead, texts, "")
            filled = pc.binary_join_element_wise(filled, pc.fill_null(added, ""), "")
        filled = pc.binary_join_element_wise(filled, pc.if_else(columns[-1].is_valid(), self._suffix, ""), "")
        return pc.if_else(pc.equal(filled, ""), pa.scalar(None, pa.string()), filled)

    @staticmethod
    def _refuse(template: str, problem: str) -> None:
        raise RobustTuneError(
            f"data.source.text_template {template!r:.120} {problem}: write the names of columns in braces, such as "
            "'{title}. {description}', and literal braces twice"
        )
