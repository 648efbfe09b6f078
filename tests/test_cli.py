"""The command line without a Trainer."""

from __future__ import annotations

import pytest

from robusttune import __version__
from robusttune.cli import main


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"robusttune {__version__}\n"
    for arguments in ([], ["-h"], ["--help"]):
        assert main(arguments) == 0
        assert "robusttune fit --config demo" in capsys.readouterr().out


def test_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fti"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("robusttune: error: there is no command 'fti'")
    assert error.count("\n") == 1


def test_commands_of_two_words_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["data"], ["data", "-h"], ["data", "--help"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: robusttune data COMMAND")
        assert "data verify" in out
        assert "data show" in out
        assert "fit" not in out
    assert main(["data", "shwo"]) == 1
    assert "there is no command 'data shwo'" in capsys.readouterr().err
