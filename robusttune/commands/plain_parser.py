"""A parser of command-line options that have no configuration."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NoReturn

from robusttune.errors import RobustTuneError


class PlainParser(ArgumentParser):
    """An `ArgumentParser` that raises `RobustTuneError` instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise RobustTuneError(f"{message}: {self.prog} --help lists the options")
