"""The full settings of a command line, without creating any of the objects that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from robusttune.commands.configs import prepare_arguments
from robusttune.commands.lightning_cli import CLIWithoutRun, launch_without_run
from robusttune.commands.quiet import quiet
from robusttune.commands.recipe import explicit_names, without_recipe
from robusttune.commands.resume import plain_settings
from robusttune.commands.user_errors import user_errors


class Resolver:
    """A parser of command lines that is built once, which takes most of the time.

    Example:
        >>> Resolver()("fit", ["--config", "demo", "--data.seed=3"])["data"]["seed"]
        3
    """

    def __init__(self) -> None:
        self._cli: CLIWithoutRun | None = None

    def __call__(self, verb: str, args: Sequence[str]) -> dict[str, Any]:
        """Return all settings of a command line as plain data, with the defaults of those that it leaves out.

        A recipe is not applied, since the data may not be there yet. The names of the settings that it leaves as they
        are stand beside it: the default of a setting, where it is given, is not what the recipe may choose for it.

        Args:
            verb: Name of the command, for error messages.
            args: Arguments of the command line after the command.

        Raises:
            RobustTuneError: An argument is invalid.
        """
        if self._cli is None:
            self._cli = launch_without_run(_Parsed, verb, [*args])
        prepared = prepare_arguments([*args])
        with quiet(), user_errors(verb, prepared.settings):
            self._cli.parse_settings(self._cli.parser, without_recipe(verb, prepared))
            parser: LightningArgumentParser = self._cli.parser
            settings = plain_settings(parser.dump(self._cli.config, skip_unset=False))
        if settings["recipe"] is not None:
            settings["recipe"] = {settings["recipe"]: explicit_names(prepared.settings)}
        return settings


class _Parsed(CLIWithoutRun):
    """A command line that only parses."""

    applies_recipe = False

    def instantiate_classes(self) -> None:
        """Create nothing."""

    def _set_seed(self) -> None:
        """Leave the random numbers of this process alone."""
