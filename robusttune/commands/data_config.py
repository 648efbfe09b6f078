"""Parsing of a configuration's data settings, without its model."""

from __future__ import annotations

import warnings
from argparse import ArgumentError
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from robusttune.commands.configs import check_configs, locate_configs
from robusttune.commands.nulls import settle_nulls
from robusttune.commands.quiet import quieten
from robusttune.commands.wording import argument_error, instantiation_error
from robusttune.data import ImageTextDataModule
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError

# Other settings of a configuration, and of the config.yaml of a run. They are accepted and ignored.
OF_THE_MODEL = ("model", "trainer", "optimizer", "lr_scheduler")
OF_THE_RUN = (
    *("name", "run_root", "resume", "checkpoint_minutes", "monitor", "seed_everything", "ckpt_path"),
    *("weights_only", "return_predictions", "verbose"),
)


KINDS: dict[str, Any] = {  # types of the settings that must not be null
    "data": ImageTextDataModule,
    "image_encoder": ImageEncoder,
    "text_encoder": TextEncoder,
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
    args = locate_configs(args)
    known = check_configs(args)
    parser = ArgumentParser(prog=f"robusttune {command}", description=about, exit_on_error=False)
    parser.add_argument(
        "-c",
        "--config",
        action="config",
        help="Configuration file; values of later files replace those of earlier ones.",
    )
    add(parser)
    parser.add_class_arguments(ImageTextDataModule, "data")
    for encoder, kind in {"image_encoder": ImageEncoder, "text_encoder": TextEncoder}.items():
        parser.add_subclass_arguments(kind, encoder, required=True)
        parser.link_arguments(encoder, f"data.{encoder}", apply_on="instantiate")
    for name in OF_THE_MODEL:
        parser.add_argument(f"--{name}", type=dict | None, help="Ignored: a setting of fit.")
    for name in OF_THE_RUN:
        parser.add_argument(f"--{name}", type=Any, help="Ignored: a setting of fit.")
    with warnings.catch_warnings():
        quieten()
        try:
            given = parser.parse_args(args)
            settle_nulls(given, KINDS)
            return given, parser.instantiate(given).data
        except ArgumentError as error:
            raise argument_error(str(error), command, known) from None
        except RobustTuneError:
            raise
        except Exception as error:
            explained = instantiation_error(error)
            if explained is None:
                raise
            raise explained from error
