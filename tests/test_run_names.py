"""Names of runs stand for folders below the folder of all runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.errors import RobustTuneError
from robusttune.run_names import LONGEST, run_folders


@pytest.mark.parametrize(
    "name", ["run", "sweep/lr1", "a/b/c", "exp[lr=1] é", "2024/x", ".hidden", "1e-3", "a" * LONGEST]
)
def test_a_name_is_a_folder_below_the_root(name: str, tmp_path: Path) -> None:
    assert run_folders(tmp_path, name) == tmp_path / name
    assert run_folders(tmp_path, name).resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (".", "has a part . or"),
        ("..", "has a part . or"),
        ("../../x", "has a part . or"),
        ("a/./b", "has a part . or"),
        ("a/..", "has a part . or"),
        ("/tmp/x", "is an absolute path"),
        ("//", "is an absolute path"),
        ("sweep//lr1", "has an empty part"),
        ("sweep/", "has an empty part"),
        ("a/ /b", "has an empty part"),
        ("a\\b", "has a backslash"),
        ("a\nb", "has a backslash, a line break"),
        ("a\x1b[31m", "another character that cannot be printed"),
        ("a\x00", "cannot be printed"),
        ("\ud800", "cannot be printed"),
        ("a\u202eb", "cannot be printed"),
        ("a/0", "has a number after a slash"),
        ("a/12/b", "has a number after a slash"),
        ("é" * LONGEST, f"has {2 * LONGEST} bytes, and {LONGEST} are allowed"),
    ],
)
def test_other_names_are_refused(name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match=f"{problem}.*: give a name such as") as raised:
        run_folders(tmp_path, name)
    assert str(raised.value).isprintable()
