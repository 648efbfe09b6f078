"""Text from outside comes out as it is in every kind of output."""

from __future__ import annotations

import csv
import html
import io
import logging
import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from robusttune.cli import main
from robusttune.escaping import csv_cell, escape_log_records, from_csv_cell, markdown, markdown_code, shell, visible
from robusttune.terminal import print_line

NAMES = [
    *("a[/b]", "exp[lr=1]", ":smile:", "\x1b[31mred\x1b[0m", "\x9b31m", "two\nlines", "\u202egnp.exe", "tab\there"),
    *("<script>alert(1)</script>", "a|b", "`rm`", "``", "*a* _b_", "- a", "1. a", "# a", "![x](http://y)", "&lt;"),
    *("=cmd|'/c calc'!A1", "+1+2", "-x", "@SUM(1)", "-5", "$(touch x)", "it's", 'say "x"', "a\\b", "~", "", "naïve 麺"),
]
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_has_no_control_characters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_line(f"{name}.")
    (line,) = capsys.readouterr().out.split("\n")[:-1]
    assert line == visible(f"{name}.")
    assert line.isprintable()
    assert line == f"{name}." or not name.isprintable()


def test_errors_and_logs_have_no_control_characters(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["\x1b[31mfit"]) == 1
    assert main(["report", "/no\x1b]0;title\x07where"]) == 1
    error = capsys.readouterr().err
    assert "/no\\x1b]0;title\\x07where is no folder" in error
    assert "\x1b" not in error
    escape_log_records()
    logging.getLogger("robusttune.data").warning("%s of\n%d", "\x1b[2J", 2)
    assert caplog.messages == ["\\x1b[2J of\n2"]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no Bash")
@settings(max_examples=25)
@given(words)
def test_a_shell_takes_arguments_as_they_are(text: str) -> None:
    told = subprocess.run(
        ["bash", "-c", f"printf %s {shell(text)}"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert told.stdout == text.encode()


def test_a_path_that_is_not_utf_8() -> None:
    assert shell(os.fsdecode(b"a'\xff1")) == r"$'a\'\xff1'"


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_names_as_they_are(name: str) -> None:
    as_line, reader = visible(" ".join(name.split())), MarkdownIt("gfm-like", {"linkify": False})
    shown = reader.render(markdown(name)).strip()
    assert shown == (f"<p>{html.escape(as_line, quote=True).replace('&#x27;', chr(39))}</p>" if as_line else "")
    table = reader.render(f"| | a |\n| --- | ---: |\n| {markdown(name)} | **{markdown('x' + name)}** |\n")
    assert table.count("<td") == 2
    assert "<script" not in table
    if visible(name).strip():
        code = reader.render(markdown_code(name)).strip()
        assert html.unescape(code) == f"<p><code>{visible(name)}</code></p>"


@given(words)
def test_cells_come_back_as_they_were(text: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerow([csv_cell(text), "x"])
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert from_csv_cell(row[0]) == text


def test_no_cell_is_a_formula_and_numbers_stay() -> None:
    begin = tuple("=+-@\t\r")
    assert all(not str(csv_cell(name)).startswith(begin) for name in NAMES if name != "-5")
    numbers = [-0.5, 3, None, True, "-5", "+1.5e-3", "-.5", "1e5"]
    assert [csv_cell(number) for number in numbers] == numbers
    assert csv_cell("plain") == "plain"
    assert csv_cell("'quoted'") == "'quoted'"
