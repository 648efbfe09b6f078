"""Escaping of text from outside (names, paths, cells of files): one function for each kind of output.

HTML is not covered here: the template in `robusttune.report.page` escapes its values itself.
"""

from __future__ import annotations

import logging
import re
import shlex
from typing import Any

# Control characters, line separators, marks that change the text direction, and lone surrogates. Terminals act on
# them, and pictures and pages cannot show them.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
LIST = re.compile(r"^(\d+)?(?=[-+.)] )")  # the marker that begins a list item
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # a formula as spreadsheets see it, or one that `csv_cell` has escaped
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def visible(text: object) -> str:
    r"""Return a text with control characters as escapes, such as ``\x1b`` or ``\n``: for terminals, logs, pictures.

    Example:
        >>> print(visible("two\nlines"))
        two\nlines
    """
    return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def shell(argument: object) -> str:
    """Quote an argument for a POSIX shell.

    An argument with control characters becomes ``$'...'``, which Bash, Zsh and Ksh understand.

    Example:
        >>> shell("my runs/0")
        "'my runs/0'"
    """
    text = str(argument)
    if not UNSEEN.search(text):
        return shlex.quote(text)
    escaped = UNSEEN.sub(lambda match: _in_shell(ord(match[0])), text.replace("\\", r"\\").replace("'", r"\'"))
    return f"$'{escaped}'"


def _in_shell(code: int) -> str:
    is_byte = 0xDC80 <= code <= 0xDCFF  # Python decodes a byte that is not UTF-8 to this range of surrogates.
    return f"\\x{code - 0xDC00:02x}" if is_byte else f"\\u{code:04x}"


def markdown(text: object) -> str:
    r"""Escape a text so that Markdown shows it literally, on one line, inside tables as well.

    Example:
        >>> print(markdown("a|b *c*"))
        a\|b \*c\*
    """
    escaped = MARKDOWN.sub(r"\\\1", visible(" ".join(str(text).split())))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return LIST.sub(r"\1\\", escaped)


def markdown_code(text: object) -> str:
    """Return a text as a Markdown code span. Its fence is longer than any run of backticks in the text.

    Example:
        >>> markdown_code("--name a`b")
        '``--name a`b``'
    """
    shown = visible(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def csv_cell(value: Any) -> Any:
    """Escape a value for a CSV file, so that no spreadsheet evaluates a text as a formula.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe in front, as OWASP
    advises, unless it is a number. A text with apostrophes before one of these characters gets one more, so that
    `from_csv_cell` can restore every text. Values that are not texts are returned unchanged.

    Example:
        >>> csv_cell("=1+1"), csv_cell("-0.5")
        ("'=1+1", '-0.5')
    """
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def from_csv_cell(text: str) -> str:
    """Undo `csv_cell`: return the text that was passed to it.

    Example:
        >>> from_csv_cell("'=1+1")
        '=1+1'
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def escape_log_records() -> None:
    """Escape the log messages of this package and of Lightning with `visible`, line by line, from now on."""
    usual: Any = logging.getLogRecordFactory()
    if hasattr(usual, "escapes"):
        return

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        """Create a log record, and escape its message if this package or Lightning logs it."""
        record: logging.LogRecord = usual(*args, **kwargs)
        if record.name.startswith(("robusttune", "lightning")):
            record.msg, record.args = "\n".join(map(visible, record.getMessage().split("\n"))), ()
        return record

    factory.escapes = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(factory)
