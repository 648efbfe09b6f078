"""Parsing of a configuration's data settings, without its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from robusttune.commands.configs import prepare_arguments
from robusttune.commands.flags import without_flags
from robusttune.commands.links import ENCODERS, add_encoders
from robusttune.commands.nulls import check_nulls
from robusttune.commands.quiet import quiet
from robusttune.commands.user_errors import user_errors
from robusttune.data import ImageTextDataModule

# Other settings of a configuration, and of the config.yaml of a run. They are accepted and ignored.
OF_THE_MODEL = ("model", "trainer", "optimizer", "lr_scheduler")
OF_THE_RUN = (
    *("name", "run_root", "resume", "checkpoint_minutes", "test_best", "monitor", "recipe"),
    *("seed_everything", "ckpt_path", "weights_only", "return_predictions", "verbose"),
)

KINDS: dict[str, Any] = {  # types of the settings that must not be null
    "data": ImageTextDataModule,
    **ENCODERS,
    "split": str,
    "samples": int,
    "severity": int,
    "out": str,
}


def read_data(
    command: str, about: str, args: list[str], add: Callable[[ArgumentParser], None]
) -> tuple[Namespace, ImageTextDataModule]:
    """Parse the arguments of a command that works on data, and construct the data module.

    Args:
        command: Name of the command, for its help and its error messages.
        about: Description of the command, for its help.
        args: Arguments of the command line, without the command itself.
        add: Function that adds the command's own options to the parser.

    Returns:
        All parsed settings, and the data module.

    Raises:
        RobustTuneError: An argument is invalid, or a class or file that it names cannot be used.
    """
    prepared = prepare_arguments(without_flags(args, OF_THE_MODEL))
    parser = ArgumentParser(prog=f"robusttune {command}", description=about, exit_on_error=False)
    parser.add_argument(
        "-c",
        "--config",
        action="config",
        help="Configuration file; values of later files replace those of earlier ones.",
    )
    add(parser)
    parser.add_class_arguments(ImageTextDataModule, "data")
    add_encoders(parser, "data")
    for name in OF_THE_MODEL:
        parser.add_argument(f"--{name}", type=dict | None, help="Ignored: a setting of fit.")
    for name in OF_THE_RUN:
        parser.add_argument(f"--{name}", type=Any, help="Ignored: a setting of fit.")
    with quiet(), user_errors(command, prepared.settings):
        given = parser.parse_args(prepared.args)
        check_nulls(given, KINDS)
        return given, parser.instantiate(given).data
