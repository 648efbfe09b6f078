"""Text from outside (names, paths, cells of files) as it stands in each kind of output: one function for each kind.

HTML has none here: `robusttune.report.page` escapes whatever goes into its template.
"""

from __future__ import annotations

import logging
import re
import shlex
from typing import Any

# Control characters, line separators, what turns the direction of text around, halves of surrogate pairs: terminals
# obey them, pictures and pages cannot show them.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$])")
LIST = re.compile(r"^(\d+)?(?=[-+.)] )")  # what begins a list
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what spreadsheets run, and what `csv_cell` has made of it
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def visible(text: object) -> str:
    r"""Return a text with control characters as escapes, such as ``\x1b`` or ``\n``: for terminals, logs, pictures."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def shell(argument: object) -> str:
    """Return an argument as a POSIX shell takes it; with control characters as Bash, Zsh and Ksh take it."""
    text = str(argument)
    if not UNSEEN.search(text):
        return shlex.quote(text)
    escaped = UNSEEN.sub(lambda found: _in_shell(ord(found[0])), text.replace("\\", r"\\").replace("'", r"\'"))
    return f"$'{escaped}'"


def _in_shell(code: int) -> str:
    is_byte = 0xDC80 <= code <= 0xDCFF  # of a path that is not UTF-8
    return f"\\x{code - 0xDC00:02x}" if is_byte else f"\\u{code:04x}"


def markdown(text: object) -> str:
    """Return a text as Markdown that shows it as it is, in a table, too: no markup, no HTML, in one line."""
    escaped = MARKDOWN.sub(r"\\\1", visible(" ".join(str(text).split())))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return LIST.sub(r"\1\\", escaped)


def markdown_code(text: object) -> str:
    """Return a text as a code span of Markdown; its fence is longer than any run of backticks within."""
    shown = visible(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def csv_cell(value: Any) -> Any:
    """Return what to write into a cell of a CSV file, so that no spreadsheet takes a text for a formula.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe in front, as OWASP
    advises, unless it is a number. So does a text that has apostrophes before one of these: `from_csv_cell` returns
    every text as it was. Numbers stay as they are.
    """
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def from_csv_cell(text: str) -> str:
    """Return the text that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def escape_log_records() -> None:
    """Have all that this package and Lightning log from now on written with `visible`, line by line."""
    usual: Any = logging.getLogRecordFactory()
    if hasattr(usual, "escapes"):
        return

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = usual(*args, **kwargs)
        if record.name.startswith(("robusttune", "lightning")):
            record.msg, record.args = "\n".join(map(visible, record.getMessage().split("\n"))), ()
        return record

    factory.escapes = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(factory)
