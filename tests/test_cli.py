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
        assert "robusttune fit --config configs/food101.yaml" in capsys.readouterr().out


def test_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fti"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("robusttune: error: there is no command 'fti'")
    assert error.count("\n") == 1
